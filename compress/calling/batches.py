"""Inputs as a batch: how many there are, a part of them, and a call that takes so many at once given any number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from compress.calling.inputs import Inputs


def batch_size(inputs: Inputs) -> int:
    """How many inputs there are: the size that most tensors have in their first dimension; 1 where none has any."""
    sizes = Counter(len(tensor) for tensor in inputs.tensors if tensor.ndim)
    return sizes.most_common(1)[0][0] if sizes else 1


def repeated(inputs: Inputs, count: int) -> Inputs:
    """``count`` inputs: those given, over and over."""
    size = batch_size(inputs)
    return _batchwise(inputs, lambda tensor: torch.cat([tensor] * -(-count // size))[:count])


def first_of(inputs: Inputs, count: int) -> Inputs:
    """The first ``count`` of the inputs, or all."""
    return piece_of(inputs, 0, count)


def piece_of(inputs: Inputs, start: int, end: int) -> Inputs:
    """The inputs from the place ``start`` up to ``end``, as many as there are."""
    return _batchwise(inputs, lambda tensor: tensor[start:end])


def in_batches(call: Callable[..., Any], inputs: Inputs, batch: int) -> Any:
    """What a call that takes ``batch`` inputs at once makes of any number of them.

    The last ones are filled up with the first. Outputs may be nested; of those whose first dimension is not that of the
    inputs, the first call's are returned.
    """
    size = batch_size(inputs)
    if size == batch:
        return inputs.call(call)
    pieces = []
    for start in range(0, size, batch):
        piece = repeated(piece_of(inputs, start, start + batch), batch)
        leaves, nesting = tree_flatten(piece.call(call))
        pieces.append(leaves)

    def joined(leaves: tuple[Any, ...]) -> Any:
        first = leaves[0]
        is_of_inputs = isinstance(first, Tensor) and first.ndim and len(first) == batch
        return torch.cat(leaves)[:size] if is_of_inputs else first

    return tree_unflatten([joined(leaves) for leaves in zip(*pieces, strict=True)], nesting)


def _batchwise(inputs: Inputs, change: Any) -> Inputs:
    """Change the tensors that have one entry for each input."""
    size = batch_size(inputs)

    def changed(tensor: Tensor) -> Tensor:
        result: Tensor = change(tensor) if tensor.ndim and len(tensor) == size else tensor
        return result

    args, kwargs = tree_map_only(Tensor, changed, (inputs.args, dict(inputs.kwargs)))
    return Inputs(args=args, kwargs=kwargs)
