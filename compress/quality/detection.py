"""Quality of object detectors: mean average precision.

A row holds an image's detections, the likeliest first: class, score and whether it matches an object that no likelier
one has taken, padded; and then how many objects of each class there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.errors import ConfigError
from compress.quality.quality import Quality
from compress.results import Reduction

Rows = NDArray[np.float64]

_NUMBERS = 3
_NONE = -1.0


def mean_average_precision(
    num_classes: int,
    *,
    iou: float = 0.5,
    max_detections: int = 100,
    detections: Callable[[Any], Sequence[Mapping[str, Tensor]]] | None = None,
) -> Quality:
    """Mean over classes of the area under the interpolated curve of precision over recall.

    Args:
        num_classes: labels are in ``[0, num_classes)``.
        iou: least intersection over union of a detection with the object that it finds.
        max_detections: of an image, the likeliest.
        detections: what a model's outputs say, decoded and rid of duplicates; the outputs themselves if left out.

    Detections and targets are a list of an image each: ``{"boxes": [k, 4] (x1, y1, x2, y2), "labels": [k]}``, of
    detections with ``"scores": [k]``.

    Source: Everingham et al., "The Pascal Visual Object Classes Challenge: A Retrospective", IJCV 2015, section 4.2.
    """

    def rows(outputs: Any, targets: Any) -> Tensor:
        pairs = zip(outputs if detections is None else detections(outputs), targets, strict=True)
        return torch.stack([_row(found, objects, num_classes, iou, max_detections) for found, objects in pairs])

    name = f"map{round(100 * iou)}"
    return Quality(
        name=name,
        rows=rows,
        better="higher",
        reduce=_mean_precision(num_classes, max_detections),
        unit="fraction",
        title=f"mAP at {iou:g} IoU",
    )


def _row(found: Mapping[str, Tensor], objects: Mapping[str, Tensor], num_classes: int, iou: float, most: int) -> Tensor:
    for value, keys in ((found, ("boxes", "labels", "scores")), (objects, ("boxes", "labels"))):
        if not isinstance(value, Mapping) or any(key not in value for key in keys):
            raise ConfigError(f"a detection must hold {', '.join(keys)}, got {type(value).__name__}")
    from torchvision.ops import box_iou  # noqa: PLC0415 - takes longer to import than the rest of the package

    order = found["scores"].argsort(descending=True, stable=True)[:most]
    boxes, labels, scores = (found[key][order].cpu() for key in ("boxes", "labels", "scores"))
    there, classes = objects["boxes"].cpu(), objects["labels"].cpu()
    overlap = box_iou(boxes.float(), there.float()) * (labels[:, None] == classes[None, :])
    taken = torch.zeros(len(there), dtype=torch.bool)
    row = torch.full((most, _NUMBERS), _NONE, dtype=torch.float64)
    for place in range(len(boxes)):
        free = overlap[place].masked_fill(taken, 0.0)
        best = int(free.argmax()) if len(there) else -1
        matched = best >= 0 and float(free[best]) >= iou
        if matched:
            taken[best] = True
        row[place] = torch.tensor([float(labels[place]), float(scores[place]), float(matched)])
    return torch.cat([row.flatten(), torch.bincount(classes.long(), minlength=num_classes)[:num_classes].double()])


def _mean_precision(num_classes: int, most: int) -> Reduction:
    def reduce(rows: Rows, weights: Rows) -> Rows:
        detections, objects = rows[:, : most * _NUMBERS].reshape(len(rows), most, _NUMBERS), rows[:, most * _NUMBERS :]
        images = np.repeat(np.arange(len(rows)), most)
        label, score, matched = detections.reshape(-1, _NUMBERS).T
        precisions = []
        for number in range(num_classes):
            # Of equal scores those of earlier images come first.
            own = np.flatnonzero(label == number)
            own = own[np.argsort(-score[own], kind="stable")]
            precisions.append(_average_precision(weights[:, images[own]], matched[own], weights @ objects[:, number]))
        each = np.stack(precisions, axis=1)
        counted = np.isfinite(each)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean: Rows = np.where(counted, each, 0).sum(axis=1) / counted.sum(axis=1)
        return mean

    return reduce


def _average_precision(weights: Rows, matched: Rows, objects: Rows) -> Rows:
    """``[draws]``: area under the curve of detections in order, weights ``[draws, n]``; NaN without objects."""
    right = np.cumsum(weights * matched, axis=1)
    all_of_them = np.cumsum(weights, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(all_of_them > 0, right / all_of_them, 0.0)
        # The best precision at this recall or a higher one.
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        area: Rows = (weights * matched * envelope).sum(axis=1) / objects
    return np.where(objects > 0, area, np.nan)
