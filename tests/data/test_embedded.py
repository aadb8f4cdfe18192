from __future__ import annotations

import torch

from compress.data import TensorSplit, digits


def test_digits_are_the_same_everywhere():
    """The test split is pinned to the bit: baselines recorded anywhere hold for it."""
    data = digits()
    assert data.sha256 == "5f2315f21b44bc49006faebbe4852747601b5eac0feb095b15a86b295eca34b0"
    assert data.train_sha256 == "d95c883be838f0df48069bea2f4770a40bf4503b83f3d34199f88c9f0afad13b"


def test_digits_are_split_by_class():
    """1,297 to train on, 500 to test on, every class in both in its share; three equal channels of 16x16."""
    data = digits()
    assert (len(data.train), len(data.test)) == (1297, 500)
    assert data.classes == tuple("0123456789")
    assert data.image_shape == (3, 16, 16)
    everything = (data.train.labels.bincount() + data.test.labels.bincount()).double()
    assert ((data.test.labels.bincount() - everything * 500 / 1797).abs() <= 1).all()
    assert isinstance(data.test, TensorSplit)
    assert data.test.images[:, 0].equal(data.test.images[:, 2])
    assert data.test.images.max() == 255


def test_digits_are_never_mirrored():
    """Training shifts a digit by a pixel at most: away from the border, one of nine shifts explains every image."""
    data = digits()
    assert isinstance(data.train, TensorSplit)
    images, labels = next(data.train.subset(torch.arange(40)).batches(40, training=True, seed=1))
    plain, _ = next(data.train.subset(torch.arange(40)).batches(40))
    for image, label in zip(images, labels, strict=True):
        inner = image[:, 1:-1, 1:-1]
        shifts = plain.unfold(2, 14, 1).unfold(3, 14, 1).permute(0, 2, 3, 1, 4, 5)  # [n, 3, 3, c, 14, 14]
        same = (shifts == inner).flatten(3).all(dim=3).flatten(1).any(dim=1)
        assert same.any()
        assert label in data.train.labels[:40][same]
