"""What modules keep beside their tensors: the plain attributes that a file carries, and what a forward pass left.

A forward pass may keep what it computed for the next one: a grid for the last image size, beside that size; features;
a cache. No file holds such tensors, and so it must not tell a fresh network that they are there: of a module that
keeps some, only the widths that a cut made smaller are put back, and the rest stays as the factory built it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from compress.modules.copying import PLANS
from compress.modules.substitute import TYPE, type_name

Shape = dict[str, dict[str, Any]]
"""Module name to its type and plain attributes."""

# What torch itself keeps in every module.
_OWN = frozenset(vars(nn.Module()))


def shape_of(model: nn.Module) -> Shape:
    """The type and the plain attributes of every module."""
    return {name: {TYPE: type_name(module), **_plain_attributes(module)} for name, module in model.named_modules()}


def kept_in(model: nn.Module) -> dict[str, list[str]]:
    """By module, the attributes that hold tensors which are neither parameters nor buffers; modules without any not."""
    known: dict[int, bool] = {}  # a settings object is often that of all modules
    kept = {name: sorted(_holding_tensors(module, known)) for name, module in model.named_modules()}
    return {name: attributes for name, attributes in kept.items() if attributes}


def objects_in(model: nn.Module) -> dict[str, list[str]]:
    """By module, the attributes that hold objects without tensors, which a first forward pass may have made.

    A function is none: which one it is makes a network what it is.
    """
    known: dict[int, bool] = {}
    found = {
        name: [key for key, value in sorted(vars(module).items()) if key[0] != "_" and _is_object(value, known)]
        for name, module in model.named_modules()
    }
    return {name: attributes for name, attributes in found.items() if attributes}


def made_objects(built: Mapping[str, Any], objects: Collection[str]) -> set[str]:
    """Of the attributes that hold ``objects`` in a file, those that hold None in the ``built`` module."""
    return {key for key in objects if key in built and built[key] is None}


def difference(
    saved: Mapping[str, Any], built: Mapping[str, Any], kept: Collection[str], objects: Collection[str]
) -> str | None:
    """What tells a module in a file from the one that a factory built; None where only a forward pass lies between.

    Args:
        saved, built: type and plain attributes.
        kept: the attributes of the saved one that held tensors: they may have been plain before.
        objects: those that held other objects: they may have been None before.
    """
    if saved.get(TYPE) != built[TYPE]:
        return f"is a {saved.get(TYPE)} in the file and a {built[TYPE]} in the model"
    missing = sorted(built.keys() - saved.keys() - made_objects(built, objects) - set(kept))
    return f"differs in its attributes: {', '.join(missing)}" if missing else None


def put_back_(module: nn.Module, saved: Mapping[str, Any], *, keeps: bool) -> None:
    """Give a module its saved attributes, in place; if it ``keeps`` tensors of a forward pass, its cut widths only."""
    built = vars(module)
    for key, value in saved.items():
        if key != TYPE and (key in _OWN or not keeps or _is_cut(value, built.get(key))):
            setattr(module, key, value)


def to_json(value: object) -> Any:
    """Tuples, which are common, as arrays; lists, which are rare, marked."""
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    if isinstance(value, list):
        return {"list": [to_json(item) for item in value]}
    return value


def from_json(value: Any) -> Any:
    """What :func:`to_json` wrote."""
    if isinstance(value, list):
        return tuple(from_json(item) for item in value)
    if isinstance(value, dict):
        return [from_json(item) for item in value["list"]]
    return value


def _plain_attributes(module: nn.Module) -> dict[str, Any]:
    """The attributes that JSON can hold; private ones belong to the module's own bookkeeping."""
    return {key: to_json(value) for key, value in vars(module).items() if key[0] != "_" and _is_plain(value)}


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def _is_object(value: object, known: dict[int, bool]) -> bool:
    is_code = isinstance(value, (FunctionType, BuiltinFunctionType, MethodType, partial, type, ModuleType, nn.Module))
    return hasattr(value, "__dict__") and not is_code and not _has_tensors(value, known)


def _holding_tensors(module: nn.Module, known: dict[int, bool]) -> Iterator[str]:
    for name, value in vars(module).items():
        if name not in _OWN and name != PLANS and not _is_plain(value) and _has_tensors(value, known):
            yield name


def _has_tensors(value: object, known: dict[int, bool]) -> bool:
    """Whether tensors or arrays are in a value, in a container or an object of its own kind."""
    return any(isinstance(one, (Tensor, np.ndarray)) or _holds(one, known) for one in tree_leaves(value))


def _holds(one: object, known: dict[int, bool]) -> bool:
    if isinstance(one, (nn.Module, type, ModuleType)) or not hasattr(one, "__dict__"):
        return False
    if id(one) not in known:
        # Until it is known, for an object may hold itself.
        known[id(one)] = False
        known[id(one)] = any(_has_tensors(value, known) for value in vars(one).values())
    return known[id(one)]


def _is_cut(now: Any, before: Any) -> bool:
    """Whether a width, or several, became smaller."""
    if isinstance(now, (list, tuple)) and isinstance(before, (list, tuple)) and len(now) == len(before):
        return now != before and all(one == was or _is_cut(one, was) for one, was in zip(now, before, strict=True))
    return type(now) is int and type(before) is int and 0 < now < before
