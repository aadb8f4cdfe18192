import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.nets import Case, Net, between, conv_bn, head, pooled


def assembled(net: Net, x: Tensor) -> Tensor:
    """A concatenation by hand: two branches written into one buffer."""
    a, b = net.a(x), net.b(x)
    out = x.new_zeros(x.shape[0], a.shape[1] + b.shape[1], *x.shape[2:])
    out[:, : a.shape[1]] = a
    out[:, a.shape[1] :] = b
    return net.h(pooled(out))


def half_written(x: Tensor) -> Tensor:
    """Some channels written into a buffer of fixed size."""
    out = torch.zeros(x.shape[0], 16, 8, 8, dtype=x.dtype)
    out[:, :12] = x[:, :12]
    return x + out


def part_written(x: Tensor) -> Tensor:
    """Some channels at some places written into a buffer of fixed size."""
    out = torch.zeros(x.shape[0], 16, 8, 8, dtype=x.dtype)
    out[:, :12, 2:6] = x[:, :12, 2:6]
    return x + out


def space_written(x: Tensor) -> Tensor:
    """Writes to a part of space change no labels."""
    x[:, :, :4] += 1.0
    x[:, :, 4:, :2].mul_(2.0)
    return x


def transposed_write(x: Tensor) -> Tensor:
    """Channels written through a view that is no slice."""
    out = torch.zeros(x.shape[0], 8, 8, 16, dtype=x.dtype)
    out.permute(0, 3, 1, 2)[:, :, :4] = x[:, :, :4]
    return out.permute(0, 3, 1, 2) + x


CASES = {
    "branches written into one buffer": Case(
        net=lambda: Net(assembled, a=conv_bn(3, 16), b=conv_bn(3, 8), h=head(24)),
        widths={"a.0": 12, "b.0": 6},
    ),
    "a part of a buffer of fixed size": Case(
        net=lambda: between(half_written), widths={"a.0": 16, "b": 12}, reason="(aten."
    ),
    "a middle, and what lies around it": Case(
        net=lambda: between(lambda x: functional.pad(x, (1, 1, 2, 2), mode="circular")), widths={"a.0": 12, "b": 12}
    ),
    "a part of channels and of space, of a buffer of fixed size": Case(
        net=lambda: between(part_written), widths={"a.0": 16, "b": 12}, reason="(aten."
    ),
    "a part of space": Case(net=lambda: between(space_written), widths={"a.0": 12, "b": 12}),
    "a view that is no slice": Case(
        net=lambda: between(transposed_write), widths={"a.0": 16, "b": 12}, reason="written through a view"
    ),
    "one channel": Case(
        net=lambda: between(lambda x: x[:, 0].add_(1.0) is None or x),
        widths={"a.0": 12, "b": 12},
        reason="a single channel picked (aten.select)",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_writes_through_views(case: Case):
    """A write to a view counts for the whole tensor, or freezes what it writes."""
    case.check()
