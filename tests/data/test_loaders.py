from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from compress.data import from_loaders
from compress.data.loaders import drawn
from compress.errors import ConfigError, DataError


def batches(count=5, size=4):
    """Batches of numbers that tell which example they are."""
    numbers = torch.arange(float(count * size))[:, None]
    return list(zip(numbers.split(size), (2 * numbers).split(size), strict=True))


def examples(split, **settings):
    """The examples that a split gives, in order."""
    return [int(one) for inputs, _ in split.batches(**settings) for one in inputs[:, 0]]


def test_a_list_of_batches_is_counted_and_hashed():
    """The same batches have the same hash, others another; how many examples there are is counted."""
    data = from_loaders("own", train=batches(), test=batches(3))
    assert (len(data.train), len(data.test), data.train.num_batches) == (20, 12, 5)
    assert data.sha256 == from_loaders("own", train=batches(), test=batches(3)).sha256
    assert data.sha256 != from_loaders("own", train=batches(), test=batches(2)).sha256


def test_a_loader_that_shuffles_keeps_its_hash():
    """What was trained on the same examples in another order is the same model's data."""
    dataset = TensorDataset(torch.arange(12.0)[:, None], torch.arange(12))
    plain, shuffled = (DataLoader(dataset, batch_size=4, shuffle=shuffle) for shuffle in (False, True))
    one, other = (from_loaders("own", train=loader, test=batches(1)) for loader in (plain, shuffled))
    assert one.train_sha256 == other.train_sha256


def test_counting_leaves_random_numbers_alone():
    """A loader that shuffles draws from the caller's generator; to look at its data must not."""
    loader = DataLoader(TensorDataset(torch.arange(8.0)[:, None], torch.arange(8)), batch_size=4, shuffle=True)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    assert len(from_loaders("own", train=loader, test=batches(1)).train) == 8
    assert torch.equal(torch.rand(3), expected)


def test_batches_of_a_list_are_shuffled_by_seed_in_training_alone():
    """The same seed gives the same order, and all examples come once."""
    train = from_loaders("own", train=batches(), test=batches(1)).train
    assert examples(train) == list(range(20))
    assert examples(train, training=True, seed=1) == examples(train, training=True, seed=1) != list(range(20))
    assert sorted(examples(train, training=True, seed=1)) == list(range(20))


def test_processes_take_as_many_batches_each():
    """In training the odd one is left out; in evaluation none is."""
    train = from_loaders("own", train=batches(), test=batches(1)).train
    parts = [examples(train, training=True, seed=2, rank=rank, world_size=2) for rank in (0, 1)]
    assert [len(part) for part in parts] == [8, 8]
    assert not set(parts[0]) & set(parts[1])
    assert sum(len(examples(train, rank=rank, world_size=2)) for rank in (0, 1)) == 20


def test_whole_batches_are_set_apart():
    """No example is on both sides, and at least as many as asked for are set apart."""
    data = from_loaders("own", train=batches(), test=batches(1))
    rest, chosen = data.train.apart(6, seed=0)
    assert len(chosen) == 8
    assert sorted(examples(rest) + examples(chosen)) == list(range(20))
    kept, held = data.holdout(0.2)
    assert (len(kept), len(held)) == (16, 4)
    assert len(drawn(data.train, 100, seed=0)) == 20
    with pytest.raises(ConfigError, match="must leave batches on both sides"):
        data.holdout(0.99)


def test_targets_of_any_structure_count_too():
    """A list of an object for each example, as of detectors, changes the hash where it differs."""
    one, other = ([(torch.zeros(2, 1), [{"n": torch.tensor(1)}, {"n": torch.tensor(last)}])] for last in (2, 3))
    assert from_loaders("own", train=one, test=one).sha256 != from_loaders("own", train=one, test=other).sha256


def test_batches_of_inputs_alone_need_no_targets():
    """They count and are identified example by example, and whoever goes over them finds no targets."""
    inputs = torch.arange(6.0)[:, None]
    tensors, pairs = [inputs[:4], inputs[4:]], [(inputs[:4], None), (inputs[4:], None)]
    data = from_loaders("own", train=tensors, test=[{"x": inputs}])
    assert (len(data.train), len(data.test)) == (6, 6)
    assert [targets for _, targets in data.train.batches()] == [None, None]
    assert data.train_sha256 == from_loaders("own", train=pairs, test=pairs).train_sha256
    assert data.train_sha256 == from_loaders("own", train=[inputs.flip(0)], test=pairs).train_sha256
    assert len(data.train.apart(1, seed=0)[1]) in (2, 4)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (iter(batches()), "can be gone over again.*got list_iterator"),
        (3, "can be gone over again.*got int"),
    ],
)
def test_what_can_be_gone_over_once_is_refused(test, message):
    """An iterator is used up by the first who looks."""
    with pytest.raises(DataError, match=message):
        from_loaders("own", train=batches(), test=test)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ([[torch.zeros(2, 1)] * 3], r"must be a pair \(inputs, targets\), or inputs alone: .*, got list"),
        ([({"a": 3}, torch.zeros(1))], "must hold a tensor whose first dimension"),
        ([], "at least one example"),
    ],
)
def test_batches_that_are_none_are_refused(test, message):
    """Three of something, or nothing."""
    with pytest.raises(DataError, match=message):
        len(from_loaders("own", train=batches(), test=test).test)
