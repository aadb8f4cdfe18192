import numpy as np
import pytest
import torch
from torch import Tensor

from compress.channels.labels import Axis, Ledger, moved
from compress.channels.parts import alike, fits, joined, picked
from tests.nets import Case, between


def heads() -> Axis:
    """Two heads along dimension 1, three channels along each."""
    return Axis(np.arange(6).reshape(2, 3), zero=True, parts=(1,))


def test_joined_parts_are_tied_position_by_position():
    """Channel ``i`` of one head stands or falls with channel ``i`` of the other."""
    ledger = Ledger()
    axis = joined(ledger, heads())
    assert axis.parts == ()
    assert len(axis.ids) == 3
    ties = {(int(a), int(b)) for tie in ledger.ties for a, b in zip(tie.first, tie.second, strict=True)}
    assert ties == {(0, 3), (1, 4), (2, 5)}


def test_only_the_dimensions_asked_for_are_joined():
    """Parts along other dimensions stay."""
    axis = Axis(np.arange(12).reshape(2, 2, 3), zero=True, parts=(0, 2))
    assert joined(Ledger(), axis, [2]).parts == (0,)
    assert joined(Ledger(), axis, [5]) is axis


def test_parts_follow_their_dimensions():
    """After a permutation the parts are counted along the dimensions that they now are."""
    axis = Axis(np.arange(12).reshape(2, 2, 3), zero=True, parts=(0, 1))
    found = moved({2: axis}, [1, 2, 0])[1]
    assert found.parts == (0, 2)
    assert found.ids[1, 0].tolist() == axis.ids[0, 1].tolist()


@pytest.mark.parametrize(("index", "ids"), [(1, [3, 4, 5]), (slice(0, 1), [0, 1, 2])])
def test_a_part_picked_is_an_axis_without_parts(index, ids):
    """Whether picked by a number or a slice of one."""
    found = picked({2: heads()}, 1, index)[2]
    assert found.parts == ()
    assert found.ids.tolist() == ids


def test_axes_in_other_parts_are_met_flat():
    """Where two tensors count parts along different dimensions, all parts are alike."""
    other = Axis(np.arange(6, 12).reshape(2, 3), zero=True, parts=(0,))
    assert [axis.parts for axis in alike(Ledger(), [heads(), other])] == [(), ()]
    assert [axis.parts for axis in alike(Ledger(), [heads(), None, heads()]) if axis] == [(1,), (1,)]


@pytest.mark.parametrize(("shape", "whether"), [((7, 2, 3), True), ((7, 3, 3), False), ((7, 2), False)])
def test_labels_fit_a_shape_with_all_their_parts(shape, whether):
    """Sizes of parts count as much as the size of the axis."""
    assert fits({2: heads()}, shape) is whether


def halves_exchanged(x: Tensor) -> Tensor:
    """Two halves that change places."""
    first, second = x.unflatten(1, (2, -1)).unbind(1)
    return torch.cat([second, first], 1)


def halves_weighed(x: Tensor) -> Tensor:
    """Two halves, weighed against each other channel by channel."""
    halves = x.unflatten(1, (2, -1))
    return (halves * halves.softmax(1)).sum(1)


CASES = {
    "halves that change places": Case(net=lambda: between(halves_exchanged), widths={"a.0": 12, "b": 12}),
    "halves stacked the other way": Case(
        net=lambda: between(lambda x: x.unflatten(1, (2, -1)).flip(1).flatten(1, 2)), widths={"a.0": 12, "b": 12}
    ),
    "one half": Case(net=lambda: between(lambda x: x.unflatten(1, (2, -1))[:, 1], 8), widths={"a.0": 12, "b": 12}),
    "halves weighed against each other": Case(
        net=lambda: between(halves_weighed, 8),
        widths={"a.0": 12, "b": 12},
    ),
    "halves multiplied": Case(
        net=lambda: between(lambda x: x.unflatten(1, (2, -1)).prod(1), 8),
        widths={"b": 12},
        reason="unknown operation (aten.prod",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_operations_on_parts(case: Case):
    """Parts of a dimension are followed one by one, or tied where an operation mixes them."""
    case.check()
