"""What qualities ask of outputs and targets, in messages that say what they got instead."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from compress.errors import ConfigError, ModelError


def tensor_of(value: Any, what: str) -> Tensor:
    """The value, which is a tensor.

    Raises:
        ConfigError: if it is none.
    """
    if not isinstance(value, Tensor):
        raise ConfigError(f"{what} must be a tensor, got {type(value).__name__}")
    return value


def logits_and_labels(outputs: Any, targets: Any, num_classes: int | None = None) -> tuple[Tensor, Tensor]:
    """Logits ``[n, num_classes, ...]``, of so many classes if that is known, and labels ``[n, ...]``.

    Raises:
        ModelError: if what the model puts out fits no such labels.
        ConfigError: if labels are no tensor.
    """
    labels = tensor_of(targets, "labels")
    fits = isinstance(outputs, Tensor) and outputs.ndim == labels.ndim + 1 and _others(outputs) == list(labels.shape)
    if not fits or num_classes not in (None, outputs.shape[1]):
        got = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        shape = ", ".join(map(str, [*labels.shape[:1], num_classes or "num_classes", *labels.shape[1:]]))
        raise ModelError(f"a model must put out logits of shape [{shape}], this one put out {got}")
    return outputs, labels


def pair_of_numbers(outputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
    """Outputs and targets of one shape, as ``[n, ...]`` floats.

    Raises:
        ModelError: if they are of other shapes.
    """
    expected = tensor_of(targets, "targets")
    got = tensor_of(outputs, "outputs")
    if got.shape != expected.shape and got.ndim == expected.ndim + 1 and got.shape[-1] == 1:
        got = got[..., 0]
    if got.shape != expected.shape:
        raise ModelError(
            f"a model must put out numbers of the targets' shape {list(expected.shape)}, this one put out"
            f" {list(got.shape)}"
        )
    return got.double(), expected.double()


def _others(outputs: Tensor) -> list[int]:
    """The shape without the classes."""
    return [*outputs.shape[:1], *outputs.shape[2:]]
