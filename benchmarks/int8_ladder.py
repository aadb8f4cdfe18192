"""What each rung of the int8 ladder brings on small mobile networks, trained here on the digits.

Run ``python benchmarks/int8_ladder.py``. Two networks of depthwise convolutions are trained by one recipe: one in the
manner of MobileNet with ReLU, one in that of MobileNetV2 with inverted residuals and ReLU6. Each is calibrated on
training images, all layers int8, and every rung is taken, whether a contract would ask for it or not. The table gives
the top-1 error on the test images, the signal-to-noise ratio of the logits there, and what the float model has.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

from compress import evaluate, fit
from compress.calling.fidelity import snr_db
from compress.calling.inputs import Inputs
from compress.data import ImageData, load_data
from compress.quantization import ladder, search
from compress.quantization.checks import calibration_batches
from compress.train import FitConfig

_CALIBRATION_IMAGES = 256


def training(epochs: int) -> FitConfig:
    """The recipe of both."""
    return FitConfig(epochs=epochs, batch_size=32, learning_rate=0.05, weight_decay=1e-4, validation_fraction=0.0)


class InvertedResidual(nn.Module):
    """Wider by a 1x1 convolution, depthwise 3x3, narrow again, and added to its input.

    Source: Sandler et al., "MobileNetV2", CVPR 2018, section 3.
    """

    def __init__(self, channels: int, expansion: int = 4) -> None:
        super().__init__()
        wide = channels * expansion
        self.body = nn.Sequential(
            *_layer(channels, wide, 1, nn.ReLU6()), *_layer(wide, wide, 3, nn.ReLU6(), groups=wide),
            nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, channels, h, w]`` to the same."""
        added: torch.Tensor = x + self.body(x)
        return added


def _layer(
    ins: int, outs: int, kernel: int, activation: nn.Module, stride: int = 1, *, groups: int = 1
) -> nn.Sequential:
    layer = nn.Conv2d(ins, outs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outs), activation)


def _separable(ins: int, outs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(_layer(ins, ins, 3, nn.ReLU(), stride, groups=ins), _layer(ins, outs, 1, nn.ReLU()))


def mobile() -> nn.Sequential:
    """Depthwise separable convolutions with ReLU."""
    return nn.Sequential(
        _layer(3, 16, 3, nn.ReLU()), _separable(16, 32), _separable(32, 48, 2), _separable(48, 64),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def mobile_v2() -> nn.Sequential:
    """Inverted residuals with ReLU6."""
    return nn.Sequential(
        _layer(3, 16, 3, nn.ReLU6()), InvertedResidual(16), _layer(16, 24, 3, nn.ReLU6(), 2), InvertedResidual(24),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10),
    )  # fmt: skip


NETWORKS = {"MobileNet-like, ReLU": mobile, "MobileNetV2-like, ReLU6": mobile_v2}


def main() -> None:
    """Train, climb, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=15)
    given = parser.parse_args()
    data = load_data("digits")
    print("| network | rung | top-1 error | logits, dB |\n| --- | --- | ---: | ---: |")
    for name, build in NETWORKS.items():
        torch.manual_seed(0)
        model = fit(build(), data, training(given.epochs), progress=False).model.eval()
        for line in rows(name, model, data):
            print(line, flush=True)


def rows(name: str, model: nn.Module, data: ImageData) -> list[str]:
    """The table's lines for one network."""
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))
    batches = calibration_batches(data.train.subset(order[:_CALIBRATION_IMAGES]).batches(64))
    images = torch.cat([images for images, _ in data.test.batches(250)])
    with torch.no_grad():
        exact = model(images)

    def row(rung: str, candidate: nn.Module) -> str:
        with torch.no_grad():
            noise = "" if candidate is model else f"{snr_db(exact, Inputs(args=(images,)).call(candidate)):.1f}"
        return f"| {name} | {rung} | {evaluate(candidate, data.test).top1_error:.2%} | {noise} |"

    found = search.prepare(model, model, batches, "histogram", progress=False)
    lines = [row("float", model), row("int8, plain", found.simulation)]
    for rung, steps in ladder.RUNGS:
        for step in steps:
            found = search.retuned(found, step(found))
        lines.append(row(f"+ {rung}", found.simulation))
    return lines


if __name__ == "__main__":
    main()
