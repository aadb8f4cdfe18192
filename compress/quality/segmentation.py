"""Qualities of segmentation: a class for each pixel."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from compress.quality.classification import counts_of
from compress.quality.quality import Quality
from compress.quality.reductions import dice as dice_of_counts
from compress.quality.reductions import intersection_over_union
from compress.quality.tensors import logits_and_labels


def miou(num_classes: int, *, ignore_index: int | None = None) -> Quality:
    """Mean intersection over union: pixels are counted over all examples, then classes averaged.

    Logits ``[n, num_classes, h, w]``, labels ``[n, h, w]``; pixels labelled ``ignore_index`` do not count.
    """
    return Quality(
        name="miou",
        rows=_counts(num_classes, ignore_index),
        better="higher",
        reduce=intersection_over_union,
        unit="fraction",
        title="mean IoU",
    )


def dice(num_classes: int, *, ignore_index: int | None = None) -> Quality:
    """Dice coefficient, the mean over classes, counted as for :func:`miou`."""
    rows = _counts(num_classes, ignore_index)
    return Quality(name="dice", rows=rows, better="higher", reduce=dice_of_counts, unit="fraction", title="Dice")


def _counts(num_classes: int, ignore_index: int | None) -> Any:
    def rows(outputs: Any, targets: Any) -> Tensor:
        return counts_of(*logits_and_labels(outputs, targets), num_classes, ignore_index)

    return rows
