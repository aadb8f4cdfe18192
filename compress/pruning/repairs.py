"""Widths that modules keep in Python, beside their tensors: ``head_dim``, ``hidden_dim``, ``num_heads``.

A trace sees only the size that came of them, when forward hands it to an operation. So an attribute is found by its
value, and believed only if it fits in all modules of its class at once; the second trace has the last word.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from inspect import unwrap
from types import CodeType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from compress.channels.groups import Channels
from compress.channels.labels import Width

_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, _NormBase)

Value = int | tuple[int, ...] | list[int]


class _Sizes(NamedTuple):
    """Sizes that a module wrote.

    Attributes:
        after: what each is to be after the cut.
        kept: those which something else has too that stays as it is, such as a number of heads.
    """

    after: Mapping[int, int]
    kept: Sequence[int]


# Whole numbers that are rarely the width of anything, when another attribute of the same value is there to be chosen.
_UNLIKELY = re.compile(
    r"window|patch|kernel|stride|pad|grid|im(a)?g|resolution|heads|depth|ratio|num_layers|classes|len"
)


class Repair(NamedTuple):
    """An attribute of a module that changes with a cut."""

    module: str
    attribute: str
    before: Value
    after: Value

    def __str__(self) -> str:
        place = f"{self.module}.{self.attribute}" if self.module else self.attribute
        return f"{place}: {self.before} -> {self.after}"


def repairs(
    model: nn.Module, channels: Channels, widths: Sequence[Width], removed: npt.NDArray[np.bool_]
) -> list[Repair]:
    """The attributes that said how wide something was which is now narrower."""
    by_class: dict[type[nn.Module], dict[str, _Sizes]] = {}
    modules = dict(model.named_modules())
    for path, sizes in _sizes(channels, widths, removed).items():
        kind = type(modules[path])
        if not kind.__module__.startswith("torch.nn.modules") or _told_here(modules[path]):
            by_class.setdefault(kind, {})[path] = sizes
    found = []
    for kind, instances in by_class.items():
        for name in _names(modules, instances, _read_by_forward(kind, modules[next(iter(instances))])):
            for path, sizes in instances.items():
                before = vars(modules[path])[name]
                found.append(Repair(path, name, before, _replaced(before, sizes)))
    return [repair for repair in found if repair.before != repair.after]


def _told_here(module: nn.Module) -> bool:
    """Whether one of torch's own modules, told by type by what their tensors are, has a width that no tensor shows."""
    bare = not any(True for _ in (*module.parameters(), *module.buffers()))
    return isinstance(module, nn.MultiheadAttention) or (bare and isinstance(module, _NORMS))


def _read_by_forward(kind: type[nn.Module], module: nn.Module) -> frozenset[str]:
    """The names that the class's forward, and the methods it calls, speak of."""
    if issubclass(kind, nn.MultiheadAttention):
        # Its other widths are those of its tensors.
        return frozenset({"head_dim", "num_heads"})
    if issubclass(kind, _NORMS):
        return frozenset({"normalized_shape", "num_channels", "num_features"})
    names: set[str] = set()
    # Some choose one of several methods for their forward when they are made.
    new = {"forward", getattr(module.forward, "__name__", "forward")}
    while new:
        names |= new
        new = {name for method in new for name in _names_in(getattr(kind, method, None))} - names
    return frozenset(names)


def _names_in(method: Any) -> Iterator[str]:
    if isinstance(method, property):
        method = method.fget
    code = getattr(unwrap(method), "__code__", None) if callable(method) else None
    todo = [] if code is None else [code]
    while todo:
        one = todo.pop()
        yield from one.co_names
        todo += [constant for constant in one.co_consts if isinstance(constant, CodeType)]


def _sizes(channels: Channels, widths: Sequence[Width], removed: npt.NDArray[np.bool_]) -> dict[str, _Sizes]:
    found: dict[str, dict[int, set[int]]] = {}
    for width in widths:
        gone = removed[channels.units[width.ids[width.ids >= 0]]].sum()
        found.setdefault(width.module, {}).setdefault(width.size, set()).add(width.size - int(gone))
    return {path: _of_one_module(sizes) for path, sizes in found.items()}


def _of_one_module(sizes: Mapping[int, set[int]]) -> _Sizes:
    changed = {size: after - {size} for size, after in sizes.items()}
    # A size that becomes several is no single attribute.
    after = {size: next(iter(new), size) for size, new in changed.items() if len(new) < 2}  # noqa: PLR2004 - one at most
    return _Sizes(after=after, kept=[size for size, new in changed.items() if new and size in sizes[size]])


def _names(modules: Mapping[str, nn.Module], instances: Mapping[str, _Sizes], among: Container[str]) -> list[str]:
    """The attributes that are one of the sizes in every instance, those that look like something else left out."""
    attributes = [
        {name: value for name, value in vars(modules[path]).items() if _is_sizes(value)} for path in instances
    ]
    everywhere = [
        name
        for name in attributes[0]
        if name in among
        and all(
            name in own
            and _replaced(own[name], sizes) is not None
            and not (_is_unlikely(name) and _stays(own[name], sizes))
            for own, sizes in zip(attributes, instances.values(), strict=True)
        )
    ]
    values = {name: tuple(str(own[name]) for own in attributes) for name in everywhere}
    likely = {values[name] for name in everywhere if not _is_unlikely(name)}
    return [name for name in everywhere if not _is_unlikely(name) or values[name] not in likely]


def _stays(value: Value, sizes: _Sizes) -> bool:
    return any(one in sizes.kept for one in ([value] if isinstance(value, int) else value))


def _is_unlikely(name: str) -> bool:
    return _UNLIKELY.search(name) is not None


def _is_sizes(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return bool(value) and all(type(one) is int for one in value)
    return type(value) is int


def _replaced(value: Value, sizes: _Sizes) -> Any:
    """``value`` after the cut; None if it is no size that was written."""
    if isinstance(value, int):
        return sizes.after.get(value)
    # Of several numbers each must be one, but for those that only give a shape its place.
    known = {**sizes.after, 1: 1, -1: -1}
    changes = any(one in sizes.after for one in value) and all(one in known for one in value)
    return type(value)(known[one] for one in value) if changes else None
