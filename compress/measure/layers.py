"""Layer by layer: what was removed, zeroed, factorized or stored in fewer bits, read off the two models' tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, fx, nn

from compress.exported.file_model import FileModel
from compress.modules.copying import copied
from compress.modules.masks import make_permanent_
from compress.results import LayerChange

_MATRIX = 2  # dimensions that a weight has at least; a bias or a statistic has fewer


def layer_changes(compressed: nn.Module, dense: nn.Module) -> tuple[LayerChange, ...]:
    """What became of each layer of ``dense`` that holds parameters, in its order.

    No technique is known here: tensors of ``compressed`` belong to the layer whose path their name begins with,
    whatever stands there now. Where a model was rewritten so that names are lost, its weights are taken for those of
    the layers that have none, in order, if that can be. What still belongs to none comes last, under no name.
    Of a file that another runtime runs nothing is known: there is no layer then.
    """
    if isinstance(compressed, FileModel):
        return ()
    layers = {name: module for name, module in dense.named_modules() if list(module.parameters(recurse=False))}
    before = {name: [*_own_tensors(module)] for name, module in layers.items()}
    now, homeless = _by_layer(_state(make_permanent_(copied(compressed))), layers)
    _house_weights(now, homeless, {name: before[name] for name in layers if not _has_matrix(now[name])})
    changes = [_change(name, type(layer).__name__, before[name], now[name]) for name, layer in layers.items()]
    if homeless:
        changes.append(_change("", "", [], homeless))
    return tuple(changes)


def _own_tensors(module: nn.Module) -> Iterable[Tensor]:
    """Parameters and buffers of the module alone, without its children's."""
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name; what is shared, once; of a graph, by the name within it."""
    graphs = [name for name, module in model.named_modules() if name and isinstance(module, fx.GraphModule)]
    state: dict[str, Tensor] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        # The path of the graph in its wrapper is no part of a layer's path in the dense model.
        inside = next((path for path in graphs if name.startswith(f"{path}.")), "")
        state[name.removeprefix(f"{inside}.") if inside else name] = tensor
    return state


def _by_layer(
    state: Mapping[str, Tensor], layers: Mapping[str, nn.Module]
) -> tuple[dict[str, list[Tensor]], list[Tensor]]:
    """The tensors of each layer, and those of none."""
    housed: dict[str, list[Tensor]] = {name: [] for name in layers}
    homeless: list[Tensor] = []
    for name, tensor in state.items():
        # The nearest layer above it: a layer may hold layers of its own.
        path = name.rpartition(".")[0]
        while path not in housed and path:
            path = path.rpartition(".")[0]
        housed.get(path, homeless).append(tensor)
    return housed, homeless


def _house_weights(
    housed: dict[str, list[Tensor]], homeless: list[Tensor], empty: Mapping[str, Sequence[Tensor]]
) -> None:
    """Give each layer that has lost its weight one of ``homeless``, in order, if as many are left and all may be it."""
    lost = {name: _largest(tensors) for name, tensors in empty.items() if _has_matrix(tensors)}
    weights = [tensor for tensor in homeless if tensor.ndim >= _MATRIX]
    if len(weights) != len(lost) or not all(map(_may_become, lost.values(), weights)):
        return
    for name, weight in zip(lost, weights, strict=True):
        housed[name].append(weight)
    homeless[:] = [tensor for tensor in homeless if tensor.ndim < _MATRIX]


def _may_become(before: Tensor | None, now: Tensor) -> bool:
    """Whether compression could have made the one of the other: it removes slices, and adds none."""
    if before is None or before.ndim != now.ndim:
        return False
    return all(left <= was for was, left in zip(before.shape, now.shape, strict=True))


def _has_matrix(tensors: Sequence[Tensor]) -> bool:
    return any(tensor.ndim >= _MATRIX for tensor in tensors)


def _change(name: str, kind: str, before: Sequence[Tensor], now: Sequence[Tensor]) -> LayerChange:
    dense_largest, largest = _largest(before), _largest(now)
    matrices = tuple(tuple(tensor.shape) for tensor in now if tensor.ndim >= _MATRIX)
    return LayerChange(
        name=name,
        kind=kind,
        dense_shape=() if dense_largest is None else tuple(dense_largest.shape),
        shapes=matrices or (() if largest is None else (tuple(largest.shape),)),
        dense_elements=_elements(before),
        elements=_elements(now),
        dense_bytes=_bytes(before),
        num_bytes=_bytes(now),
        zeros=sum(tensor.numel() - int(torch.count_nonzero(tensor)) for tensor in now if tensor.ndim >= _MATRIX),
        dense_dtype=_dtype(dense_largest),
        dtype=_dtype(largest),
    )


def _largest(tensors: Sequence[Tensor]) -> Tensor | None:
    return max(tensors, key=lambda tensor: tensor.numel(), default=None)


def _elements(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _dtype(tensor: Tensor | None) -> str:
    return "" if tensor is None else str(tensor.dtype).removeprefix("torch.")
