from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from compress.calling.inputs import Inputs
from compress.errors import ModelError
from compress.reconstruction.passes import ForwardPass
from tests.nets import Net

X = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))


def test_a_pass_asks_for_each_operation_in_one_piece():
    """A linear layer arrives as such, and not as the operations that it is made of."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    names = []
    with ForwardPass(model, Inputs(args=(X,))) as forward:
        while (operation := forward.next()) is not None:
            names.append(operation.function.overloadpacket.__name__)
    assert names == ["linear", "relu", "linear"]


def test_the_model_sees_what_operations_put_out():
    """Control flow that depends on values goes the way it goes outside; weights changed on the way count."""
    model = Net(lambda n, x: n.a(x) if n.a(x).sum() > 0 else n.b(x), a=nn.Linear(3, 1), b=nn.Linear(3, 2))
    nn.init.zeros_(model.a.weight)
    nn.init.ones_(model.a.bias)
    widths = []
    with ForwardPass(model, Inputs(args=(X,))) as forward:
        while (operation := forward.next()) is not None:
            if operation.function is torch.ops.aten.linear.default:
                widths.append(forward.compute().shape[1])
                with torch.no_grad():
                    model.a.bias.fill_(-1.0)
    assert widths == [1, 1]


def test_a_pass_may_write_into_its_inputs():
    """Those that were given stay as they are, for another pass to run on."""
    given = X.clone()
    with ForwardPass(nn.ReLU(inplace=True), Inputs(args=(given,))) as forward:
        while forward.next() is not None:
            pass
    assert given.equal(X)


def test_an_abandoned_pass_leaves_no_thread():
    """Nor does it run on, though the model catches every Exception."""
    before, reached = threading.active_count(), []

    def forward(n: Net, x: torch.Tensor) -> torch.Tensor:
        try:
            return n.a(x)
        except Exception:
            reached.append("handler")
            raise
        finally:
            reached.append("end")

    with ForwardPass(Net(forward, a=nn.Linear(3, 4)), Inputs(args=(X,))) as one:
        assert one.next() is not None
    assert reached == ["end"]
    assert threading.active_count() == before


def test_an_operation_that_fails_can_be_caught():
    """The failure is raised where the model asked for it."""

    def forward(n: Net, x: torch.Tensor) -> torch.Tensor:
        try:
            return n.a(x)
        except RuntimeError:
            return n.a(x[:, :2])

    model = Net(forward, a=nn.Linear(2, 4))
    with ForwardPass(model, Inputs(args=(X,))) as one:
        while one.next() is not None:
            pass


def test_a_failing_pass_is_one_sentence():
    """What torch says is passed on."""
    with ForwardPass(nn.Linear(2, 4), Inputs(args=(X,))) as one:
        assert one.next() is not None
        with pytest.raises(ModelError, match=r"^the forward pass on a calibration batch failed: mat1 and mat2"):
            one.next()
