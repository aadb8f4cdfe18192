"""A user's segmentation workload: bright and dark squares on noise, a small network, mean IoU of his own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import compress
from compress.quality.reductions import intersection_over_union

CLASSES = 3


class Net(nn.Module):
    """``[n, 1, 16, 16] -> [n, 3, 16, 16]``."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1)
        )
        self.up = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(16, 8, 2, stride=2), nn.ReLU())
        self.head = nn.Conv2d(8, CLASSES, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.up(self.down(images)))


def scenes(count: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Batches of 16 images ``[16, 1, 16, 16]`` and the class of each pixel ``[16, 16, 16]``."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(count, 1, 16, 16, generator=generator)
    labels = torch.zeros(count, 16, 16, dtype=torch.int64)
    for number in range(count):
        kind = number % 2 + 1
        top, left = torch.randint(0, 10, (2,), generator=generator).tolist()
        images[number, 0, top : top + 6, left : left + 6] += 3 - 2 * kind if kind == 1 else -1
        labels[number, top : top + 6, left : left + 6] = kind
    return list(zip(images.split(16), labels.split(16), strict=True))


def counts(outputs: Tensor, targets: Tensor) -> Tensor:
    """True positives, false positives and false negatives of each class, image by image."""
    found = outputs.argmax(dim=1)
    each = []
    for label in range(CLASSES):
        here, there = found == label, targets == label
        each += [(here & there), (here & ~there), (~here & there)]
    return torch.stack([one.flatten(1).sum(1) for one in each], dim=1)


def bias_bytes(model: nn.Module) -> int:
    """What biases take: a metric that nobody else has."""
    return sum(4 * tensor.numel() for name, tensor in model.named_parameters() if name.endswith("bias"))


def workload() -> compress.Workload:
    """What ``--compress-workload=scenes:workload`` names."""
    return compress.Workload(
        name="scenes",
        model_factory=Net,
        data=lambda: (scenes(96, seed=1), scenes(64, seed=2)),
        example_inputs=torch.zeros(1, 1, 16, 16),
        quality=[
            compress.quality.Quality(
                name="miou", rows=counts, better="higher", reduce=intersection_over_union, unit="fraction"
            )
        ],
        metrics=[compress.quality.OwnMetric(name="bias_bytes", measure=bias_bytes, unit="bytes")],
        fit=compress.FitConfig(
            epochs=25, learning_rate=0.1, label_smoothing=0.0, validation_fraction=0.0, autocast="off"
        ),
    )
