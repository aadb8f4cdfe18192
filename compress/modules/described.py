"""What a function or an object is, in words of JSON: the same in every process, another where it does another thing."""

from __future__ import annotations

import hashlib
import types
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

_PLAIN = (bool, int, float, str, type(None))
_NAMED = (type, types.BuiltinFunctionType, types.ModuleType)
_DEEPEST = 8
# What modules of torch keep tensors and each other in.
_CONTENT = frozenset({"_parameters", "_buffers", "_modules"})


def described(value: Any) -> Any:
    """Settings, functions with all that they hold on to, and objects with what they consist of, nested.

    A function is known by its name, its code, its defaults and what it closes over; an object by its class and its
    attributes, but for private ones; a tensor or an array by its values. What lies deeper than eight levels is known by
    its class, and what was met before by its place.
    """
    return _Describing().of(value, 0)


class _Describing:
    """One description at work: what it has met, kept alive so that no two things have one identity."""

    def __init__(self) -> None:
        self.met: dict[int, tuple[int, Any]] = {}

    def of(self, value: Any, depth: int) -> Any:
        if isinstance(value, _PLAIN):
            return value
        kind = _name_of(type(value))
        if isinstance(value, _NAMED):
            return [kind, _name_of(value)]
        if isinstance(value, Enum):
            return [kind, value.name]
        if id(value) in self.met:
            return [kind, "met", self.met[id(value)][0]]
        self.met[id(value)] = (len(self.met), value)
        return [kind, *self._parts(value, depth + 1)] if depth < _DEEPEST else [kind]

    def _parts(self, value: Any, depth: int) -> list[Any]:
        if isinstance(value, (Tensor, np.ndarray)):
            return _numbers(value)
        if isinstance(value, Mapping):
            return [[self.of(key, depth), self.of(one, depth)] for key, one in value.items()]
        if isinstance(value, (set, frozenset)):
            return sorted((self.of(one, depth) for one in value), key=str)
        if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview, range)):
            return [self.of(one, depth) for one in value]
        return self._of_object(value, depth)

    def _of_object(self, value: Any, depth: int) -> list[Any]:
        if isinstance(value, partial):
            return [self.of(one, depth) for one in (value.func, value.args, value.keywords)]
        if isinstance(value, types.MethodType):
            return [self.of(one, depth) for one in (value.__func__, value.__self__)]
        if isinstance(value, types.FunctionType):
            cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
            held = (value.__defaults__, value.__kwdefaults__, cells)
            return [_name_of(value), self.of(value.__code__, depth), *(self.of(one, depth) for one in held)]
        if isinstance(value, types.CodeType):
            constants = [self.of(one, depth) for one in value.co_consts]
            return [hashlib.sha256(value.co_code).hexdigest(), constants, list(value.co_names)]
        slots = [name for one in type(value).__mro__ for name in getattr(one, "__slots__", ())]
        attributes = {name: getattr(value, name) for name in slots if hasattr(value, name)}
        attributes |= getattr(value, "__dict__", {})
        if not attributes:
            return [] if " at 0x" in repr(value) else [repr(value)]
        public = {name: one for name, one in attributes.items() if not name.startswith("_") or name in _CONTENT}
        return [[name, self.of(one, depth)] for name, one in public.items()]


def _name_of(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', getattr(value, '__name__', ''))}"


def _is_filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:  # of a name that is given a value later
        return False
    return True


def _numbers(value: Tensor | np.ndarray[Any, Any]) -> list[Any]:
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().view(-1)
        content = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    else:
        content = np.ascontiguousarray(value).tobytes()
    return [str(value.dtype), list(value.shape), hashlib.sha256(content).hexdigest()]
