"""A network of a few hundred weights, images that it can learn, and one thread, so that results repeat to the bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.data import Augmentation, ImageData, from_tensors


@pytest.fixture
def net():
    """Convolution, batch norm, dropout, linear: what training must carry state and randomness for."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(2),
            nn.Dropout2d(0.1),
            nn.Flatten(),
            nn.Linear(24, 3),
        )


@pytest.fixture
def data() -> ImageData:
    """Noise with one channel brighter than the others: which one is the class. ``[3, 8, 8]``, 60 and 30 of them."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(count) % 3
        images = torch.randint(0, 200, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
        images[torch.arange(count), labels] += 25
        return images, labels

    return from_tensors("bright", train=split(60), test=split(30), augmentation=Augmentation(padding=1, flip=True))
