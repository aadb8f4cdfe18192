"""Examples of the training split for techniques that look at data without training on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from compress.data import AnySplit, LoaderSplit
from compress.data.loaders import drawn


@dataclass(frozen=True, kw_only=True)
class TrainingBatches:
    """Examples of a training split, drawn by ``seed``; the same ones each time they are gone over.

    All batches are of ``batch_size``; there are fewer of them, or only a smaller one, where the split holds no more. Of
    a loader they are of its own size, and hold as many examples together.

    Attributes:
        split: to draw from.
        batches: how many of them.
        batch_size: examples in each.
        seed: of the choice, and of their augmentation.
        augmented: whether they are augmented, as in training.
    """

    split: AnySplit
    batches: int
    batch_size: int
    seed: int
    augmented: bool = False

    def __len__(self) -> int:
        if isinstance(self._drawn, LoaderSplit):
            return self._drawn.num_batches
        return self._most

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self._drawn.batches(self.batch_size, training=self.augmented, seed=self.seed)

    @property
    def _most(self) -> int:
        return max(1, min(self.batches, len(self.split) // self.batch_size))

    @cached_property
    def _drawn(self) -> AnySplit:
        return drawn(self.split, self._most * self.batch_size, self.seed)
