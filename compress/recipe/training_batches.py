"""Images of the training split for techniques that look at data without training on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.data import Split


@dataclass(frozen=True, kw_only=True)
class TrainingBatches:
    """Images of a training split, drawn by ``seed``; the same ones each time they are gone over.

    All batches are of ``batch_size``; there are fewer of them, or only a smaller one, where the split holds no more.

    Attributes:
        split: to draw from.
        batches: how many of them.
        batch_size: images in each.
        seed: of the choice, and of their augmentation.
        augmented: whether they are augmented, as in training.
    """

    split: Split
    batches: int
    batch_size: int
    seed: int
    augmented: bool = False

    def __len__(self) -> int:
        return max(1, min(self.batches, len(self.split) // self.batch_size))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.split), generator=torch.Generator().manual_seed(self.seed))
        chosen = order[: len(self) * self.batch_size]
        return self.split.subset(chosen).batches(self.batch_size, training=self.augmented, seed=self.seed)
