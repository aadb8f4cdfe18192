"""GoogLeNet for small images: the network of the reference experiment.

Source: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, with the two changes usual on CIFAR:
batch normalization after every convolution (Ioffe and Szegedy, ICML 2015) and two stacked 3x3 convolutions in
place of the 5x5 one (Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from compress.errors import ConfigError


class Widths(NamedTuple):
    """Channels of one inception block, branch by branch; the block puts out ``b1 + b3 + b5 + pool`` of them."""

    b1: int
    b3_reduce: int
    b3: int
    b5_reduce: int
    b5: int
    pool: int

    def scaled(self, width: float) -> Widths:
        """Every branch ``width`` times as wide."""
        return Widths(*(_scaled(channels, width) for channels in self))


# Table 1 of the paper, top to bottom; None is a stride-2 max-pool between two stages.
_BLOCKS: tuple[tuple[str, Widths] | None, ...] = (
    ("a3", Widths(64, 96, 128, 16, 32, 32)),
    ("b3", Widths(128, 128, 192, 32, 96, 64)),
    None,
    ("a4", Widths(192, 96, 208, 16, 48, 64)),
    ("b4", Widths(160, 112, 224, 24, 64, 64)),
    ("c4", Widths(128, 128, 256, 24, 64, 64)),
    ("d4", Widths(112, 144, 288, 32, 64, 64)),
    ("e4", Widths(256, 160, 320, 32, 128, 128)),
    None,
    ("a5", Widths(256, 160, 320, 32, 128, 128)),
    ("b5", Widths(384, 192, 384, 48, 128, 128)),
)


class Inception(nn.Module):
    """Four parallel branches whose outputs are concatenated: ``[n, c, h, w] -> [n, sum of widths, h, w]``."""

    def __init__(self, in_channels: int, widths: Widths) -> None:
        super().__init__()
        self.b1 = nn.Sequential(*_conv(in_channels, widths.b1, 1))
        self.b2 = nn.Sequential(*_conv(in_channels, widths.b3_reduce, 1), *_conv(widths.b3_reduce, widths.b3, 3))
        self.b3 = nn.Sequential(
            *_conv(in_channels, widths.b5_reduce, 1),
            *_conv(widths.b5_reduce, widths.b5, 3),
            *_conv(widths.b5, widths.b5, 3),
        )
        self.b4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), *_conv(in_channels, widths.pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.b1(x), self.b2(x), self.b3(x), self.b4(x)], dim=1)


class GoogLeNet(nn.Module):
    """``[n, 3, h, w]`` float images to ``[n, num_classes]`` logits, for ``h`` and ``w`` of 8 or more."""

    def __init__(self, num_classes: int, width: float = 1.0) -> None:
        super().__init__()
        narrow, channels = _scaled(64, width), _scaled(192, width)
        self.stem = nn.Sequential(
            *_conv(3, narrow, 3, bias=False),
            *_conv(narrow, narrow, 3, bias=False),
            *_conv(narrow, channels, 3, bias=False),
            _halve(),
        )
        self.blocks = nn.Sequential()
        pools = 0
        for entry in _BLOCKS:
            if entry is None:
                pools += 1
                self.blocks.add_module(f"pool{pools}", _halve())
                continue
            name, widths = entry[0], entry[1].scaled(width)
            self.blocks.add_module(name, Inception(channels, widths))
            channels = widths.b1 + widths.b3 + widths.b5 + widths.pool
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.4)
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.blocks(self.stem(x))).flatten(1)
        logits: Tensor = self.linear(self.dropout(x))
        return logits


def googlenet(num_classes: int = 100, width: float = 1.0) -> GoogLeNet:
    """The CIFAR GoogLeNet, freshly initialized: 6,402,564 parameters for 100 classes.

    Args:
        num_classes: how many logits it puts out.
        width: what every number of channels is multiplied by; 0.5 makes a student with a quarter of the weights.

    Raises:
        ConfigError: if ``num_classes`` is below 1, or ``width`` is not a positive number.
    """
    if num_classes < 1:
        raise ConfigError(f"num_classes must be at least 1, got {num_classes}")
    if not (width > 0 and math.isfinite(width)):
        raise ConfigError(f"width must be a positive number, got {width!r}")
    return GoogLeNet(num_classes, width)


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _conv(in_channels: int, out_channels: int, kernel_size: int, *, bias: bool = True) -> list[nn.Module]:
    """Convolution at the same resolution, batch norm, ReLU."""
    # Batch norm cancels the bias, but the reference network keeps it inside the blocks and counts it as parameters.
    return [
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]


def _halve() -> nn.Module:
    return nn.MaxPool2d(3, stride=2, padding=1)
