from __future__ import annotations

import pytest
import torch

from compress.data import Augmentation, Normalization, from_tensors, resident
from compress.errors import DataError


def random_split(count: int, channels: int = 3, side: int = 4, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images with labels 0, 1, 2, 0, ..., other ones for another count."""
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, channels, side, side), generator=generator, dtype=torch.uint8)
    return images, torch.arange(count) % classes


def test_evaluation_gives_every_example_in_order_and_unaugmented():
    """The batches of a test split, put together, are its images, normalized, and its labels."""
    train, test = random_split(30), random_split(11)
    normalization = Normalization(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    data = from_tensors("mine", train=train, test=test, normalization=normalization)
    batches = list(data.test.batches(4))
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    mean, std = (torch.tensor(values)[:, None, None] for values in (normalization.mean, normalization.std))
    assert [len(batch) for _, batch in batches] == [4, 4, 3]
    assert images.dtype == torch.float32
    torch.testing.assert_close(images, (test[0] / 255 - mean) / std)
    assert labels.equal(test[1])
    assert data.image_shape == (3, 4, 4)
    assert data.classes == ("0", "1", "2")


def test_normalization_comes_from_the_training_images():
    """Left out, mean and standard deviation are those of the training split, channel by channel, over many chunks."""
    train = random_split(5000, side=2)
    train[0][:, 1] //= 2
    data = from_tensors("mine", train=train, test=random_split(10, side=2))
    images = torch.cat([images for images, _ in data.train.batches(1000)]).double()
    torch.testing.assert_close(images.mean(dim=(0, 2, 3)), torch.zeros(3).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(images.std(dim=(0, 2, 3), correction=0), torch.ones(3).double(), atol=1e-5, rtol=0)


def test_a_constant_channel_is_not_divided_by_zero():
    """A channel of one value throughout comes out as zeros."""
    images, labels = torch.full((6, 1, 2, 2), 9, dtype=torch.uint8), torch.arange(6) % 2
    data = from_tensors("flat", train=(images, labels), test=(images, labels))
    batch, _ = next(data.test.batches(6))
    torch.testing.assert_close(batch, torch.zeros(6, 1, 2, 2), atol=1e-6, rtol=0)


def test_training_batches_follow_the_seed_and_the_rank():
    """An epoch repeats under its seed, differs under another, and gives ranks examples that no other has."""
    data = from_tensors("mine", train=random_split(40), test=random_split(5), augmentation=Augmentation(padding=1))

    def epoch(seed: int) -> torch.Tensor:
        return torch.cat([images for images, _ in data.train.batches(8, training=True, seed=seed)])

    assert epoch(1).equal(epoch(1))
    assert not epoch(1).equal(epoch(2))
    plain = from_tensors("mine", train=random_split(40), test=random_split(5), augmentation=Augmentation())
    ranks = [
        torch.cat([images for images, _ in plain.train.batches(4, training=True, seed=5, rank=rank, world_size=2)])
        for rank in range(2)
    ]
    assert [len(images) for images in ranks] == [20, 20]
    assert len(torch.cat(ranks).unique(dim=0)) == 40


def test_batches_leave_the_callers_random_state_alone():
    """Shuffling and augmentation draw from generators of their own."""
    data = from_tensors("mine", train=random_split(40), test=random_split(5))
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    list(data.train.batches(8, training=True, seed=9))
    assert torch.rand(1).equal(expected)


def test_digests_tell_splits_apart():
    """The digest covers the test split's pixels, labels and class names, and nothing of the training split."""
    train, test = random_split(12), random_split(6)
    base = from_tensors("mine", train=train, test=test, classes=("a", "b", "c"))
    pixels = test[0].clone()
    pixels[2, 1, 0, 0] ^= 1
    variants = [
        from_tensors("mine", train=train, test=(pixels, test[1]), classes=("a", "b", "c")),
        from_tensors("mine", train=train, test=(test[0], test[1].flip(0)), classes=("a", "b", "c")),
        from_tensors("mine", train=train, test=test, classes=("a", "b", "d")),
    ]
    assert len({base.sha256, *(variant.sha256 for variant in variants)}) == 4
    retrained = from_tensors("other", train=random_split(13), test=test, classes=("a", "b", "c"))
    assert retrained.sha256 == base.sha256
    assert retrained.train_sha256 != base.train_sha256


def test_labels_of_any_integer_type_are_taken():
    """Labels of a small integer type give the same data set as int64."""
    (images, labels), test = random_split(12), random_split(6)
    small = from_tensors("mine", train=(images, labels.to(torch.uint8)), test=test)
    assert small.train.labels.dtype == torch.int64
    assert small.train_sha256 == from_tensors("mine", train=(images, labels), test=test).train_sha256


IMAGES, LABELS = random_split(6)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ((IMAGES.float(), LABELS), r"images must be uint8 .*, got float32 of shape \[6, 3, 4, 4\] \(mine, train\)"),
        ((IMAGES[0], LABELS), r"images must be uint8 of shape \[n, c, h, w\], got uint8 of shape \[3, 4, 4\]"),
        ((IMAGES, LABELS[:5]), r"labels must be integers of shape \[6\], .*, got int64 of shape \[5\]"),
        ((IMAGES, LABELS.float()), "labels must be integers"),
        ((IMAGES, LABELS - 1), r"labels must be in \[0, 3\), got -1 to 1 \(mine, train\)"),
        ((IMAGES[:0], LABELS[:0]), r"at least one example, got none \(mine, train\)"),
        ((IMAGES[..., 1:], LABELS), r"the same shape, got \[3, 4, 3\] and \[3, 4, 4\] \(mine\)"),
    ],
)
def test_tensors_that_are_no_data_set_are_refused(train, message):
    """A wrong type, shape or label is one sentence with the rule, the value and the split."""
    with pytest.raises(DataError, match=message):
        from_tensors("mine", train=train, test=(IMAGES, LABELS))


def test_a_label_beyond_the_classes_is_refused():
    """Given class names bound the labels of both splits."""
    with pytest.raises(DataError, match=r"labels must be in \[0, 2\), got 0 to 2"):
        from_tensors("mine", train=(IMAGES, LABELS), test=(IMAGES, LABELS), classes=("a", "b"))


def test_normalization_must_fit_the_channels():
    """A mean too few, or a standard deviation of 0, is refused."""
    with pytest.raises(DataError, match="a mean for each of 3 channels, got 1"):
        from_tensors(
            "mine", train=(IMAGES, LABELS), test=(IMAGES, LABELS), normalization=Normalization(mean=(0.5,), std=(1.0,))
        )
    with pytest.raises(DataError, match="a positive std"):
        Normalization(mean=(0.5,), std=(0.0,))


def test_a_split_on_another_device_gives_its_batches_there():
    """Pixels and labels move, and a split without any in memory stays what it is."""
    data = from_tensors("noise", train=random_split(6), test=random_split(3))
    moved = resident(data.train, torch.device("meta"))
    assert moved.labels.device.type == "meta"
    assert {images.device.type for images, _ in moved.batches(4)} == {"meta"}
    assert len(moved) == 6
    assert resident(data.train, torch.device("cpu")) is data.train
    elsewhere = object()
    assert resident(elsewhere, torch.device("meta")) is elsewhere
