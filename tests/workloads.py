"""Tiny workloads, importable by name in any process."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from compress.data import Augmentation, ImageData, from_tensors
from compress.train import FitConfig
from compress.workload.workload import Workload

QUICK = FitConfig(epochs=1, batch_size=16, learning_rate=0.05, validation_fraction=0.0, autocast="off")


class TinyNet(nn.Module):
    """``[n, 3, 8, 8] -> [n, num_classes]``: two convolutions with batch norm, dropout and a classifier."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(inplace=True),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Linear(2 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.features(x)).flatten(1)
        logits: Tensor = self.classifier(self.dropout(x))
        return logits


def tiny_net(num_classes: int = 3, width: int = 5) -> TinyNet:
    """The network of :func:`tiny_workload`, freshly initialized."""
    return TinyNet(num_classes, width)


class Featured(TinyNet):
    """The same, which puts out its features beside the logits, by name."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        features = self.features(x)
        return {"logits": self.classifier(self.dropout(self.pool(features).flatten(1))), "features": features}


def featured_net(num_classes: int = 3, width: int = 16) -> Featured:
    """The network of :func:`featured_workload`, freshly initialized."""
    return Featured(num_classes, width)


def logits_of(output: dict[str, Tensor]) -> Tensor:
    """What counts of it."""
    return output["logits"]


def tiny_data() -> ImageData:
    """Noise with one channel brighter than the others: which one is the class."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(count) % 3
        images = torch.randint(0, 200, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
        images[torch.arange(count), labels] += 25
        return images, labels

    return from_tensors("bright", train=split(48), test=split(24), augmentation=Augmentation(padding=1, flip=True))


def tiny_workload() -> Workload:
    """A network, data and a training run that take a fraction of a second."""
    return Workload(
        name="tiny",
        model_factory=tiny_net,
        model_args={"width": 4},
        data=tiny_data,
        example_input=torch.zeros(1, 3, 8, 8),
        fit=QUICK,
    )


def a_failure() -> None:
    """A workload's function that fails on its way."""
    raise ImportError("no module named what it needs")


def a_number() -> int:
    """No workload."""
    return 3


NO_FUNCTION = tiny_workload()


def featured_workload() -> Workload:
    """The same with a network of two outputs, of which one counts."""
    return replace(tiny_workload(), name="featured", model_factory=featured_net, outputs=logits_of)
