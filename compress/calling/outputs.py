"""Which of what a model puts out counts, and how its outputs are called."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from compress.calling.inputs import items_of, tensors_in
from compress.errors import ConfigError, first_line

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


def named_tensors(output: Any, *, within_objects: bool = True) -> Iterator[tuple[str, Tensor]]:
    """Every tensor that a model put out, and where: ``'hidden'``, ``[1][0]``; nothing is to say of a single one.

    Args:
        output: tensors in mappings, sequences and dataclasses of any nesting.
        within_objects: whether to look into other objects too, such as caches.
    """
    if within_objects and not _is_plain(output) and hasattr(output, "__dict__"):
        output = vars(output)
    yield from _named(output, "", within_objects=within_objects)


def _named(value: Any, path: str, *, within_objects: bool) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
        return
    for name, item in _parts(value, path, within_objects=within_objects):
        yield from _named(item, name, within_objects=within_objects)


def _parts(value: Any, path: str, *, within_objects: bool) -> Iterator[tuple[str, Any]]:
    """What a structure holds, and where."""
    if not isinstance(value, Mapping) and _is_plain(value) and dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield f"{path}[{key!r}]" if path else repr(key), item
    elif _is_plain(value) or (within_objects and not isinstance(value, str) and hasattr(value, "__iter__")):
        for index, item in enumerate(items_of(value)):
            yield f"{path}[{index}]", item


def _is_plain(value: Any) -> bool:
    """Whether it is a structure of what a model computed, and no object that keeps something of its own."""
    return isinstance(value, (Tensor, Mapping, tuple, list)) or (
        dataclasses.is_dataclass(value) and not isinstance(value, type)
    )
