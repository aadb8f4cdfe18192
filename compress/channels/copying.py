"""Copies of models that share what is big, or have other tensors in its place."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

_ATOMS = frozenset({int, float, bool, str, type(None), complex, bytes, type})


def copied(model: nn.Module, tensors: Mapping[int, Tensor]) -> nn.Module:
    """What ``copy.deepcopy`` makes, but with ``tensors`` in place of those whose ``id`` they stand under.

    Modules that do not say themselves how they are copied, nearly all, take a short way: deepcopy spends most of its
    time on their empty dictionaries of hooks.
    """
    memo: dict[int, Any] = {**_computed(model), **tensors}
    return _module(model, memo)


def _computed(model: nn.Module) -> dict[int, Tensor]:
    """Copies of tensors that torch copies not, results of computations: a weight that a hook computes before each pass.

    Under the identities of those.
    """
    found = (value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor))
    return {id(value): value.detach().clone() for value in found if not value.is_leaf}


def _module(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    known = memo.get(id(module))
    if known is not None:
        return known  # type: ignore[no-any-return]  # a module stands under a module's id
    if not _is_plain(type(module)):
        return copy.deepcopy(module, memo)
    new = object.__new__(type(module))
    memo[id(module)] = new
    for name, value in vars(module).items():
        # What torch leaves out of a copy.
        if name != "_compiled_call_impl":
            new.__dict__[name] = _value(name, value, memo)
    return new


def _is_plain(kind: type[nn.Module]) -> bool:
    return not (
        hasattr(kind, "__deepcopy__")
        or hasattr(kind, "__slots__")
        or kind.__setstate__ is not nn.Module.__setstate__
        or kind.__reduce__ is not object.__reduce__
        or kind.__reduce_ex__ is not object.__reduce_ex__
        or getattr(kind, "__getstate__", None) is not getattr(nn.Module, "__getstate__", None)
    )


def _value(name: str, value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind in {dict, OrderedDict, set} and not value:
        return kind()
    if name == "_modules" and kind in {dict, OrderedDict}:
        return kind((key, None if one is None else _module(one, memo)) for key, one in value.items())
    return copy.deepcopy(value, memo)
