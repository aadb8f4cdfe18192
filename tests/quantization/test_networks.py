"""Random networks, quantized: what the report says must be true of the model that was given."""

from __future__ import annotations

import math
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
BLOCKS = ("plain", "reused", "tied", "preactivation", "own norms", "constant", "weight norm", "same")


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
        if kind == "tied":
            self.other.weight = self.conv.weight
        if kind == "weight norm":
            nn.utils.parametrizations.weight_norm(self.conv)
        if kind == "same":
            self.conv = nn.Conv2d(WIDTH, WIDTH, (2, 3), padding="same")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "reused":
            return self.conv(self.norm(self.conv(x)).relu())
        if self.kind == "tied":
            return self.second(self.other(self.norm(self.conv(x)).relu())).relu()
        if self.kind == "preactivation":
            y = self.conv(x)
            return y + self.other(self.norm(y).relu())
        if self.kind == "own norms":
            return self.norm(self.conv(x)).relu() + self.second(self.conv(x.flip(3))).relu()
        if self.kind == "constant":
            return (self.conv(x) + 1).relu() * 0.5
        return self.norm(self.conv(x)).relu()


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
    kinds = draw(st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=3))
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
