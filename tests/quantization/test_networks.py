"""Random networks, quantized: what the report says must be true of the model that was given."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import nn

from compress.quantization import static
from compress.quantization.report import INT8
from compress.quantization.static import quantize

WIDTH = 8


class Block(nn.Module):
    """``[n, 8, h, w]`` to the same: layers that are read, called or written in some unusual way."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv, self.other = (nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(2))
        self.norm, self.second = nn.BatchNorm2d(WIDTH), nn.BatchNorm2d(WIDTH)
        for norm in (self.norm, self.second):
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                tensor.data.uniform_(0.3, 2.0)
        for name, module in LAYERS.get(kind, dict)().items():
            setattr(self, name, module)
        if kind == "tied":
            self.other.weight = self.conv.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return STEPS[self.kind](self, x)


# What a kind of block has in place of a convolution of width 3 and batch norms, or beside them.
LAYERS: dict[str, Callable[[], dict[str, nn.Module]]] = {
    "weight norm": lambda: {"conv": nn.utils.parametrizations.weight_norm(nn.Conv2d(WIDTH, WIDTH, 3, padding=1))},
    "same": lambda: {"conv": nn.Conv2d(WIDTH, WIDTH, (2, 3), padding="same")},
    "grouped": lambda: {"conv": nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=2)},
    "depthwise": lambda: {"conv": nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)},
    "bare norm": lambda: {"norm": nn.InstanceNorm2d(WIDTH)},
    "over time": lambda: {"conv": nn.Conv1d(WIDTH, WIDTH, 4, padding=2, groups=2)},
    "recurrent": lambda: {"rnn": nn.LSTM(WIDTH, WIDTH // 2, batch_first=True, bidirectional=True)},
    **dict.fromkeys(("attention", "beside attention"), lambda: {"qkv": nn.Linear(WIDTH, 3 * WIDTH)}),
}


def plainly(block: Block, x: torch.Tensor) -> torch.Tensor:
    """As most networks do."""
    return block.norm(block.conv(x)).relu()


def before_the_layer(block: Block, x: torch.Tensor) -> torch.Tensor:
    """A norm that is not all that reads the convolution."""
    y = block.conv(x)
    return y + block.other(block.norm(y).relu())


def along_time(block: Block, x: torch.Tensor) -> torch.Tensor:
    """An even kernel, whose last output is cut off."""
    return x + block.conv(x.flatten(2))[..., :-1].relu().reshape(x.shape)


def recurrently(block: Block, x: torch.Tensor) -> torch.Tensor:
    """Position after position."""
    return x + block.rnn(x.flatten(2).transpose(1, 2))[0].transpose(1, 2).reshape(x.shape)


def attending(block: Block, x: torch.Tensor) -> torch.Tensor:
    """The temperature divides the scores."""
    q, k, v = block.qkv(x.flatten(2).transpose(1, 2)).chunk(3, dim=-1)
    scores = (q @ k.transpose(1, 2) / math.sqrt(WIDTH)).softmax(-1)
    return x + (scores @ v).transpose(1, 2).reshape(x.shape)


def beside_attention(block: Block, x: torch.Tensor) -> torch.Tensor:
    """A convolution of the values is added to what was attended to, as YOLO's encodes positions."""
    q, k, v = block.qkv(x.flatten(2).transpose(1, 2)).transpose(1, 2).chunk(3, dim=1)
    return (v @ (q.transpose(1, 2) @ k).softmax(-1)).view(x.shape) + block.conv(v.reshape(x.shape))


STEPS: dict[str, Callable[[Block, torch.Tensor], torch.Tensor]] = {
    **dict.fromkeys(("plain", "weight norm", "same", "grouped", "depthwise", "bare norm"), plainly),
    "reused": lambda b, x: b.conv(b.norm(b.conv(x)).relu()),
    "tied": lambda b, x: b.second(b.other(b.norm(b.conv(x)).relu())).relu(),
    "preactivation": before_the_layer,
    "own norms": lambda b, x: b.norm(b.conv(x)).relu() + b.second(b.conv(x.flip(3))).relu(),
    "constant": lambda b, x: (b.conv(x) + 1).relu() * 0.5,
    "over time": along_time,
    "recurrent": recurrently,
    "attention": attending,
    "beside attention": beside_attention,
}


class Network(nn.Module):
    """Images or token ids, blocks, and a head on tokens: a transposed view of the features."""

    def __init__(self, kinds: tuple[str, ...], *, ids: bool, nested: bool) -> None:
        super().__init__()
        self.stem = nn.Embedding(16, WIDTH) if ids else nn.Conv2d(3, WIDTH, 3, padding=1)
        self.blocks = nn.Sequential(*map(Block, kinds))
        self.head, self.out = nn.Linear(WIDTH, 12), nn.Linear(12, 5)
        self.ids, self.nested = ids, nested

    def forward(self, x: torch.Tensor) -> Any:
        features = self.stem(x).permute(0, 3, 1, 2) if self.ids else self.stem(x)
        tokens = self.blocks(features).flatten(2).transpose(1, 2)
        logits = self.out(nn.functional.gelu(self.head(tokens)).mean(1))
        return {"logits": logits, "states": [tokens]} if self.nested else logits


@st.composite
def networks(draw: st.DrawFn) -> tuple[Network, torch.Tensor]:
    """A network in eval mode, and what it is calibrated with."""
    kinds = draw(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=3))
    ids, nested = draw(st.booleans()), draw(st.booleans())
    torch.manual_seed(draw(st.integers(0, 2**20)))
    model = Network(tuple(kinds), ids=ids, nested=nested).eval()
    return model, torch.randint(0, 16, (16, 6, 6)) if ids else torch.randn(16, 3, 6, 6)


