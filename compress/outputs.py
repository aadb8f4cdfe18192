"""Which of what a model puts out counts, and how its outputs are called."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from compress.errors import ConfigError, first_line
from compress.inputs import items_of, tensors_in

Outputs = Callable[[Any], Any]
"""What a model puts out to the part of it that counts: ``lambda out: out.logits``."""


def selected(output: Any, outputs: Outputs | None) -> Any:
    """The part of ``output`` that counts: all of it if ``outputs`` is None.

    Raises:
        ConfigError: if ``outputs`` fails, or names no tensor.
    """
    if outputs is None:
        return output
    try:
        part = outputs(output)
    except Exception as cause:
        raise ConfigError(f"outputs must name outputs of the model, but failed: {first_line(cause)}") from cause
    if next(tensors_in([part]), None) is None:
        raise ConfigError("outputs must name outputs of the model, got no tensor")
    return part


def named_tensors(output: Any) -> Iterator[tuple[str, Tensor]]:
    """Every tensor that a model put out, and where: ``'hidden'``, ``[1][0]``; nothing is to say of a single one."""
    if isinstance(output, (Tensor, Mapping, tuple, list)):
        yield from _named(output, "")
    elif hasattr(output, "__dict__"):
        yield from _named(vars(output), "")


def _named(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _named(item, f"{path}[{key!r}]" if path else repr(key))
    elif not isinstance(value, (str, int, float)) and hasattr(value, "__iter__"):
        for index, item in enumerate(items_of(value)):
            yield from _named(item, f"{path}[{index}]")
