from __future__ import annotations

import dataclasses

import pytest
import torch

from compress.recipe.training_batches import TrainingBatches
from tests.workloads import tiny_data


def test_training_batches_are_drawn_by_their_seed():
    """The same images each time, none twice, in whole batches, of the training split, without augmentation."""
    split = tiny_data().train
    batches = TrainingBatches(split=split, batches=3, batch_size=8, seed=0)
    first, again = (torch.cat([images for images, _ in batches]) for _ in range(2))
    assert first.equal(again)
    assert first.shape[0] == 24
    whole = torch.cat([images for images, _ in split.batches(48)])
    index = [int((whole == image).flatten(1).all(1).nonzero()) for image in first]
    assert len(set(index)) == 24
    assert sorted(index) != index
    other = torch.cat([images for images, _ in dataclasses.replace(batches, seed=1)])
    assert not other.equal(first)


@pytest.mark.parametrize(("batches", "size", "expected"), [(9, 20, [20, 20]), (1, 100, [48]), (2, 16, [16, 16])])
def test_there_are_no_more_batches_than_images(batches, size, expected):
    """A small split gives what it has, without a last batch that is too small for a norm."""
    drawn = TrainingBatches(split=tiny_data().train, batches=batches, batch_size=size, seed=0)
    assert [len(labels) for _, labels in drawn] == expected
    assert len(drawn) == len(expected)
