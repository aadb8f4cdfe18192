"""Qualities of classifiers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from compress.errors import ConfigError, ModelError
from compress.quality.libraries import torchmetrics
from compress.quality.quality import Quality
from compress.quality.reductions import area_under_curve
from compress.quality.reductions import dice as f1_of_counts
from compress.quality.tensors import logits_and_labels, tensor_of


def topk_error(k: int, num_classes: int | None = None) -> Quality:
    """Share of examples whose class is not among the ``k`` most likely: logits ``[n, num_classes]``, labels ``[n]``.

    Logits of another number of classes than ``num_classes`` are refused, of any if it is left out. Classes with equal
    logits rank in their own order, so that a result does not hang on how a device sorts.
    """
    if k < 1:
        raise ConfigError(f"k must be at least 1, got {k}")

    def rows(outputs: Any, targets: Any) -> Tensor:
        return true_class_ranks(*logits_and_labels(outputs, targets, num_classes)) >= k

    return Quality(
        name=f"top{k}_error", rows=rows, better="lower", title=f"top-{k} error", is_error=True, of_classes=True
    )


def true_class_ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """``[n]``: how many classes the model holds likelier than the true one.

    Raises:
        ConfigError: if a label names no class.
    """
    labels = labels.long()
    if len(labels) and not (labels.min() >= 0 and labels.max() < logits.shape[1]):
        raise ConfigError(f"labels must be in [0, {logits.shape[1]}), got {int(labels.min())} to {int(labels.max())}")
    own = logits.gather(1, labels[:, None])
    before = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    return ((logits > own) | ((logits == own) & before)).sum(dim=1)


def auroc() -> Quality:
    """Area under the ROC curve of two classes: outputs ``[n]`` or logits ``[n, 2]``, targets ``[n]`` of 0 and 1."""

    def rows(outputs: Any, targets: Any) -> Tensor:
        scores, positive = tensor_of(outputs, "outputs"), tensor_of(targets, "targets")
        if scores.ndim == 2:  # noqa: PLR2004 - [n, 1] or [n, 2]
            scores = scores[:, 0] if scores.shape[1] == 1 else scores[:, 1] - scores[:, 0]
        if scores.shape != positive.shape:
            raise ModelError(f"a model must put out a score for each of {len(positive)} examples")
        return torch.stack([scores.double(), positive.double()], dim=1)

    return Quality(
        name="auroc", rows=rows, better="higher", reduce=area_under_curve, unit="fraction", title="area under ROC"
    )


def f1(num_classes: int) -> Quality:
    """F1, the mean over classes: logits ``[n, num_classes]``, labels ``[n]``."""

    def rows(outputs: Any, targets: Any) -> Tensor:
        logits, labels = logits_and_labels(outputs, targets)
        return counts_of(logits[..., None], labels[..., None], num_classes)

    return Quality(
        name="f1", rows=rows, better="higher", reduce=f1_of_counts, unit="fraction", title="F1", of_classes=True
    )


def counts_of(logits: Tensor, labels: Tensor, num_classes: int, ignore_index: int | None = None) -> Tensor:
    """``[n, 3 * num_classes]``: true positives, false positives and false negatives of each class in each example."""
    found = torchmetrics("classification").multiclass_stat_scores(
        logits,
        labels,
        num_classes=num_classes,
        average="none",
        multidim_average="samplewise",
        ignore_index=ignore_index,
    )
    counts: Tensor = found[..., [0, 1, 3]].flatten(1)
    return counts
