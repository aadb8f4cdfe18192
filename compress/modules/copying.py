"""Copies of the model that a caller gave: every technique works on one, and the given model stays as it is."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeVar, cast

from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from compress.errors import ModelError, first_line

M = TypeVar("M", bound=nn.Module)

# What a cut model was cut by, for those that repair it: copies carry it; it is in no file, and no forward pass left it.
PLANS = "_pruning_plans"

_ATOMS = frozenset({int, float, bool, str, type(None), complex, bytes, type})
_NO_TENSORS: Mapping[int, Tensor] = MappingProxyType({})


def check_given(model: object, work: str) -> None:
    """Refuse what no technique can work on; a message says that ``work`` ("prune", "save") was to be done.

    Raises:
        ModelError: if the model is no module, is scripted, or has tensors without memory.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"the model must be a torch.nn.Module, got {type(model).__name__}")
    for name, module in model.named_modules():
        if isinstance(module, ScriptModule):
            raise ModelError(
                f"the model must not be scripted: {work} the original (layer '{name}', {type(module).__name__})"
            )
    for name, tensor in _state(model):
        if is_lazy(tensor):
            raise ModelError(f"lazy layers must be initialized by a forward pass before all else (tensor '{name}')")
        if tensor.is_meta:
            raise ModelError(f"the model must have its weights to {work} it, '{name}' is on the meta device")


def copied(model: M, tensors: Mapping[int, Tensor] = _NO_TENSORS) -> M:
    """What ``copy.deepcopy`` makes, but with ``tensors`` in place of those whose ``id`` they stand under.

    What a forward pass left in the model with its gradient's history, which deepcopy refuses, is copied without it:
    weights that a hook makes anew each time, as those under the masks of ``torch.nn.utils.prune``, or kept features.
    Modules that do not say themselves how they are copied, nearly all, take a short way: deepcopy spends most of its
    time on their empty dictionaries of hooks.

    Raises:
        ModelError: if something in the model cannot be copied; with its name.
    """
    computed = [tensor for module in model.modules() for tensor in _computed(module)]
    memo: dict[int, Any] = {id(tensor): tensor.detach().clone() for tensor in computed}
    memo |= tensors
    return cast("M", _module(model, memo, ""))


def _state(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _computed(module: nn.Module) -> Iterator[Tensor]:
    """The tensors that a module holds, in whatever attribute, and that were computed from others with gradients."""
    for name, value in vars(module).items():
        held = isinstance(value, Tensor) or (isinstance(value, (dict, list, tuple)) and value)
        if held and name not in {"_parameters", "_modules"}:
            yield from (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and not leaf.is_leaf)


def _module(module: nn.Module, memo: dict[int, Any], path: str) -> nn.Module:
    known = memo.get(id(module))
    if known is not None:
        return known  # type: ignore[no-any-return]  # a module stands under a module's id
    if not _is_plain(type(module)):
        return cast("nn.Module", _deep(module, memo, f"layer '{path}', {type(module).__name__}"))
    new = object.__new__(type(module))
    memo[id(module)] = new
    for name, value in vars(module).items():
        # What torch leaves out of a copy.
        if name != "_compiled_call_impl":
            new.__dict__[name] = _value(name, value, memo, path)
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


def _value(name: str, value: Any, memo: dict[int, Any], path: str) -> Any:
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind in {dict, OrderedDict, set} and not value:
        return kind()
    if name == "_modules" and kind in {dict, OrderedDict}:
        return kind(
            (key, None if one is None else _module(one, memo, f"{path}.{key}".removeprefix(".")))
            for key, one in value.items()
        )
    return _deep(value, memo, f"attribute '{name}' of layer '{path}'")


def _deep(value: Any, memo: dict[int, Any], place: str) -> Any:
    try:
        return copy.deepcopy(value, memo)
    except ModelError:
        raise
    except Exception as cause:
        raise ModelError(f"the model cannot be copied: {first_line(cause)} ({place})") from cause
