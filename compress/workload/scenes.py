"""Segmentation: handwritten digits scattered over a larger canvas, each pixel to be named, by a small U-Net."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F  # noqa: N812

from compress import quality
from compress.train import FitConfig
from compress.workload.workload import Workload

NUM_CLASSES = 11  # ten digits and the ground
SIDE = 48
_DIGIT = 16
_DIGITS_PER_SCENE = 3
_TRAIN, _TEST = 640, 256
_BATCH = 32
_INK = 0.3  # of the darkest: what is darker belongs to the digit
_WIDTHS = (12, 24, 48)


class UNet(nn.Module):
    """``[n, 1, 48, 48]`` grey values to ``[n, 11, 48, 48]`` logits: down twice and up twice, with skips.

    Source: Ronneberger, Fischer and Brox, "U-Net", MICCAI 2015.
    """

    def __init__(self) -> None:
        super().__init__()
        first, second, third = _WIDTHS
        self.fine, self.middle, self.coarse = _block(1, first), _block(first, second), _block(second, third)
        self.pool = nn.MaxPool2d(2)
        self.up_to_middle = nn.ConvTranspose2d(third, second, 2, stride=2)
        self.middle_again = _block(2 * second, second)
        self.up_to_fine = nn.ConvTranspose2d(second, first, 2, stride=2)
        self.fine_again = _block(2 * first, first)
        self.head = nn.Conv2d(first, NUM_CLASSES, 1)

    def forward(self, scenes: Tensor) -> Tensor:
        fine = self.fine(scenes)
        middle = self.middle(self.pool(fine))
        coarse = self.coarse(self.pool(middle))
        middle = self.middle_again(torch.cat([middle, self.up_to_middle(coarse)], dim=1))
        fine = self.fine_again(torch.cat([fine, self.up_to_fine(middle)], dim=1))
        logits: Tensor = self.head(fine)
        return logits


def adam(groups: Sequence[dict[str, Any]]) -> optim.Optimizer:
    """What learns the few pixels of ink among so many of ground sooner than plain descent does."""
    return optim.AdamW(list(groups), lr=5e-3)


def scenes_segmentation() -> Workload:
    """Scenes of three of scikit-learn's digits, judged by mean IoU over eleven classes."""
    return Workload(
        name="scenes-segmentation",
        model_factory=UNet,
        data=lambda: (_batches(_TRAIN, test=False), _batches(_TEST, test=True)),
        example_inputs=torch.zeros(1, 1, SIDE, SIDE),
        quality=[quality.miou(NUM_CLASSES)],
        optimizer=adam,
        fit=FitConfig(epochs=60, learning_rate=5e-3, label_smoothing=0.0, validation_fraction=0.0, autocast="off"),
    )


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """What is seen, and what there is to find.

    Attributes:
        images: ``[n, 1, 48, 48]`` grey values of 0 to 1.
        classes: ``[n, 48, 48]`` the digit of each pixel, or the ground.
        boxes: ``[n, 3, 4]`` around the ink of each digit, hidden by later ones or not: x1, y1, x2, y2 in pixels.
        labels: ``[n, 3]`` which digits those are.
    """

    images: Tensor
    classes: Tensor
    boxes: Tensor
    labels: Tensor


def scattered(count: int, *, test: bool) -> Scenes:
    """Three digits each, drawn at random; those to train on are of other digits than those to test on."""
    digits, names = _digits()
    own = torch.arange(len(names)) % 4 == 0 if test else torch.arange(len(names)) % 4 != 0
    digits, names = digits[own], names[own]
    generator = torch.Generator().manual_seed(int(test))
    images = 0.1 * torch.rand(count, 1, SIDE, SIDE, generator=generator)
    classes = torch.full((count, SIDE, SIDE), NUM_CLASSES - 1)
    boxes, labels = torch.zeros(count, _DIGITS_PER_SCENE, 4), torch.zeros(count, _DIGITS_PER_SCENE, dtype=torch.int64)
    for scene in range(count):
        for number in range(_DIGITS_PER_SCENE):
            which = int(torch.randint(len(names), (), generator=generator))
            top, left = torch.randint(0, SIDE - _DIGIT + 1, (2,), generator=generator).tolist()
            place = (slice(top, top + _DIGIT), slice(left, left + _DIGIT))
            # A later digit lies on top.
            inked = digits[which] > _INK
            images[scene, 0][place] = torch.where(inked, digits[which], images[scene, 0][place])
            classes[scene][place] = torch.where(inked, names[which], classes[scene][place])
            boxes[scene, number] = _around(inked, top, left)
            labels[scene, number] = names[which]
    return Scenes(images=images, classes=classes, boxes=boxes, labels=labels)


def _around(inked: Tensor, top: int, left: int) -> Tensor:
    """``[4]``: the box of what is set in ``[16, 16]``, whose corner lies at ``top`` and ``left``."""
    rows, columns = inked.any(dim=1).nonzero(), inked.any(dim=0).nonzero()
    first, last = torch.cat([columns[0], rows[0]]), torch.cat([columns[-1], rows[-1]]) + 1
    return torch.cat([first, last]) + torch.tensor([left, top, left, top])


def _batches(count: int, *, test: bool) -> list[tuple[Tensor, Tensor]]:
    """Scenes and the class of each pixel."""
    scenes = scattered(count, test=test)
    return list(zip(torch.split(scenes.images, _BATCH), torch.split(scenes.classes, _BATCH), strict=True))


def _digits() -> tuple[Tensor, Tensor]:
    """``[n, 16, 16]`` of 0 to 1, and ``[n]`` classes."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - takes a second that other workloads need not pay

    bunch = load_digits()
    small = torch.from_numpy(bunch.images).float()[:, None] / 16
    large = F.interpolate(small, size=(_DIGIT, _DIGIT), mode="bilinear", align_corners=False)
    return large[:, 0], torch.from_numpy(bunch.target).long()
