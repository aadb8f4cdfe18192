"""The accuracy contract: how many of the most sensitive layers must stay in float for it to hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from compress.calling.fidelity import relative_error
from compress.calling.inputs import BATCH, Inputs, infer
from compress.errors import ConfigError, ModelError

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


class Contract(NamedTuple):
    """How the accuracy of a model is found, and what it is of."""

    accuracy: Accuracy
    measure: str


def against(model: nn.Module, batches: Sequence[Inputs]) -> Contract:
    """What can be asked of another model without labels: the same classes, or where there are none, the same outputs.

    Classes are those of logits ``[n, num_classes]``, or of an output by the name of ``logits``, of any more dimensions.
    """
    expected = [infer(model, batch, BATCH) for batch in batches]
    classes = [_classes(outputs) for outputs in expected]
    known = [one for one in classes if one is not None]
    if len(known) < len(classes):
        return Contract(_closeness(batches, expected), "1 - relative squared error of the outputs")
    return Contract(_agreement(batches, known), "agreement with the float model")


def _agreement(batches: Sequence[Inputs], expected: Sequence[Tensor]) -> Accuracy:
    """The share of the inputs that get the class expected.

    Where it falls by d, the accuracy on the true classes has fallen by d at most.
    """

    def accuracy(other: nn.Module) -> float:
        same, count = 0, 0
        for batch, classes in zip(batches, expected, strict=True):
            found = _classes(infer(other, batch, BATCH))
            if found is None or found.shape != classes.shape:
                raise ModelError("a quantized model must put out logits of the shape that the float model does")
            same, count = same + int((found == classes).sum()), count + classes.numel()
        return same / count

    return accuracy


def _closeness(batches: Sequence[Inputs], expected: Sequence[Any]) -> Accuracy:
    """One less the error's power over the outputs' own, at least 0: 0.99 is a signal-to-noise ratio of 20 dB."""

    def accuracy(other: nn.Module) -> float:
        errors = [
            relative_error(outputs, infer(other, batch, BATCH))
            for batch, outputs in zip(batches, expected, strict=True)
        ]
        return max(0.0, 1 - sum(error**2 for error in errors) / len(errors))

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


def _classes(outputs: Any) -> Tensor | None:
    """The likeliest class of each input; None where the outputs are no logits."""
    named = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    logits = outputs if isinstance(outputs, Tensor) and outputs.ndim == 2 else named  # noqa: PLR2004 - [n, num_classes]
    if not isinstance(logits, Tensor) or not logits.is_floating_point() or logits.ndim < 2 or logits.shape[-1] < 2:  # noqa: PLR2004
        return None
    return logits.argmax(dim=-1)
