"""GoogLeNet for small images: the network of the reference experiment.

Source: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, with the two changes usual on CIFAR:
batch normalization after every convolution (Ioffe and Szegedy, ICML 2015) and two stacked 3x3 convolutions in
place of the 5x5 one (Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load
from torch import Tensor, nn

from compress.errors import ArtifactError, ConfigError


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


class _Weights(NamedTuple):
    """Trained weights in this folder, in half precision; how they came about stands in the file's model card."""

    file: str
    sha256: str
    num_classes: int


WEIGHTS: Mapping[str, _Weights] = {
    "digits": _Weights(
        file="googlenet-digits.safetensors",
        sha256="378bfec6c2ba7a60045eb0964a3962ead6a6cd7066e5c82d47e61009b2976703",
        num_classes=10,
    ),
    "cifar100": _Weights(
        file="googlenet-cifar100.safetensors",
        sha256="344d74886ee3985946c56decbdb20de72b8a211f38984690e2a15e9566f40a02",
        num_classes=100,
    ),
}


def googlenet(num_classes: int = 100, width: float = 1.0, weights: str | None = None) -> GoogLeNet:
    """The CIFAR GoogLeNet: 6,402,564 parameters for 100 classes.

    Args:
        num_classes: how many logits it puts out.
        width: what every number of channels is multiplied by; 0.5 makes a student with a quarter of the weights.
        weights: ``"digits"`` or ``"cifar100"`` for those that come with this package, see ``googlenet-digits.md`` and
            ``googlenet-cifar100.md`` beside this file; freshly initialized if left out.

    Raises:
        ConfigError: if ``num_classes`` is below 1, ``width`` is not a positive number, or there are no such weights.
        ArtifactError: if the file of the weights is missing or damaged.
    """
    if num_classes < 1:
        raise ConfigError(f"num_classes must be at least 1, got {num_classes}")
    if not (width > 0 and math.isfinite(width)):
        raise ConfigError(f"width must be a positive number, got {width!r}")
    if weights is not None and weights not in WEIGHTS:
        raise ConfigError(f"weights must be one of {', '.join(WEIGHTS)}, got {weights!r}")
    trained = None if weights is None else WEIGHTS[weights]
    if trained is not None and (num_classes, width) != (trained.num_classes, 1.0):
        raise ConfigError(
            f"weights {weights!r} are for num_classes = {trained.num_classes} and width = 1.0,"
            f" got {num_classes} and {width}"
        )
    model = GoogLeNet(num_classes, width)
    if trained is not None:
        model.load_state_dict(_read(trained))
    return model


def _read(weights: _Weights) -> dict[str, Tensor]:
    path = Path(__file__).with_name(weights.file)
    try:
        content = path.read_bytes()
    except OSError as cause:
        raise ArtifactError(f"cannot read {path}: {cause.strerror or cause}") from cause
    found = hashlib.sha256(content).hexdigest()
    if found != weights.sha256:
        raise ArtifactError(f"the weights must have the SHA-256 {weights.sha256}, got {found}: install anew ({path})")
    return load(content)


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
