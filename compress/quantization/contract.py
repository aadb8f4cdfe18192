"""The accuracy contract: how many of the most sensitive layers must stay in float for it to hold."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from compress.errors import ConfigError

Accuracy = Callable[[nn.Module], float]


def fewest(holds: Callable[[int], bool], below: int, at_least: int = 0) -> int | None:
    """The least number in ``[at_least, below)`` for which ``holds``; None if there is none.

    Doubles its steps until it holds and then halves the interval, so that a model of 100 layers is tried a dozen times
    at most. That it goes on holding from there is taken for granted.
    """
    failed, step = at_least - 1, 1
    while True:
        tried = min(failed + step, below - 1)
        if tried <= failed:
            return None
        if holds(tried):
            break
        failed, step = tried, 2 * step
    while tried - failed > 1:
        middle = (tried + failed) // 2
        if holds(middle):
            tried = middle
        else:
            failed = middle
    return tried


def agreement_with(model: nn.Module, batches: list[Tensor]) -> Accuracy:
    """Accuracy without labels: the share of the inputs that get the class that ``model`` gives them.

    Where it falls by d, the accuracy on the true classes has fallen by d at most.
    """
    expected = [_classes(model, batch) for batch in batches]

    def accuracy(other: nn.Module) -> float:
        same = sum(
            int((_classes(other, batch) == classes).sum()) for batch, classes in zip(batches, expected, strict=True)
        )
        return same / sum(classes.numel() for classes in expected)

    return accuracy


def check_drop(max_accuracy_drop: float) -> None:
    """Refuse a drop that is no share.

    Raises:
        ConfigError: if it is not in [0, 1].
    """
    if isinstance(max_accuracy_drop, bool) or not 0 <= max_accuracy_drop <= 1:
        raise ConfigError(
            f"max_accuracy_drop must be in [0, 1], where 0.005 is half a percentage point, got {max_accuracy_drop!r}"
        )


def _classes(model: nn.Module, batch: Tensor) -> Tensor:
    with torch.inference_mode():
        classes: Tensor = model(batch).argmax(dim=-1)
    return classes
