"""Qualities of models that put out numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from compress.quality.libraries import torchmetrics
from compress.quality.quality import Quality
from compress.quality.reductions import determination, root_mean
from compress.quality.tensors import pair_of_numbers


def mae() -> Quality:
    """Mean absolute error: outputs and targets ``[n, ...]``."""
    return Quality(
        name="mae", rows=lambda *pair: _errors(*pair).abs().mean(1), better="lower", title="mean absolute error"
    )


def rmse() -> Quality:
    """Root of the mean squared error: outputs and targets ``[n, ...]``."""
    return Quality(
        name="rmse", rows=lambda *pair: _errors(*pair).square().mean(1), better="lower", reduce=root_mean, title="RMSE"
    )


def r2() -> Quality:
    """Coefficient of determination: outputs and targets ``[n]``."""

    def rows(outputs: Any, targets: Any) -> Tensor:
        got, expected = pair_of_numbers(outputs, targets)
        columns = [(got - expected).square(), expected]
        return torch.stack([one.flatten(1).mean(1) if one.ndim > 1 else one for one in columns], dim=1)

    return Quality(name="r2", rows=rows, better="higher", reduce=determination, title="R2")


def cosine_similarity() -> Quality:
    """Cosine of outputs and targets ``[n, width]``, such as embeddings."""

    def rows(outputs: Any, targets: Any) -> Tensor:
        got, expected = pair_of_numbers(outputs, targets)
        cosines: Tensor = torchmetrics("regression").cosine_similarity(
            got.flatten(1), expected.flatten(1), reduction="none"
        )
        return cosines

    return Quality(name="cosine_similarity", rows=rows, better="higher", title="cosine similarity")


def _errors(outputs: Any, targets: Any) -> Tensor:
    """``[n, ...]`` to ``[n, numbers]``."""
    got, expected = pair_of_numbers(outputs, targets)
    return (got - expected).reshape(len(got), -1)
