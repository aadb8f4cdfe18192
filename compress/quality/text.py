"""Qualities of models of language and of speech."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from compress.quality.libraries import torchmetrics
from compress.quality.quality import Quality
from compress.quality.reductions import exp_ratio, ratio
from compress.quality.tensors import logits_and_labels

Decode = Callable[[Any], Sequence[str]]
"""What a model put out for a batch to the text of each example."""


def perplexity(*, ignore_index: int = -100) -> Quality:
    """Exponential of the mean negative log-likelihood of a token.

    Logits ``[n, tokens, vocabulary]`` and the tokens that they are to predict ``[n, tokens]``; those that are
    ``ignore_index`` do not count.
    """

    def rows(outputs: Any, targets: Any) -> Tensor:
        moved = outputs.movedim(-1, 1) if isinstance(outputs, Tensor) and outputs.ndim > 1 else outputs
        logits, labels = logits_and_labels(moved, targets)
        losses = F.cross_entropy(logits.double(), labels, ignore_index=ignore_index, reduction="none")
        counted = (labels != ignore_index).double()
        return torch.stack([losses.flatten(1).sum(1), counted.flatten(1).sum(1)], dim=1)

    return Quality(name="perplexity", rows=rows, better="lower", reduce=exp_ratio)


def wer(decode: Decode) -> Quality:
    """Word error rate: edits over words of the targets, which are texts ``[n]``; ``decode`` makes texts of outputs."""

    def rows(outputs: Any, targets: Any) -> list[tuple[float, float]]:
        rate = torchmetrics("text").word_error_rate
        pairs = zip(decode(outputs), targets, strict=True)
        # Of one text a rate is its edits over its words.
        return [(float(rate([got], [text])) * len(text.split()), len(text.split())) for got, text in pairs]

    return Quality(name="wer", rows=rows, better="lower", reduce=ratio, unit="fraction", title="word error rate")


def cer(decode: Decode) -> Quality:
    """Character error rate: edits over characters of the targets."""

    def rows(outputs: Any, targets: Any) -> Tensor:
        edits = torchmetrics("text").edit_distance(list(decode(outputs)), list(targets), reduction="none")
        return torch.stack([edits.double(), torch.tensor([len(text) for text in targets]).double()], dim=1)

    return Quality(name="cer", rows=rows, better="lower", reduce=ratio, unit="fraction", title="character error rate")
