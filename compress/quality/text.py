"""Qualities of models of language and of speech."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from compress.quality.libraries import torchmetrics
from compress.quality.quality import Quality
from compress.quality.reductions import exp_ratio, ratio
from compress.quality.tensors import logits_and_labels

_FIRST_LETTER = 0xF0000  # of a plane of Unicode that means nothing

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

    def rows(outputs: Any, targets: Any) -> Tensor:
        got, expected = ([text.split() for text in texts] for texts in (decode(outputs), targets))
        # A character for each word: then edits of characters are those of words.
        letters: defaultdict[str, str] = defaultdict(lambda: chr(_FIRST_LETTER + len(letters)))
        spelled = [["".join(letters[word] for word in words) for words in texts] for texts in (got, expected)]
        edits = torchmetrics("text").edit_distance(*spelled, reduction="none")
        return torch.stack([edits.double(), torch.tensor([len(words) for words in expected]).double()], dim=1)

    return Quality(name="wer", rows=rows, better="lower", reduce=ratio, unit="fraction", title="word error rate")


def cer(decode: Decode) -> Quality:
    """Character error rate: edits over characters of the targets."""

    def rows(outputs: Any, targets: Any) -> Tensor:
        edits = torchmetrics("text").edit_distance(list(decode(outputs)), list(targets), reduction="none")
        return torch.stack([edits.double(), torch.tensor([len(text) for text in targets]).double()], dim=1)

    return Quality(name="cer", rows=rows, better="lower", reduce=ratio, unit="fraction", title="character error rate")