def true_snr_db(model: nn.Module, quantized: nn.Module, inputs: torch.Tensor) -> float:
    """Of the outputs, each tensor by itself; shares no code with the report."""
    with torch.no_grad():
        exact, noisy = model(inputs), quantized(inputs)
    pairs = [(exact, noisy)]
    if isinstance(exact, dict):
        pairs = [(exact["logits"], noisy["logits"]), (exact["states"][0], noisy["states"][0])]
    ratios = [float((one - other).square().sum() / one.square().sum()) for one, other in pairs]
    return -10 * math.log10(sum(ratios) / len(ratios))


@pytest.fixture(scope="module")
def uncompiled():
    """Int8 models that run their graph as it is: tens of times as fast to make."""
    patch = pytest.MonkeyPatch()
    patch.setattr(static, "count_int8_kernels", lambda *_: 99)
    patch.setattr(static.QuantizedModel, "forward", lambda self, *args: self.graph(*args))
    yield
    patch.undo()


@pytest.mark.usefixtures("uncompiled")
@settings(deadline=None, max_examples=6, suppress_health_check=list(HealthCheck), derandomize=True)
@given(networks())
def test_the_reported_ratio_is_that_to_the_model_that_was_given(case):
    """Within 3 dB, and near enough for the same model."""
    model, inputs = case
    quantized, report = quantize(model, inputs, max_accuracy_drop=1.0)
    assert report.output_snr_db == pytest.approx(true_snr_db(model, quantized, inputs), abs=3)
    assert report.output_snr_db > 15


@pytest.mark.nightly
@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(networks())
def test_compiled_networks_are_what_their_reports_say(case):
    """As many kernels as int8 layers, and the same model at any batch size."""
    model, inputs = case
    quantized, report = quantize(model, inputs, max_accuracy_drop=1.0)
    assert report.int8_kernels == sum(layer.precision == INT8 for layer in report.layers)
    assert report.output_snr_db == pytest.approx(true_snr_db(model, quantized, inputs), abs=3)
    for count in (1, 3, 16):
        assert true_snr_db(model, quantized, inputs[:count]) > 15
