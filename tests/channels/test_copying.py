import copy

import torch
from torch import nn

from compress.channels.copying import copied
from tests.nets import conv_bn


class Odd(nn.Module):
    """A module that keeps more than torch knows of."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3)
        self.b = self.a
        self.listed = [self.a, {"tensor": torch.ones(2)}]
        self.chosen = self.forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x)


class Own(nn.Module):
    """A module that says itself how it is copied."""

    def __deepcopy__(self, memo: dict[int, object]) -> "Own":
        twin = Own()
        twin.seen = True
        return twin


def test_a_copy_is_what_deepcopy_makes():
    """Values are equal, nothing is shared, hooks and modes come along."""
    net = nn.Sequential(conv_bn(3, 4), Odd(), Own()).train()
    net[0].eval()
    net[0].register_forward_hook(print)
    mine, theirs = copied(net, {}), copy.deepcopy(net)
    assert mine.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(mine.state_dict().values(), net.state_dict().values(), strict=True))
    assert not {id(p) for p in mine.parameters()} & {id(p) for p in net.parameters()}
    assert [m.training for m in mine.modules()] == [m.training for m in net.modules()]
    assert len(mine[0]._forward_hooks) == 1
    assert mine[2].seen


def test_references_between_modules_stay_inside_the_copy():
    """One module under two names, in a list, and behind a bound method is one module in the copy too."""
    mine = copied(Odd(), {})
    assert mine.a is mine.b
    assert mine.listed[0] is mine.a
    assert mine.chosen.__self__ is mine


def test_tensors_given_take_the_place_of_others():
    """The tensor to put in is not copied, wherever it stands."""
    net = Odd()
    other = nn.Parameter(torch.zeros(2, 3))
    mine = copied(net, {id(net.a.weight): other})
    assert mine.a.weight is other
    assert net.a.weight is not other
