import copy
import threading

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from compress.errors import ModelError
from compress.modules.copying import copied
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


class Keeps(nn.Module):
    """A model that keeps its features, with the history of their gradient, in every kind of attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.feature = self.first(x)
        self.features = [self.feature, {"last": (self.feature * 2,)}]
        return self.last(self.feature)


def test_what_a_forward_pass_left_with_gradients_is_copied_without_them():
    """The values stay, one tensor stays one, and the given model keeps its history."""
    model = Keeps()
    model(torch.ones(1, 3))
    mine = copied(model)
    assert mine.feature is mine.features[0]
    assert mine.feature is not model.feature
    torch.testing.assert_close(mine.features[1]["last"][0], model.feature * 2)
    assert not mine.feature.requires_grad
    assert model.feature.requires_grad


@pytest.mark.parametrize("kind", ["l1_unstructured", "random_unstructured", "identity"])
def test_masks_of_torch_are_copied(kind):
    """The copy is masked too, trains, and is masked after it."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    amount = {} if kind == "identity" else {"amount": 0.5}
    getattr(prune, kind)(model[0], "weight", **amount)
    mine, x = copied(model), torch.ones(2, 8)
    torch.testing.assert_close(mine(x), model(x))
    mine(x).sum().backward()
    with torch.no_grad():
        mine[0].weight_orig.sub_(mine[0].weight_orig.grad)
    mine(x)
    assert torch.equal(mine[0].weight == 0, model[0].weight == 0)


def test_what_cannot_be_copied_is_named():
    """A lock has no copy; the layer and the attribute that hold it stand in the message."""
    model = nn.Sequential(nn.Linear(3, 3), Odd())
    model[1].a.guard = threading.Lock()
    with pytest.raises(ModelError, match=r"cannot be copied: .*lock.* \(attribute 'guard' of layer '1\.a'\)"):
        copied(model)
