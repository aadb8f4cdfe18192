from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.calling.inputs import Inputs
from compress.reconstruction.passes import ForwardPass
from compress.reconstruction.survey import Parameters
from tests.nets import Net

CONVOLUTIONS: list[tuple[Callable[[], nn.Module], tuple[int, ...]]] = [
    (lambda: nn.Conv1d(4, 6, 3, padding=1), (2, 4, 9)),
    (lambda: nn.Conv1d(4, 6, 3, padding=1), (4, 9)),
    (lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), (2, 4, 9, 8)),
    (lambda: nn.Conv2d(4, 6, 4, padding="same", dilation=2), (2, 4, 9, 9)),
    (lambda: nn.Conv2d(4, 6, 3, padding="valid"), (2, 4, 9, 9)),
    (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (2, 4, 9, 9)),
    (lambda: nn.Conv2d(4, 6, 3, groups=2), (2, 4, 5, 5)),
    (lambda: nn.Conv2d(4, 8, 3, groups=4, bias=False), (2, 4, 5, 5)),
    (lambda: nn.Conv3d(2, 4, (1, 3, 2), padding=(0, 1, 1)), (2, 2, 3, 4, 5)),
    (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2), (2, 4, 5)),
    (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), (2, 4, 5, 4)),
    (lambda: nn.ConvTranspose2d(4, 6, (3, 2), dilation=2), (4, 5, 4)),
    (lambda: nn.ConvTranspose3d(2, 4, 2, stride=(1, 2, 3)), (2, 2, 3, 2, 2)),
]
MATRICES: list[tuple[Callable[[], nn.Module], tuple[int, ...]]] = [
    (lambda: nn.Linear(4, 6), (4,)),
    (lambda: nn.Linear(4, 6), (3, 4)),
    (lambda: nn.Linear(4, 6, bias=False), (2, 3, 5, 4)),
    (lambda: Net(lambda n, x: x @ n.a.weight, a=nn.Linear(6, 4)), (2, 3, 4)),
    (lambda: Net(lambda n, x: functional.linear(x, n.a.weight.t()), a=nn.Linear(6, 4)), (2, 3, 4)),
    (lambda: Net(lambda n, x: torch.addmm(n.a.bias[:4], x, n.a.weight), a=nn.Linear(4, 6)), (3, 6)),
    (lambda: Net(lambda n, x: torch.addmm(torch.zeros(3, 4).double(), x, n.a.weight), a=nn.Linear(4, 6)), (3, 6)),
]


@pytest.mark.parametrize(("layer", "shape"), [*CONVOLUTIONS, *MATRICES])
def test_outputs_are_the_matrix_times_the_inputs(layer: Callable[[], nn.Module], shape: tuple[int, ...]):
    """At every position, whatever the operation: ``outputs_at = matrix(weight) @ inputs_at``, up to what is added."""
    torch.manual_seed(0)
    model, x = layer().double(), torch.randn(shape).double()
    parameters = Parameters(model)
    with ForwardPass(model, Inputs(args=(x,))) as forward:
        product = None
        while product is None:
            operation = forward.next()
            assert operation is not None
            product = parameters.product(operation)
        y = forward.compute()
        count = product.num_positions(y)
        positions = torch.randperm(count)[: max(1, count // 2)]
        found = product.outputs_at(y, positions)
        products = product.inputs_at(y, positions) @ product.matrix(product.weight).transpose(1, 2)
    added: Tensor = found - products.transpose(0, 1).flatten(1)
    expected = torch.zeros(found.shape[1]) if product.bias is None else product.bias.detach()
    assert torch.allclose(added, expected.double().expand_as(added), atol=1e-12)
    assert product.unmatrix(product.matrix(product.weight)).equal(product.weight)
    assert product.num_outputs == found.shape[1]
