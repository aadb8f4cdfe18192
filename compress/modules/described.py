"""What a function or an object is, in words of JSON: the same in every process, another where it does another thing."""

from __future__ import annotations

import hashlib
import types
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

_PLAIN = (bool, int, float, str, type(None))
_DEEPEST = 8


def described(value: Any, depth: int = 0) -> Any:
    """Settings, functions with all that they hold on to, and objects with what they consist of, nested.

    A function is known by its name, its code, its defaults and what it closes over; an object by its class and its
    attributes, but for private ones; a tensor by its values. What lies deeper than eight levels is known by its class.
    """
    if isinstance(value, _PLAIN):
        return value
    kind = _name_of(type(value))
    if depth > _DEEPEST:
        return [kind]
    if isinstance(value, Tensor):
        return [kind, str(value.dtype), list(value.shape), _digest(value)]
    if isinstance(value, Mapping):
        return [kind, [[described(key, depth + 1), described(one, depth + 1)] for key, one in value.items()]]
    if isinstance(value, (Sequence, set, frozenset)) and not isinstance(value, (bytes, bytearray)):
        items = [described(one, depth + 1) for one in value]
        return [kind, sorted(items, key=str) if isinstance(value, (set, frozenset)) else items]
    return [kind, *_parts(value, depth + 1)]


def _parts(value: Any, depth: int) -> list[Any]:
    if isinstance(value, type):
        return [_name_of(value)]
    if isinstance(value, partial):
        return [described(one, depth) for one in (value.func, value.args, value.keywords)]
    if isinstance(value, types.MethodType):
        return [described(one, depth) for one in (value.__func__, value.__self__)]
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        held = (value.__defaults__, value.__kwdefaults__, cells)
        return [_name_of(value), _code_of(value.__code__), *(described(one, depth) for one in held)]
    if isinstance(value, types.BuiltinFunctionType):
        return [_name_of(value)]
    attributes = getattr(value, "__dict__", {})
    tensors = {"_parameters", "_buffers", "_modules"}
    public = {name: one for name, one in attributes.items() if not name.startswith("_") or name in tensors}
    return [described(public, depth)]


def _name_of(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"


def _code_of(code: types.CodeType) -> list[Any]:
    constants = [_code_of(one) if isinstance(one, types.CodeType) else repr(one) for one in code.co_consts]
    return [hashlib.sha256(code.co_code).hexdigest(), constants, list(code.co_names)]


def _is_filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:  # of a name that is given a value later
        return False
    return True


def _digest(tensor: Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().view(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().tobytes()).hexdigest() if flat.numel() else ""
