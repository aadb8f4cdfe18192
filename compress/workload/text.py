"""Language: the next character of Python's own documentation, by a small causal transformer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F  # noqa: N812

from compress import quality
from compress.train import FitConfig
from compress.workload.workload import Workload

CONTEXT = 64
_VOCABULARY = 96  # printable ASCII, and one for all else
_FIRST = 32
_WIDTH, _HEADS, _LAYERS = 64, 4, 2
_TRAIN, _TEST = 3000, 512
_BATCH = 32


class Attention(nn.Module):
    """``[n, tokens, width]`` to the same: each token sees itself and those before it."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(_WIDTH, _WIDTH) for _ in range(3))
        self.out = nn.Linear(_WIDTH, _WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = (
            layer(tokens).unflatten(-1, (_HEADS, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        result: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result


class Block(nn.Module):
    """Attention and a feed-forward network, each added to what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_network = nn.LayerNorm(_WIDTH), nn.LayerNorm(_WIDTH)
        self.attention = Attention()
        self.network = nn.Sequential(nn.Linear(_WIDTH, 4 * _WIDTH), nn.GELU(), nn.Linear(4 * _WIDTH, _WIDTH))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.before_attention(tokens))
        result: Tensor = tokens + self.network(self.before_network(tokens))
        return result


class Writer(nn.Module):
    """``[n, tokens]`` characters to ``[n, tokens, vocabulary]`` logits of the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.characters, self.places = nn.Embedding(_VOCABULARY, _WIDTH), nn.Embedding(CONTEXT, _WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(_LAYERS)))
        self.norm, self.head = nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, _VOCABULARY)

    def forward(self, characters: Tensor) -> Tensor:
        places = torch.arange(characters.shape[1], device=characters.device)
        tokens = self.characters(characters) + self.places(places)
        logits: Tensor = self.head(self.norm(self.blocks(tokens)))
        return logits


def next_character_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of every position."""
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def adam(groups: Sequence[dict[str, Any]]) -> optim.Optimizer:
    """What transformers are trained by."""
    return optim.AdamW(list(groups), lr=2e-3)


def text() -> Workload:
    """Python's reference documentation, as ``help()`` shows it, judged by perplexity; each Python has its own text."""
    return Workload(
        name="text",
        model_factory=Writer,
        data=_data,
        example_inputs=torch.zeros(1, CONTEXT, dtype=torch.int64),
        quality=[quality.perplexity()],
        loss=next_character_loss,
        optimizer=adam,
        fit=FitConfig(
            epochs=3,
            learning_rate=2e-3,
            warmup_epochs=0.1,
            validation_fraction=0.0,
            autocast="off",
            max_gradient_norm=1.0,
        ),
    )


def _data() -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
    """Pieces of the text, the last of them to test on."""
    from pydoc_data.topics import topics  # noqa: PLC0415 - half a megabyte that other workloads need not read

    whole = "\n".join(topics[name] for name in sorted(topics)).encode("ascii", "replace")
    codes = torch.frombuffer(bytearray(whole), dtype=torch.uint8).long() - _FIRST
    codes = codes.where((codes >= 0) & (codes < _VOCABULARY - 1), _VOCABULARY - 1)
    pieces = codes[: len(codes) // (CONTEXT + 1) * (CONTEXT + 1)].view(-1, CONTEXT + 1)
    order = torch.randperm(len(pieces), generator=torch.Generator().manual_seed(0))
    train, test = pieces[order[_TEST : _TEST + _TRAIN]], pieces[order[:_TEST]]
    return _pairs(train), _pairs(test)


def _pairs(pieces: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(batch[:, :-1].contiguous(), batch[:, 1:].contiguous()) for batch in torch.split(pieces, _BATCH)]
