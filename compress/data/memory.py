"""Small images, held in memory as uint8 tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from compress.data.augment import CROP_AND_FLIP, Augmentation, augment
from compress.data.splits import ImageData, generator, index_batches
from compress.errors import DataError

SplitT = TypeVar("SplitT")


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """``(pixel / 255 - mean) / std``, a mean and a standard deviation for each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(std > 0 for std in self.std):
            raise DataError(f"normalization needs a mean and a positive std for each channel, got {self}")

    def __call__(self, pixels: Tensor) -> Tensor:
        """``pixels: [n, c, h, w]`` uint8 to float32 of the same shape."""
        mean = torch.tensor(self.mean, device=pixels.device)[:, None, None]
        std = torch.tensor(self.std, device=pixels.device)[:, None, None]
        return pixels.float().div_(255).sub_(mean).div_(std)


@dataclass(frozen=True, kw_only=True, eq=False)
class TensorSplit:
    """A :class:`~compress.data.Split` of ``images: [n, c, h, w]`` uint8 and ``labels: [n]`` int64."""

    images: Tensor
    labels: Tensor
    num_classes: int
    normalization: Normalization
    augmentation: Augmentation

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self, batch_size: int, *, training: bool = False, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See :meth:`compress.data.Split.batches`."""
        plan = index_batches(len(self), batch_size, training=training, seed=seed, rank=rank, world_size=world_size)
        # Ranks draw different crops; a single process draws the same whatever the number of ranks was elsewhere.
        random = generator(seed * world_size + rank)
        for indices in plan:
            here = indices.to(self.images.device)
            images = self.images[here]
            if training:
                images = augment(images, self.augmentation, random)
            yield self.normalization(images), self.labels[here]

    def subset(self, indices: Tensor) -> TensorSplit:
        """See :meth:`compress.data.Split.subset`."""
        return replace(self, images=self.images[indices], labels=self.labels[indices])


def resident(split: SplitT, device: torch.device) -> SplitT | TensorSplit:
    """``split`` with its images on ``device`` if they are held in memory: a GPU then waits for none of them.

    Its batches are the same, and come on that device. A split that reads files is returned as it is.
    """
    if not isinstance(split, TensorSplit) or split.images.device == device:
        return split
    return replace(split, images=split.images.to(device), labels=split.labels.to(device))


def from_tensors(
    name: str,
    *,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    classes: tuple[str, ...] | None = None,
    augmentation: Augmentation = CROP_AND_FLIP,
    normalization: Normalization | None = None,
) -> ImageData:
    """Your own arrays as a data set.

    Args:
        name: what a report calls it.
        train, test: ``(images, labels)``: images ``[n, c, h, w]`` uint8, labels ``[n]`` of an integer type.
        classes: the classes' names; "0", "1", ... up to the largest label if left out.
        augmentation: what training does to an image.
        normalization: by the training images' own mean and standard deviation if left out.

    Raises:
        DataError: if a tensor has another type or shape, a split is empty, or a label names no class.
    """
    for place, (images, labels) in (("train", train), ("test", test)):
        _check(images, labels, f"{name}, {place}")
    if train[0].shape[1:] != test[0].shape[1:]:
        raise DataError(
            f"training and test images must have the same shape,"
            f" got {list(train[0].shape[1:])} and {list(test[0].shape[1:])} ({name})"
        )
    if classes is None:
        classes = tuple(str(label) for label in range(int(max(train[1].max(), test[1].max())) + 1))
    for place, (_, labels) in (("train", train), ("test", test)):
        _check_range(labels, len(classes), f"{name}, {place}")
    normalization = normalization or _statistics(train[0])
    channels, height, width = train[0].shape[1:]
    if len(normalization.mean) != channels:
        raise DataError(
            f"normalization needs a mean for each of {channels} channels, got {len(normalization.mean)} ({name})"
        )
    splits = [
        TensorSplit(
            images=images,
            labels=labels.long(),
            num_classes=len(classes),
            normalization=normalization,
            augmentation=augmentation,
        )
        for images, labels in (train, test)
    ]
    return ImageData(
        name=name,
        classes=classes,
        train=splits[0],
        test=splits[1],
        sha256=_digest(splits[1], classes),
        train_sha256=_digest(splits[0], classes),
        image_shape=(channels, height, width),
    )


def _check(images: Tensor, labels: Tensor, place: str) -> None:
    """Refuse what :class:`TensorSplit` could not hold."""
    if images.dtype != torch.uint8 or images.ndim != 4 or 0 in images.shape[1:]:  # noqa: PLR2004
        raise DataError(f"images must be uint8 of shape [n, c, h, w], got {_described(images)} ({place})")
    integral = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if not integral or labels.shape != images.shape[:1]:
        raise DataError(
            f"labels must be integers of shape [{len(images)}], one for each image, got {_described(labels)} ({place})"
        )
    if len(images) == 0:
        raise DataError(f"a split must hold at least one example, got none ({place})")


def _check_range(labels: Tensor, num_classes: int, place: str) -> None:
    """Refuse a label that names no class."""
    if labels.min() < 0 or labels.max() >= num_classes:
        raise DataError(
            f"labels must be in [0, {num_classes}), got {int(labels.min())} to {int(labels.max())} ({place})"
        )


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {list(tensor.shape)}"


def _statistics(images: Tensor) -> Normalization:
    """Mean and standard deviation of every channel, from exact integer sums: the same on every machine."""
    values = torch.arange(256)
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)])
    total, squares = (counts * values).sum(dim=1), (counts * values.square()).sum(dim=1)
    count = images[:, 0].numel()
    mean = total.double() / (255 * count)
    variance = squares.double() / (255 * 255 * count) - mean.square()
    # A constant channel carries nothing to scale.
    std = torch.where(variance > 0, variance, 1.0).sqrt()
    return Normalization(mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def _digest(split: TensorSplit, classes: tuple[str, ...]) -> str:
    """Hex sha256 over shape, pixels, labels and class names."""
    digest = hashlib.sha256(repr((list(split.images.shape), classes)).encode())
    digest.update(split.images.contiguous().numpy().data)
    digest.update(split.labels.contiguous().numpy().astype("<i8").data)
    return digest.hexdigest()
