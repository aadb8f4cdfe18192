from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from compress.data import ImageData, TensorSplit, from_tensors
from compress.data.splits import index_batches, stratified
from compress.errors import ConfigError, DataError

counts = st.integers(min_value=1, max_value=200)
sizes = st.integers(min_value=1, max_value=64)
worlds = st.integers(min_value=1, max_value=4)


def numbered(train_examples: int, test_examples: int = 4, classes: int = 2) -> ImageData:
    """Images that can be told apart: every pixel of example i is i."""

    def split(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)
        return images.contiguous(), torch.arange(count) % classes

    return from_tensors("numbered", train=split(train_examples), test=split(test_examples))


@settings(deadline=None, max_examples=60)
@given(counts, sizes, worlds)
@example(1, 1, 3)
def test_evaluation_batches_hold_every_example_once(num_examples, batch_size, world_size):
    """Not training, the ranks' parts are disjoint and complete, each ascending."""
    parts = [
        [
            index
            for batch in index_batches(
                num_examples, batch_size, training=False, seed=0, rank=rank, world_size=world_size
            )
            for index in batch.tolist()
        ]
        for rank in range(world_size)
    ]
    assert all(part == sorted(part) for part in parts)
    assert sorted(index for part in parts for index in part) == list(range(num_examples))


@settings(deadline=None, max_examples=60)
@given(counts, sizes, worlds, st.integers(min_value=0, max_value=2**31))
def test_training_batches_are_disjoint_and_equal(num_examples, batch_size, world_size, seed):
    """Training, ranks get as many examples in as many batches, none twice, and sizes differ by one at most."""
    if num_examples < world_size:
        return
    plans = [
        index_batches(num_examples, batch_size, training=True, seed=seed, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    share = num_examples // world_size
    for plan in plans:
        lengths = [len(batch) for batch in plan]
        assert len(plan) == math.ceil(share / batch_size)
        assert sum(lengths) == share
        assert max(lengths) <= batch_size
        assert max(lengths) - min(lengths) <= 1
    seen = torch.cat([batch for plan in plans for batch in plan])
    assert len(seen.unique()) == len(seen)


def test_training_order_follows_the_seed_alone():
    """The same seed gives the same batches, another seed others, and the caller's random state stays."""
    settings_ = {"training": True, "rank": 0, "world_size": 1}
    torch.manual_seed(1)
    first = torch.cat(index_batches(50, 8, seed=3, **settings_))
    after = torch.rand(1)
    again = torch.cat(index_batches(50, 8, seed=3, **settings_))
    other = torch.cat(index_batches(50, 8, seed=4, **settings_))
    torch.manual_seed(1)
    assert first.equal(again)
    assert not first.equal(other)
    assert after.equal(torch.rand(1))


@pytest.mark.parametrize(
    ("batch_size", "rank", "world_size", "message"),
    [
        (0, 0, 1, "batch_size must be at least 1, got 0"),
        (4, 2, 2, r"rank must be in \[0, 2\), got 2"),
        (4, 0, 9, "training needs an example for each of 9 processes, got 8"),
    ],
)
def test_batches_refuse_what_makes_no_sense(batch_size, rank, world_size, message):
    """A batch size, rank or number of processes out of range is named with its value."""
    with pytest.raises(ConfigError, match=message):
        index_batches(8, batch_size, training=True, seed=0, rank=rank, world_size=world_size)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(min_value=0, max_value=4), min_size=2, max_size=200), st.data())
def test_stratified_draws_in_proportion(labels, data):
    """Exactly as many as asked for are drawn, and each class gives its share to within one example."""
    count = data.draw(st.integers(min_value=1, max_value=len(labels) - 1))
    tensor = torch.tensor(labels)
    rest, chosen = stratified(tensor, count, seed=0)
    assert torch.cat([rest, chosen]).sort().values.equal(torch.arange(len(labels)))
    assert len(chosen) == count
    for label in set(labels):
        share = count * labels.count(label) / len(labels)
        assert abs(int((tensor[chosen] == label).sum()) - share) <= 1


def test_holdout_parts_the_training_split():
    """Held-out examples come from the training split, are not trained on, and follow the seed."""
    data = numbered(100)
    train, validation = data.holdout(0.2, seed=1)
    assert isinstance(train, TensorSplit)
    assert isinstance(validation, TensorSplit)
    pixels = torch.cat([train.images, validation.images])[:, 0, 0, 0]
    assert pixels.sort().values.equal(torch.arange(100, dtype=torch.uint8))
    assert len(validation) == 20
    assert validation.labels.bincount().tolist() == [10, 10]
    assert data.holdout(0.2, seed=1)[1].labels.equal(validation.labels)
    other = data.holdout(0.2, seed=2)[1]
    assert isinstance(other, TensorSplit)
    assert not other.images.equal(validation.images)


@pytest.mark.parametrize(
    ("fraction", "message"),
    [
        (0.0, r"must be in \(0, 1\), got 0.0"),
        (1.0, r"must be in \(0, 1\), got 1.0"),
        (float("nan"), r"must be in \(0, 1\), got nan"),
        (0.01, "must leave examples on both sides, got 0.01 of 10"),
        (0.99, "must leave examples on both sides, got 0.99 of 10"),
    ],
)
def test_holdout_refuses_an_empty_part(fraction, message):
    """A fraction outside (0, 1), or that leaves nothing on one side, is refused."""
    with pytest.raises(ConfigError, match=message):
        numbered(10).holdout(fraction)


@pytest.mark.parametrize("classes", [("only",), ("twice", "twice")])
def test_data_must_have_two_distinct_classes(classes):
    """One class, or two of one name, is nothing to classify."""
    images, labels = torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(DataError, match="at least two distinct classes"):
        from_tensors("one", train=(images, labels), test=(images, labels), classes=classes)
