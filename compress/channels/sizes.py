"""Inputs of another batch and image or sequence size than the ones given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from compress.calling.inputs import Inputs

_STRIDE = 32  # by how much a network may shrink an image, if it is to be divided evenly


BATCH, SIZE = "batch size", "image or sequence size"


class Elsewhere(NamedTuple):
    """Other inputs.

    Attributes:
        inputs: made of the values of the given ones.
        changed: in which of BATCH and SIZE they differ.
    """

    inputs: Inputs
    changed: frozenset[str]


def sizes_of(example: Inputs) -> tuple[str, ...]:
    """Which of BATCH and SIZE inputs have: a matrix of numbers holds features, one of tokens a sequence."""
    tensors = [tensor for tensor in example.tensors if tensor.ndim]
    sized = any(tensor.ndim > 2 or (tensor.ndim > 1 and not tensor.is_floating_point()) for tensor in tensors)  # noqa: PLR2004
    return (*((BATCH,) if tensors else ()), *((SIZE,) if sized else ()))


def other_inputs(example: Inputs) -> Iterator[Elsewhere]:
    """Inputs that a network which runs on ``example`` may run on too, those that tell most first.

    Which dimension is space is not to be seen, so there are several: of images the ones behind the channels, of other
    tensors of three dimensions the second, then the third, of matrices the second.
    """
    tensors = [tensor for tensor in example.tensors if tensor.ndim]
    if not tensors:
        return
    batch = tensors[0].shape[0]
    batches = {0: {batch: batch + 1 if batch < 3 else batch - 1}}  # noqa: PLR2004 - rather fewer than more, but never 1
    halved, near = (
        [{dim: {size: change(size) for size in sizes} for dim, sizes in dims.items()} for dims in _spaces(tensors)]
        for change in (_halved, _next)
    )
    spaces = [*halved, _narrower(tensors), *near]
    spaces = [one for at, one in enumerate(spaces) if any(one.values()) and one not in spaces[:at]]
    for space in spaces:
        yield Elsewhere(inputs=_resized(example, {**batches, **space}), changed=frozenset({BATCH, SIZE}))
    yield Elsewhere(inputs=_resized(example, batches), changed=frozenset({BATCH}))
    for space in spaces:
        yield Elsewhere(inputs=_resized(example, space), changed=frozenset({SIZE}))


def _spaces(tensors: list[Tensor]) -> Iterator[Mapping[int, set[int]]]:
    """Guesses which dimensions are space: their sizes, by the first dimension to look for each in."""
    for first, behind in ((2, 1), (-2, 2)):
        found: dict[int, set[int]] = {}
        for tensor in tensors:
            images = tensor.ndim > 3  # noqa: PLR2004 - batch, channels, height and width
            dims = range(tensor.ndim)[first:] if images else range(tensor.ndim)[behind : behind + 1]
            for dim in dims:
                if tensor.shape[dim] > 1:
                    found.setdefault(2 if images else 1, set()).add(tensor.shape[dim])
        yield found


def _narrower(tensors: list[Tensor]) -> dict[int, dict[int, int]]:
    """Half as wide, as high as before: for images too small to be halved, before larger ones, which take longer."""
    widths = {tensor.shape[-1] for tensor in tensors if tensor.ndim > 3}  # noqa: PLR2004 - batch, channels, space
    return {-1: {size: _halved(size) for size in widths if 1 < size < _next(size)}} if widths else {}


def _step(size: int) -> int:
    """The largest power of two up to 32 that divides ``size``."""
    return min(size & -size, _STRIDE)


def _halved(size: int) -> int:
    step = _step(size)
    return size // 2 if step == size else -(-size // (2 * step)) * step


def _next(size: int) -> int:
    step = _step(size)
    return size - step if size >= 4 * step else size + step


def _resized(example: Inputs, changes: Mapping[int, Mapping[int, int]]) -> Inputs:
    """``example`` whose dimensions from ``first`` on (of 0 that one alone) have other sizes, values repeated."""

    def resize(tensor: Tensor) -> Tensor:
        for first, sizes in changes.items():
            for dim in range(tensor.ndim)[first:] if first else range(tensor.ndim)[:1]:
                size = tensor.shape[dim]
                if size in sizes:
                    index = torch.arange(sizes[size], device=tensor.device) % size
                    tensor = tensor.index_select(dim, index)
        return tensor

    args, kwargs = tree_map_only(Tensor, resize, (example.args, dict(example.kwargs)))
    return Inputs(args=args, kwargs=kwargs)
