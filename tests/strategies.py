"""Hypothesis strategies."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import hypothesis.strategies as st
import torch
from torch import Tensor, nn

from tests.nets import lively


@dataclass(frozen=True, kw_only=True)
class Block:
    """One step of a random network: its kind, its width in fours of channels, and which activation it uses."""

    kind: str
    width: int
    act: str


ACTS = {"relu": nn.ReLU, "silu": nn.SiLU, "sigmoid": nn.Sigmoid, "hardswish": nn.Hardswish, "tanh": nn.Tanh}

SPACES = {1: (9,), 2: (8, 8), 3: (4, 4, 4)}
_CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_POOLS = {
    1: (nn.MaxPool1d, nn.AvgPool1d),
    2: (nn.MaxPool2d, nn.AvgPool2d),
    3: (nn.MaxPool3d, nn.AvgPool3d),
}
_INSTANCE_NORMS = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
_ADAPTIVE = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}


class RandomNet(nn.Module):
    """``[n, 3, *space] -> [n, 5]`` through ``blocks``, coupled in all the ways in which networks couple channels.

    Where it has features to put out beside the logits, it puts out both, by name.
    """

    def __init__(self, blocks: list[Block], *, space: int, flatten: bool, with_features: bool = False) -> None:
        super().__init__()
        self.with_features = with_features
        self.kinds = [block.kind for block in blocks]
        make = Maker(space)
        self.stem = make.conv_bn(3, 8)
        self.blocks = nn.ModuleList()
        channels = 8
        for block in blocks:
            modules, channels = make.modules(block, channels)
            self.blocks.append(modules)
        self.pool = _ADAPTIVE[space](2 if flatten else 1)
        self.head = nn.Linear(channels * 2**space if flatten else channels, 5)

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        x = self.stem(x)
        for kind, block in zip(self.kinds, self.blocks, strict=True):
            x = STEPS[kind](block, x)
        logits: Tensor = self.head(self.pool(x).flatten(1))
        return {"logits": logits, "features": x} if self.with_features else logits


class Attention(nn.Module):
    """Attention by hand, as most networks write it: widths from the input's shape, heads from an attribute.

    Its temperature scales the queries, or the scores.
    """

    def __init__(self, width: int, heads: int, *, scales_scores: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.scales_scores = scales_scores
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        if self.scales_scores:
            scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        else:
            scores = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)
        y: Tensor = self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, tokens, width))
        return y


class WrittenOutNorm(nn.Module):
    """A norm over the channels of images that is written out: a layer norm, or a global response norm."""

    def __init__(self, width: int, space: int, *, of_responses: bool) -> None:
        super().__init__()
        self.of_responses = of_responses
        self.weight, self.bias = (nn.Parameter(torch.ones(width, *[1] * space)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        if self.of_responses:
            norm = x.flatten(2).norm(dim=2).reshape(*x.shape[:2], *[1] * (x.ndim - 2))
            return x + self.weight * (x * (norm / (norm.mean(1, keepdim=True) + 1e-3))) + self.bias
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).square().mean(1, keepdim=True)
        return (x - mean) * (variance + 1e-3).rsqrt() * self.weight + self.bias


class Maker:
    """Makes the modules of each kind of block, for one, two or three dimensions of space."""

    def __init__(self, space: int) -> None:
        self.space = space
        self.kinds: dict[str, Callable[[int, int, nn.Module], tuple[list[nn.Module], int]]] = {
            "conv": lambda c, w, act: ([self.conv(c, w, 3), self.norm(w), act], w),
            "residual": lambda c, w, act: ([self.conv_bn(c, w), act, self.conv(w, c, 3), self.norm(c)], c),
            "concat": lambda c, w, act: ([self.conv_bn(c, w), self.conv_bn(c, 8, 1), act], c + w + 8),
            "split": lambda c, w, act: ([self.conv(c, w + 8), self.conv_bn(8, w), act], 2 * w),
            "chunk": lambda c, w, act: ([self.conv(c, 2 * w), self.conv_bn(w, w), act], 2 * w),
            "depthwise": lambda c, w, act: (
                [self.conv(c, 2 * c, 3, groups=c), self.norm(2 * c), self.conv(2 * c, w), act],
                w,
            ),
            "grouped": lambda c, w, act: (
                [self.conv_bn(c, 16, 1), act, self.conv(16, w, 3, groups=4), self.norm(w)],
                w,
            ),
            "squeeze": lambda c, _, act: ([self.conv(c, 4), act, self.conv(4, c), nn.Sigmoid()], c),
            "shuffle": lambda c, w, act: ([self.conv_bn(c, 16, 1), self.conv(16, w, 3, groups=2), act], w),
            "pool": lambda c, _, __: ([pool(3, stride=1, padding=1) for pool in _POOLS[self.space]], c),
            "reuse": lambda c, _, act: ([self.conv(c, c), act], c),
            "transposed": lambda c, w, act: ([_TRANSPOSED[self.space](c, w, 3, padding=1), act], w),
            "layer norm": lambda c, w, act: ([self.conv(c, w), nn.LayerNorm(w), act], w),
            "group norm": lambda c, w, act: ([self.conv(c, w), nn.GroupNorm(2, w), act], w),
            "multi-head": lambda c, w, _: ([self.conv(c, w), nn.MultiheadAttention(w, 2, batch_first=True)], w),
            "attention": lambda c, w, _: ([self.conv(c, w), Attention(w, 2)], w),
            "scaled scores": lambda c, w, _: ([self.conv(c, w), Attention(w, 2, scales_scores=True)], w),
            "norms of their own": lambda c, _, act: ([self.conv(c, c, 3), self.norm(c), self.norm(c), act], c),
            "pre-activation": lambda c, w, act: ([self.conv(c, w), self.norm(w), act, self.conv(w, w, 3)], w),
            "bare instance norm": lambda c, w, act: ([self.conv(c, w, 3), _INSTANCE_NORMS[self.space](w), act], w),
            "bare layer norm": lambda c, w, act: (
                [self.conv(c, w), nn.LayerNorm(w, elementwise_affine=False), act],
                w,
            ),
            "norm by hand": lambda c, w, act: ([self.conv(c, w), self.written_out(w, of_responses=False), act], w),
            "response norm": lambda c, w, act: ([self.conv(c, w), self.written_out(w, of_responses=True), act], w),
            "recurrent": lambda c, w, _: ([self.conv(c, w), nn.GRU(w, w, batch_first=True)], w),
            "two ways": lambda c, w, _: ([self.conv(c, w), nn.LSTM(w, w // 2, 2, bidirectional=True)], w),
            "positions": lambda c, w, act: ([self.conv(c, w), act, self.conv(w, w)], w),
        }

    def modules(self, block: Block, channels: int) -> tuple[nn.ModuleList, int]:
        """The block's modules, and the channels that it puts out."""
        modules, outs = self.kinds[block.kind](channels, 4 * block.width, ACTS[block.act]())
        return nn.ModuleList(modules), outs

    def conv(self, ins: int, outs: int, kernel: int = 1, groups: int = 1) -> nn.Module:
        """A convolution at the same resolution."""
        return _CONVS[self.space](ins, outs, kernel, padding=kernel // 2, groups=groups)

    def norm(self, width: int) -> nn.Module:
        """Batch norm."""
        return _NORMS[self.space](width)

    def written_out(self, width: int, *, of_responses: bool) -> nn.Module:
        """A norm that torch has no layer for."""
        return WrittenOutNorm(width, self.space, of_responses=of_responses)

    def conv_bn(self, ins: int, outs: int, kernel: int = 3) -> nn.Sequential:
        """Convolution, batch norm, ReLU."""
        return nn.Sequential(self.conv(ins, outs, kernel), self.norm(outs), nn.ReLU(inplace=True))


KINDS = tuple(Maker(2).kinds)


def _run(modules: list[nn.Module], x: Tensor) -> Tensor:
    for module in modules:
        x = module(x)
    return x


def _split(block: nn.ModuleList, x: Tensor) -> Tensor:
    x = block[0](x)
    first, second = x[:, :-8], x[:, -8:]
    return block[2](torch.cat([first, block[1](second)], dim=1))


def _chunk(block: nn.ModuleList, x: Tensor) -> Tensor:
    first, second = block[0](x).chunk(2, dim=1)
    return block[2](torch.cat([first, block[1](second)], dim=1))


def _shuffle(block: nn.ModuleList, x: Tensor) -> Tensor:
    x = block[0](x)
    n, c, *space = x.shape
    x = x.view(n, 2, c // 2, *space).transpose(1, 2).reshape(n, c, *space)
    return block[2](block[1](x))


def _layer_norm(block: nn.ModuleList, x: Tensor) -> Tensor:
    return block[2](block[1](block[0](x).movedim(1, -1)).movedim(-1, 1))


def _attend(block: nn.ModuleList, x: Tensor) -> Tensor:
    x = block[0](x)
    tokens = x.flatten(2).transpose(1, 2)
    if isinstance(block[1], nn.MultiheadAttention):
        y = block[1](tokens, tokens, tokens, need_weights=False)[0]
    else:
        y = block[1](tokens)
    return x + y.transpose(1, 2).reshape(x.shape)


def _recur(block: nn.ModuleList, x: Tensor) -> Tensor:
    """Along all positions, one after the other."""
    x = block[0](x)
    tokens = x.flatten(2)
    batch_first = block[1].batch_first
    tokens = tokens.transpose(1, 2) if batch_first else tokens.permute(2, 0, 1)
    y, _ = block[1](tokens)
    y = y.transpose(1, 2) if batch_first else y.permute(1, 2, 0)
    return x + y.reshape(x.shape)


def _mix_positions(block: nn.ModuleList, x: Tensor) -> Tensor:
    """``[n, positions, channels]`` read as ``[n, channels, positions]``, as some attention over positions does."""
    x = block[1](block[0](x))
    return block[2](x + x.flatten(2).transpose(1, 2).reshape(x.shape))


def _use_twice(block: nn.ModuleList, x: Tensor) -> Tensor:
    conv, first, second, act = block
    return second(conv(act(first(conv(x)))))


def _pre_activate(block: nn.ModuleList, x: Tensor) -> Tensor:
    x = block[0](x)
    return x + block[3](block[2](block[1](x)))


STEPS = {
    **dict.fromkeys(KINDS, _run),
    "residual": lambda block, x: (x + _run(block, x)).relu_(),
    "concat": lambda block, x: block[2](torch.cat([block[0](x), x, block[1](x)], dim=1)),
    "split": _split,
    "chunk": _chunk,
    "squeeze": lambda block, x: x * _run(block, x.flatten(2).mean(2).reshape(*x.shape[:2], *[1] * (x.ndim - 2))),
    "shuffle": _shuffle,
    "reuse": lambda block, x: block[1](block[0](x) + block[0](block[0](x))),
    "layer norm": _layer_norm,
    "bare layer norm": _layer_norm,
    "norms of their own": _use_twice,
    "pre-activation": _pre_activate,
    "recurrent": _recur,
    "two ways": _recur,
    "positions": _mix_positions,
    "scaled scores": _attend,
    "multi-head": _attend,
    "attention": _attend,
}


@st.composite
def networks(draw: st.DrawFn, *, with_features: bool = False) -> tuple[nn.Module, Tensor]:
    """A random network of up to five blocks, lively and in float64, and an input for it; it runs on others too.

    Args:
        draw: hypothesis' own.
        with_features: whether it puts out its last features beside the logits, both by name.
    """
    blocks = draw(
        st.lists(
            st.builds(Block, kind=st.sampled_from(KINDS), width=st.integers(1, 4), act=st.sampled_from(sorted(ACTS))),
            min_size=1,
            max_size=5,
        )
    )
    seed = draw(st.integers(0, 2**16))
    space = draw(st.sampled_from([2, 1, 3]))
    torch.manual_seed(seed)
    net = RandomNet(blocks, space=space, flatten=draw(st.booleans()), with_features=with_features)
    return lively(net, seed), torch.randn(1, 3, *SPACES[space], dtype=torch.float64)


def ratios() -> st.SearchStrategy[float]:
    """Pruning ratios from nothing to nearly everything."""
    return st.one_of(st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.5, 0.75, 0.9]), st.floats(0.0, 0.99))
