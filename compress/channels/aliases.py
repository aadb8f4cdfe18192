"""Writes through views: what a write to one tensor means for the labels of another with the same memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from torch import Tensor

from compress.channels.labels import FIXED, WILD, Axis, Labels, Ledger
from compress.channels.parts import flat


class Write(NamedTuple):
    """A tensor written in place, with its labels before and after."""

    tensor: Tensor
    old: Labels
    new: Labels


def after_write(ledger: Ledger, other: Tensor, labels: Labels, write: Write) -> Labels:
    """The labels of ``other``, which shares its memory with the tensor written."""
    if _geometry(other) == _geometry(write.tensor):
        return write.new
    zero = all(axis.zero for axis in write.new.values())
    write = write._replace(old=flat(ledger, write.old), new=flat(ledger, write.new))
    labels = {dim: Axis(axis.ids, axis.zero and zero) for dim, axis in flat(ledger, labels).items()}
    gained = {dim: axis for dim, axis in write.new.items() if not _same(axis, write.old.get(dim))}
    starts = _slices_of(write.tensor, other)
    if starts and gained:
        return _overlay(ledger, other, labels, write.new, starts)
    for axis in gained.values():
        ledger.freeze(axis, "written through a view")
    # A tensor that was the same everywhere no longer is.
    return {dim: axis for dim, axis in labels.items() if not (axis.ids == WILD).any()}


def _geometry(tensor: Tensor) -> tuple[object, ...]:
    return tuple(tensor.shape), tensor.stride(), tensor.storage_offset()


def _same(axis: Axis, old: Axis | None) -> bool:
    return old is not None and np.array_equal(axis.ids, old.ids)


def _slices_of(view: Tensor, base: Tensor) -> Mapping[int, int]:
    """The dimensions along which ``view`` is a part of ``base``, and where it starts; none for other views."""
    if view.ndim != base.ndim or view.stride() != base.stride():
        return {}
    starts: dict[int, int] = {}
    rest = int(view.storage_offset() - base.storage_offset())
    shorter = [dim for dim in range(base.ndim) if view.shape[dim] < base.shape[dim]]
    for dim in sorted(shorter, key=base.stride, reverse=True):
        starts[dim], rest = divmod(rest, base.stride(dim)) if base.stride(dim) else (0, rest)
        if not 0 <= starts[dim] <= base.shape[dim] - view.shape[dim]:
            return {}
    return {} if rest else starts


def _overlay(ledger: Ledger, base: Tensor, labels: Labels, written: Labels, starts: Mapping[int, int]) -> Labels:
    result: dict[int, Axis] = {}
    for dim in {*labels, *written}:
        old, new = labels.get(dim), written.get(dim)
        if dim in starts and new is not None:
            ids = np.full(base.shape[dim], FIXED) if old is None else old.ids.copy()
            ids[starts[dim] : starts[dim] + len(new.ids)] = new.ids
            result[dim] = Axis(ids, new.zero and (old is None or old.zero))
        elif old is None or new is None:
            ledger.tie(old, new)
        else:
            result[dim] = Axis(ledger.merge(old, new), old.zero and new.zero)
    return result
