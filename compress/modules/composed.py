"""The one weight that several layers in a row amount to, for code that reads the weight of a layer they replace.

Most code reads no more of a weight than its type, device or shape: that costs nothing. Where numbers are asked for, the
layers' weights are multiplied, gradients included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.utils._pytree import tree_map_only

from compress.errors import ModelError

# fmt: off
_METADATA = frozenset({
    *(getattr(Tensor, name).__get__ for name in (
        "device", "dtype", "is_cpu", "is_cuda", "is_meta", "is_quantized", "is_sparse", "itemsize", "layout", "nbytes",
        "ndim", "requires_grad", "shape",
    )),
    *(getattr(Tensor, name) for name in (
        "__len__", "dim", "element_size", "get_device", "is_complex", "is_floating_point", "nelement", "numel", "size",
    )),
})
# fmt: on


class ComposedWeight(Tensor):
    """Shape, type and device of a weight whose numbers are only made where they are used, and never written to."""

    compose: Callable[[], Tensor]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer what is asked of the shape or type; make the numbers for everything else."""
        if func in _METADATA:
            return super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]
        name = getattr(func, "__name__", "")
        if name == "__set__" or (name.endswith("_") and not name.endswith("__") and isinstance(args[0], cls)):
            args[0].compose()
            raise ModelError("the weight of a factorized layer is a product: write to the weights of its parts")
        return cls.__torch_dispatch__(func, types, args, kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch calls it on the class
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Make the numbers."""
        args, kwargs = tree_map_only(ComposedWeight, lambda one: one.compose(), (args, kwargs or {}))
        return func(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        """Numbers of its own."""
        return self.compose().detach().clone()


def composed_at_need(compose: Callable[[], Tensor], shape: Sequence[int], like: Tensor) -> ComposedWeight:
    """A weight of ``shape``, of the type and on the device of ``like``, whose numbers ``compose`` makes."""
    weight: ComposedWeight = Tensor._make_wrapper_subclass(
        ComposedWeight, shape, dtype=like.dtype, device=like.device, requires_grad=like.requires_grad
    )
    weight.compose = compose
    return weight


def composed(layers: Sequence[nn.Module]) -> Tensor:
    """``[out, in, *kernel]`` of linear or convolution layers in a row, of which each spatial dimension is one's alone.

    ``[in, out, *kernel]`` where one of them is transposed, as torch stores the weight of such a layer.
    """
    weight = reduce(_multiplied, map(_outputs_first, layers))
    return weight.transpose(0, 1) if _is_transposed(layers) else weight


def composed_shape(layers: Sequence[nn.Module]) -> tuple[int, ...]:
    """The shape of that."""
    shapes = [_outputs_first(layer).shape for layer in layers]
    kernel = (math.prod(sizes) for sizes in zip(*(shape[2:] for shape in shapes), strict=True))
    outs, ins = shapes[-1][0], shapes[0][1]
    return (ins, outs, *kernel) if _is_transposed(layers) else (outs, ins, *kernel)


def _outputs_first(layer: nn.Module) -> Tensor:
    weight = layer.get_parameter("weight")
    return weight.transpose(0, 1) if isinstance(layer, _ConvTransposeNd) else weight


def _is_transposed(layers: Sequence[nn.Module]) -> bool:
    return any(isinstance(layer, _ConvTransposeNd) for layer in layers)


def _multiplied(first: Tensor, then: Tensor) -> Tensor:
    """``first: [r, in, *k]`` and ``then: [out, r, *l]`` to ``[out, in, *(k * l)]``, where of each k and l one is 1."""
    both: Tensor = torch.tensordot(then, first, dims=([1], [0]))
    spatial = first.ndim - 2
    # [out, *l, in, *k] to [out, in, l1, k1, l2, k2, ...]
    pairs = [dim for number in range(spatial) for dim in (1 + number, 2 + spatial + number)]
    kernel = [one * other for one, other in zip(first.shape[2:], then.shape[2:], strict=True)]
    return both.permute(0, 1 + spatial, *pairs).reshape(then.shape[0], first.shape[1], *kernel)
