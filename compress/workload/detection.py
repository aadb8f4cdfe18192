"""Detection: handwritten digits scattered over a larger canvas, each to be boxed and named, by a small CenterNet."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F  # noqa: N812

from compress import quality
from compress.train import FitConfig
from compress.workload.scenes import SIDE, scattered
from compress.workload.workload import Workload

NUM_CLASSES = 10
MAX_DETECTIONS = 20
_STRIDE = 4  # pixels of a cell
_CELLS = SIDE // _STRIDE
_TRAIN, _TEST = 1280, 256
_BATCH = 32
_WIDTHS = (16, 32, 64)
_SPREAD = 0.6  # of a digit's heat, in cells
_BOX_WEIGHT = 0.5
# What an untrained network is to expect: a share of cells with a digit's heat, and half a digit's size in cells.
_RARE, _DISTANCE = 0.02, 1.5


class Detector(nn.Module):
    """``[n, 1, 48, 48]`` grey values to ``[n, 14, 12, 12]``: of each cell logits of ten digits, and four distances.

    The distances are those from the cell's centre to the left, top, right and bottom of the box, in cells.

    Source: Zhou, Wang and Krähenbühl, "Objects as Points", 2019; distances as in Tian et al., "FCOS", ICCV 2019.
    """

    def __init__(self) -> None:
        super().__init__()
        first, second, third = _WIDTHS
        self.features = nn.Sequential(
            *_layer(1, first, 1),
            *_layer(first, second, 2),
            *_layer(second, third, 2),
            *_layer(third, third, 1),
            *_layer(third, third, 1),
        )
        self.head = nn.Conv2d(third, NUM_CLASSES + 4, 1)
        expected = torch.full((NUM_CLASSES + 4,), _DISTANCE)
        expected[:NUM_CLASSES] = math.log(_RARE / (1 - _RARE))
        self.head.bias = nn.Parameter(expected)

    def forward(self, scenes: Tensor) -> Tensor:
        cells: Tensor = self.head(self.features(scenes))
        return cells


def detections(cells: Tensor) -> list[dict[str, Tensor]]:
    """What ``[n, 14, 12, 12]`` cells say: of each image the likeliest boxes, a cell and a digit each.

    Of cells side by side only the likeliest counts, so that no digit is found twice.
    """
    scores = cells[:, :NUM_CLASSES].sigmoid()
    peaks = scores * (scores == F.max_pool2d(scores, 3, stride=1, padding=1))
    best, places = peaks.flatten(1).topk(MAX_DETECTIONS)
    labels, cell = places // _CELLS**2, places % _CELLS**2
    distances = cells[:, NUM_CLASSES:].flatten(2).gather(2, cell[:, None].expand(-1, 4, -1)).transpose(1, 2)
    centres = _centres(cells.device).flatten(1).T[cell]
    boxes = _STRIDE * torch.cat([centres - distances[..., :2], centres + distances[..., 2:]], dim=-1)
    return [{"boxes": boxes[image], "labels": labels[image], "scores": best[image]} for image in range(len(cells))]


def detection_loss(outputs: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
    """Focal loss of where digits lie, and the distances' error around their centres."""
    boxes, labels = targets["boxes"] / _STRIDE, targets["labels"]
    centres = _centres(outputs.device)
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    apart = (centres - middle[..., None, None]).square().sum(dim=2)  # [n, objects, 12, 12]
    # The cell next to a digit's middle has a heat of 1.
    heat = torch.exp((apart.amin(dim=(2, 3), keepdim=True) - apart) / (2 * _SPREAD**2))
    wanted = (F.one_hot(labels, NUM_CLASSES)[..., None, None] * heat[:, :, None]).amax(dim=1)
    nearest = apart.argmin(dim=1, keepdim=True)
    corners = boxes[..., None, None].expand(-1, -1, -1, _CELLS, _CELLS)
    own = corners.gather(1, nearest[:, :, None].expand(-1, -1, 4, -1, -1))[:, 0]
    distances = torch.cat([centres - own[:, :2], own[:, 2:] - centres], dim=1)
    misses = F.smooth_l1_loss(outputs[:, NUM_CLASSES:], distances, reduction="none").sum(dim=1)
    objects = labels.numel()
    near = heat.amax(dim=1)
    return _focal(outputs[:, :NUM_CLASSES], wanted) / objects + _BOX_WEIGHT * (misses * near).sum() / objects


def mean_average_precision() -> quality.Quality:
    """Of what the cells say, at an IoU of 0.5."""
    of_boxes = quality.mean_average_precision(NUM_CLASSES, max_detections=MAX_DETECTIONS, detections=detections)

    def rows(outputs: Any, targets: Any) -> Any:
        pairs = zip(targets["boxes"], targets["labels"], strict=True)
        return of_boxes.rows(outputs, [{"boxes": boxes, "labels": labels} for boxes, labels in pairs])

    return dataclasses.replace(of_boxes, rows=rows)


def adam(groups: Sequence[dict[str, Any]]) -> optim.Optimizer:
    """What learns the few cells with a digit among so many without sooner than plain descent does."""
    return optim.AdamW(list(groups), lr=4e-3)


def scenes_detection() -> Workload:
    """Scenes of three of scikit-learn's digits, judged by mAP at an IoU of 0.5 over ten classes."""
    return Workload(
        name="scenes-detection",
        model_factory=Detector,
        data=lambda: (_batches(_TRAIN, test=False), _batches(_TEST, test=True)),
        example_inputs=torch.zeros(1, 1, SIDE, SIDE),
        quality=[mean_average_precision()],
        loss=detection_loss,
        optimizer=adam,
        fit=FitConfig(epochs=30, learning_rate=4e-3, validation_fraction=0.0, autocast="off"),
    )


def _layer(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]


def _focal(logits: Tensor, wanted: Tensor) -> Tensor:
    """Of a heat of 1 and of less; a cell near a digit's middle is blamed the less, the nearer."""
    likely, unlikely = F.logsigmoid(logits), F.logsigmoid(-logits)
    found = unlikely.exp().square() * likely
    false = (1 - wanted) ** 4 * likely.exp().square() * unlikely
    return -torch.where(wanted == 1, found, false).sum()


def _centres(device: torch.device) -> Tensor:
    """``[2, 12, 12]``: x and y of each cell's centre, in cells."""
    along = torch.arange(_CELLS, device=device) + 0.5
    return torch.stack(torch.meshgrid(along, along, indexing="xy"))


def _batches(count: int, *, test: bool) -> list[tuple[Tensor, dict[str, Tensor]]]:
    scenes = scattered(count, test=test)
    parts = zip(*(torch.split(part, _BATCH) for part in (scenes.images, scenes.boxes, scenes.labels)), strict=True)
    return [(images, {"boxes": boxes, "labels": labels}) for images, boxes, labels in parts]
