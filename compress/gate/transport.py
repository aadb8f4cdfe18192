"""Frozen dataclasses of the gate as JSON text and back: how a test process tells the one that concludes what it saw."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def pack(value: object) -> str:
    """A dataclass of numbers, texts, bytes, enumerations, tuples, mappings and such dataclasses as JSON."""
    return json.dumps(_plain(value))


def unpack(kind: type[T], text: str) -> T:
    """The dataclass of the type ``kind`` that :func:`pack` made ``text`` of."""
    value: T = _typed(kind, json.loads(text))
    return value


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _typed(hint: Any, value: Any) -> Any:
    """A plain value as what ``hint`` says it was."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        # Of these dataclasses a union is always one type or None.
        return None if value is None else _typed(next(one for one in arguments if one is not NoneType), value)
    if origin is tuple:
        each = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(_typed(one, item) for one, item in zip(each, value, strict=True))
    if origin is not None:
        # A mapping from texts.
        return {key: _typed(arguments[1], item) for key, item in value.items()}
    if isinstance(hint, type) and is_dataclass(hint):
        hints = get_type_hints(hint)
        return hint(**{key: _typed(hints[key], item) for key, item in value.items()})
    if hint is bytes:
        return base64.b64decode(value)
    return hint(value) if issubclass(hint, Enum) else value
