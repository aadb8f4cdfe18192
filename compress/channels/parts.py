"""Axes in parts: heads of an attention, groups of a shuffle.

Their ids differ along several dimensions, of which one shrinks; the others count parts, each with channels of its own
along the one. An operation that treats all parts alike ties position ``i`` of each to position ``i`` of the others.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from compress.channels.labels import Axis, Ids, Labels, Ledger


def joined(ledger: Ledger, axis: Axis, dims: Collection[int] | None = None) -> Axis:
    """``axis`` without the parts along ``dims`` (all, if None): the same positions of those are tied."""
    gone = [at for at, dim in enumerate(axis.parts) if dims is None or dim in dims]
    if not gone:
        return axis
    parts = tuple(dim for at, dim in enumerate(axis.parts) if at not in gone)
    rows = np.moveaxis(axis.ids, gone, range(len(gone)))
    rows = rows.reshape(math.prod(rows.shape[: len(gone)]), *rows.shape[len(gone) :])
    return Axis(tied_rows(ledger, rows), axis.zero, parts)


def tied_rows(ledger: Ledger, rows: Ids) -> Ids:
    """One row for ``rows: [n, ...]``, after tying all of them."""
    if len(rows) > 1 and not (rows == rows[:1]).all():
        ledger.tie(Axis(np.broadcast_to(rows[:1], rows[1:].shape), zero=True), Axis(rows[1:], zero=True))
    merged: Ids = rows.max(axis=0)
    return merged


def flat(ledger: Ledger, labels: Labels) -> Labels:
    """``labels`` without parts."""
    if not any(axis.parts for axis in labels.values()):
        return labels
    return {dim: joined(ledger, axis) for dim, axis in labels.items()}


def apart_from(ledger: Ledger, labels: Labels, dims: Collection[int]) -> Labels:
    """``labels`` without parts along ``dims``."""
    if not any(axis.parts for axis in labels.values()):
        return labels
    return {dim: joined(ledger, axis, dims) for dim, axis in labels.items()}


def alike(ledger: Ledger, axes: Sequence[Axis | None]) -> Sequence[Axis | None]:
    """``axes`` that can be met position by position: all in the same parts, or of none."""
    if len({axis.parts for axis in axes if axis is not None and axis.parts}) < 2:  # noqa: PLR2004 - all the same
        return axes
    return [None if axis is None else joined(ledger, axis) for axis in axes]


def picked(labels: Labels, dim: int, index: Any) -> dict[int, Axis]:
    """``labels`` without the axis ``dim``, where of the parts along it only ``index`` (a number or slice) is left."""
    result = {}
    for other, axis in labels.items():
        if other != dim:
            result[other] = _part(axis, axis.parts.index(dim), index) if dim in axis.parts else axis
    return result


def _part(axis: Axis, at: int, index: Any) -> Axis:
    ids = axis.ids[(slice(None),) * at + (index,)]
    if ids.ndim == axis.ids.ndim and ids.shape[at] > 1:
        return axis._replace(ids=ids)
    # A single part is none.
    left = ids if ids.ndim < axis.ids.ndim else ids.squeeze(at)
    return Axis(left, axis.zero, axis.parts[:at] + axis.parts[at + 1 :])


def shifted(axis: Axis, by: int) -> Axis:
    """``axis`` in a tensor of ``by`` more dimensions in front."""
    return axis._replace(parts=tuple(dim + by for dim in axis.parts)) if by and axis.parts else axis


def fits(labels: Mapping[int, Axis], shape: Sequence[int]) -> bool:
    """Whether ``labels`` can belong to a tensor of ``shape``."""
    return all(
        dim < len(shape) and axis.ids.shape == (*(shape[part] for part in axis.parts), shape[dim])
        for dim, axis in labels.items()
    )
