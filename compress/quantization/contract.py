"""The accuracy contract: how many of the most sensitive layers must stay in float for it to hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from compress.calling.fidelity import relative_error
from compress.calling.inputs import BATCH, Inputs, infer
from compress.errors import ConfigError, ModelError

Accuracy = Callable[[nn.Module], float]

# The mean probability of its likeliest classes from which on a model is sure of them: of what are no classes but
# numbers near each other, all are about as likely, and one in place of another would count for nothing.
_SURE = 0.5
_ROUNDING = 1e-3  # that probabilities may be off 1 in sum


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
    """What can be asked of another model without labels: as likely classes, or where there are none, the same outputs.

    Classes are those of logits ``[n, num_classes]``, or of an output by the name of ``logits``, of any more dimensions.
    Sigmoids, each of which says by itself how likely its own class is, are held to the same outputs: several may be
    right, or all near the right one.
    Where the model is sure of them, a class counts as much as it is likely to be the right one, by the model's own
    probabilities: int8 changes the class where two are about as likely, and that costs next to nothing. Where it is
    not, each class other than its own counts as a wrong one.
    """
    expected = [infer(model, batch, BATCH) for batch in batches]
    logits = [_logits(outputs) for outputs in expected]
    known = [one for one in logits if one is not None]
    if len(known) < len(logits) or all(map(_are_sigmoids, known)):
        return Contract(_closeness(batches, expected), "1 - relative squared error of the outputs")
    if all(one.ndim == 2 for one in known):  # noqa: PLR2004 - of longer ones, a text's, the probabilities take too much
        likely = [_probabilities(one) for one in known]
        if float(torch.cat([one.amax(1) for one in likely]).mean()) >= _SURE:
            return Contract(_expected(batches, likely), "accuracy expected by the float model's probabilities")
    shapes, classes = [one.shape for one in known], [one.argmax(-1) for one in known]
    return Contract(_agreement(batches, shapes, classes), "agreement with the float model")


def _are_sigmoids(outputs: Tensor) -> bool:
    return bool(((outputs >= 0) & (outputs <= 1)).all()) and not _are_distributions(outputs)


def _are_distributions(outputs: Tensor) -> bool:
    return bool((outputs >= 0).all()) and bool((outputs.sum(-1) - 1).abs().max() < _ROUNDING)


def _probabilities(logits: Tensor) -> Tensor:
    """``[n, num_classes]``; outputs that are probabilities already stay as they are."""
    return logits if _are_distributions(logits) else logits.float().softmax(1)


def _expected(batches: Sequence[Inputs], likely: Sequence[Tensor]) -> Accuracy:
    """The mean probability of the classes that a model gives the inputs."""
    shapes, count = [one.shape for one in likely], sum(map(len, likely))

    def accuracy(other: nn.Module) -> float:
        pairs = zip(likely, _classes_by(other, batches, shapes), strict=True)
        return sum(float(one.gather(1, classes[:, None]).double().sum()) for one, classes in pairs) / count

    return accuracy


def _agreement(batches: Sequence[Inputs], shapes: Sequence[torch.Size], expected: Sequence[Tensor]) -> Accuracy:
    """The share of the inputs that get the class expected.

    Where it falls by d, the accuracy on the true classes has fallen by d at most.
    """
    count = sum(one.numel() for one in expected)

    def accuracy(other: nn.Module) -> float:
        pairs = zip(expected, _classes_by(other, batches, shapes), strict=True)
        return sum(int((one == classes).sum()) for one, classes in pairs) / count

    return accuracy


def _classes_by(other: nn.Module, batches: Sequence[Inputs], shapes: Sequence[torch.Size]) -> Iterator[Tensor]:
    """The classes that a model gives each batch.

    Raises:
        ModelError: if its logits are not of those shapes.
    """
    for batch, shape in zip(batches, shapes, strict=True):
        logits = _logits(infer(other, batch, BATCH))
        if logits is None or logits.shape != shape:
            raise ModelError("a quantized model must put out logits of the shape that the float model does")
        yield logits.argmax(-1)


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


def _logits(outputs: Any) -> Tensor | None:
    """``[..., num_classes]``; None where the outputs are none."""
    named = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    logits = outputs if isinstance(outputs, Tensor) and outputs.ndim == 2 else named  # noqa: PLR2004 - [n, num_classes]
    if not isinstance(logits, Tensor) or not logits.is_floating_point() or logits.ndim < 2 or logits.shape[-1] < 2:  # noqa: PLR2004
        return None
    return logits
