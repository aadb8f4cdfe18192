"""What a set of labelled images is: its splits, the batches they give, and the hash accuracy is recorded under."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from compress.errors import ConfigError, DataError


class Split(Protocol):
    """Labelled images that come in batches; any object of this shape will do."""

    @property
    def labels(self) -> Tensor:
        """``[n]`` int64, in the split's order."""

    @property
    def num_classes(self) -> int:
        """How many classes a label may name."""

    def __len__(self) -> int: ...

    def batches(
        self, batch_size: int, *, training: bool = False, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalized float32 images ``[b, c, h, w]`` with their labels ``[b]``, on one device.

        Training shuffles and augments by ``seed`` alone, so a caller passes another one each epoch; every rank
        gets an equal part, in exactly ``ceil((n // world_size) / batch_size)`` batches. Otherwise every example
        comes once and as it is: with one process in the split's order, with more each rank takes every
        ``world_size``-th.
        """

    def subset(self, indices: Tensor) -> Split:
        """The examples at ``indices`` (``[k]`` int64), in that order."""


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """A training split, a test split, and what identifies them.

    Attributes:
        name: what a report calls it.
        classes: the classes' names; a label is an index into them.
        train: what a model may learn from.
        test: what its accuracy is measured on, and nothing is ever chosen by.
        sha256: hex digest of the test split: two error rates compare only under the same one.
        train_sha256: hex digest of the training split: what was trained on another one is another model.
        image_shape: ``(c, h, w)`` of every image in a batch.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    sha256: str
    train_sha256: str
    image_shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):  # noqa: PLR2004
            raise DataError(f"a data set must have at least two distinct classes, got {self.classes} ({self.name})")
        for place, split in (("train", self.train), ("test", self.test)):
            if len(split) == 0:
                raise DataError(f"a split must hold at least one example, got none ({self.name}, {place})")

    def holdout(self, fraction: float, seed: int = 0) -> tuple[Split, Split]:
        """The training split in two: (what is left to train on, validation examples).

        Every class gives its share, to within one example; the test split is not touched.

        Raises:
            ConfigError: if ``fraction`` is not in (0, 1), or leaves one of the two parts empty.
        """
        if not 0 < fraction < 1:
            raise ConfigError(f"the fraction held out must be in (0, 1), got {fraction} ({self.name})")
        count = round(fraction * len(self.train))
        if not 0 < count < len(self.train):
            raise ConfigError(
                f"the fraction held out must leave examples on both sides,"
                f" got {fraction} of {len(self.train)} ({self.name})"
            )
        rest, chosen = stratified(self.train.labels, count, seed)
        return self.train.subset(rest), self.train.subset(chosen)


def stratified(labels: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of all but ``count`` examples, and of those ``count``, both ascending.

    The ``count`` are drawn at random, in proportion to the classes: each gives its share to within one example.
    """
    total = len(labels)
    order = torch.randperm(total, generator=generator(seed))
    # Shuffled within each class, classes one after the other: evenly spaced picks are proportional.
    order = order[labels[order].argsort(stable=True)]
    picks = (2 * torch.arange(count) + 1) * total // (2 * count)
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[order[picks]] = True
    return (~chosen).nonzero().flatten(), chosen.nonzero().flatten()


def index_batches(
    num_examples: int, batch_size: int, *, training: bool, seed: int, rank: int, world_size: int
) -> list[Tensor]:
    """Which examples go into which batch, as :meth:`Split.batches` promises.

    Training batches differ in size by one at most: nothing is left out but the remainder of ``world_size``, and
    no epoch ends on a batch too small for batch norm.

    Raises:
        ConfigError: if ``batch_size`` is below 1, ``rank`` is not in [0, ``world_size``), or training would leave
            a rank without examples.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank must be in [0, {world_size}), got {rank}")
    if not training:
        part = torch.arange(num_examples)[rank::world_size]
        return list(torch.split(part, batch_size)) if len(part) else []
    if num_examples < world_size:
        raise ConfigError(f"training needs an example for each of {world_size} processes, got {num_examples}")
    order = torch.randperm(num_examples, generator=generator(seed))
    part = order[: num_examples - num_examples % world_size][rank::world_size]
    return list(part.tensor_split(math.ceil(len(part) / batch_size)))


def generator(seed: int) -> torch.Generator:
    """A CPU generator of its own, so that the caller's random state stays as it is."""
    return torch.Generator().manual_seed(seed)
