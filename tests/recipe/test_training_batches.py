from __future__ import annotations

import dataclasses

import pytest
import torch

from compress.data import CROP_AND_FLIP, from_tensors
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


def test_training_batches_may_be_augmented():
    """As training does it, but the same each time: white images get black borders where they were moved."""
    images, labels = torch.full((32, 3, 8, 8), 255, dtype=torch.uint8), torch.arange(32) % 2
    split = from_tensors("white", train=(images, labels), test=(images, labels), augmentation=CROP_AND_FLIP).train
    plain = TrainingBatches(split=split, batches=2, batch_size=16, seed=0)
    augmented = dataclasses.replace(plain, augmented=True)
    shades = [torch.cat([batch for batch, _ in drawn]) for drawn in (plain, augmented, augmented)]
    assert shades[0].unique().numel() == 1
    assert shades[1].unique().numel() == 2
    assert shades[1].equal(shades[2])


@pytest.mark.parametrize(("batches", "size", "expected"), [(9, 20, [20, 20]), (1, 100, [48]), (2, 16, [16, 16])])
def test_there_are_no_more_batches_than_images(batches, size, expected):
    """A small split gives what it has, without a last batch that is too small for a norm."""
    drawn = TrainingBatches(split=tiny_data().train, batches=batches, batch_size=size, seed=0)
    assert [len(labels) for _, labels in drawn] == expected
    assert len(drawn) == len(expected)
