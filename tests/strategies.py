"""Hypothesis strategies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import hypothesis.strategies as st
import torch
from torch import Tensor, nn

from tests.nets import conv, conv_bn, lively


@dataclass(frozen=True, kw_only=True)
class Block:
    """One step of a random network: its kind, its width in fours of channels, and which activation it uses."""

    kind: str
    width: int
    act: str


ACTS = {"relu": nn.ReLU, "silu": nn.SiLU, "sigmoid": nn.Sigmoid, "hardswish": nn.Hardswish, "tanh": nn.Tanh}


class RandomNet(nn.Module):
    """``[n, 3, 8, 8] -> [n, 5]`` through ``blocks``, all of them coupled in the ways that networks couple channels."""

    def __init__(self, blocks: list[Block], *, flatten: bool) -> None:
        super().__init__()
        self.kinds = [block.kind for block in blocks]
        self.flatten = flatten
        self.stem = conv_bn(3, 8)
        self.blocks = nn.ModuleList()
        channels = 8
        for block in blocks:
            modules, channels = _modules(block, channels)
            self.blocks.append(modules)
        self.head = nn.Linear(channels * 16 if flatten else channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for kind, block in zip(self.kinds, self.blocks, strict=True):
            x = _STEPS[kind](block, x)
        x = nn.functional.adaptive_avg_pool2d(x, 4 if self.flatten else 1)
        logits: Tensor = self.head(x.flatten(1))
        return logits


def _modules(block: Block, channels: int) -> tuple[nn.ModuleList, int]:
    """The block's modules, and the channels that it puts out."""
    width = 4 * block.width
    modules, outs = _MODULES[block.kind](channels, width, ACTS[block.act]())
    return nn.ModuleList(modules), outs


_Modules = tuple[list[nn.Module], int]

_MODULES: dict[str, Callable[[int, int, nn.Module], _Modules]] = {
    "conv": lambda c, w, act: ([conv(c, w, 3), nn.BatchNorm2d(w), act], w),
    "residual": lambda c, w, act: ([conv_bn(c, w), act, conv(w, c, 3), nn.BatchNorm2d(c)], c),
    "concat": lambda c, w, act: ([conv_bn(c, w), conv_bn(c, 8, 1), act], c + w + 8),
    "chunk": lambda c, w, act: ([conv(c, 2 * w), conv_bn(w, w), act], 2 * w),
    "depthwise": lambda c, w, act: (
        [nn.Conv2d(c, 2 * c, 3, padding=1, groups=c), nn.BatchNorm2d(2 * c), conv(2 * c, w), act],
        w,
    ),
    "grouped": lambda c, w, act: ([conv_bn(c, 16, 1), act, conv(16, w, 3, groups=4), nn.BatchNorm2d(w)], w),
    "squeeze": lambda c, _, act: ([conv(c, 4), act, conv(4, c), nn.Sigmoid()], c),
    "shuffle": lambda c, w, act: ([conv_bn(c, 16, 1), conv(16, w, 3, groups=2), act], w),
    "pool": lambda c, _, __: ([nn.MaxPool2d(3, stride=1, padding=1), nn.AvgPool2d(3, stride=1, padding=1)], c),
    "reuse": lambda c, _, act: ([conv(c, c), act], c),
}
KINDS = tuple(_MODULES)


def _run(modules: list[nn.Module], x: Tensor) -> Tensor:
    for module in modules:
        x = module(x)
    return x


def _chunk(block: nn.ModuleList, x: Tensor) -> Tensor:
    first, second = block[0](x).chunk(2, dim=1)
    return block[2](torch.cat([first, block[1](second)], dim=1))


def _shuffle(block: nn.ModuleList, x: Tensor) -> Tensor:
    x = block[0](x)
    n, c, h, w = x.shape
    x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
    return block[2](block[1](x))


_STEPS = {
    "conv": _run,
    "residual": lambda block, x: (x + _run(block, x)).relu_(),
    "concat": lambda block, x: block[2](torch.cat([block[0](x), x, block[1](x)], dim=1)),
    "chunk": _chunk,
    "depthwise": _run,
    "grouped": _run,
    "squeeze": lambda block, x: x * _run(block, x.mean((2, 3), keepdim=True)),
    "shuffle": _shuffle,
    "pool": _run,
    "reuse": lambda block, x: block[1](block[0](x) + block[0](block[0](x))),
}


@st.composite
def networks(draw: st.DrawFn) -> nn.Module:
    """A random network of up to five blocks, lively and in float64."""
    blocks = draw(
        st.lists(
            st.builds(Block, kind=st.sampled_from(KINDS), width=st.integers(1, 4), act=st.sampled_from(sorted(ACTS))),
            min_size=1,
            max_size=5,
        )
    )
    seed = draw(st.integers(0, 2**16))
    torch.manual_seed(seed)
    return lively(RandomNet(blocks, flatten=draw(st.booleans())), seed)


def ratios() -> st.SearchStrategy[float]:
    """Pruning ratios from nothing to nearly everything."""
    return st.one_of(st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.5, 0.75, 0.9]), st.floats(0.0, 0.99))
