"""Operations that multiply activations with a weight, all in one form: a matrix times the inputs of each position.

A position is one row of what a linear layer takes, or one place of one image that a convolution puts out. Its inputs
are the ``kernel * in / groups`` values that its outputs are weighted sums of, for each group of channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverloadPacket

from compress.reconstruction.passes import Operation

aten = torch.ops.aten

Kind = Literal["linear", "matmul", "convolution", "transposed"]


class _Roles(NamedTuple):
    """Which arguments are what."""

    kind: Kind
    x: str
    weight: str
    bias: str | None = None


_CONVOLUTION = _Roles("convolution", "input", "weight", "bias")
_TRANSPOSED = _Roles("transposed", "input", "weight", "bias")
_ROLES: Mapping[OpOverloadPacket, _Roles] = {
    aten.linear: _Roles("linear", "input", "weight", "bias"),
    aten.matmul: _Roles("matmul", "self", "other"),
    aten.mm: _Roles("matmul", "self", "mat2"),
    aten.addmm: _Roles("matmul", "mat1", "mat2", "self"),
    aten.conv1d: _CONVOLUTION,
    aten.conv2d: _CONVOLUTION,
    aten.conv3d: _CONVOLUTION,
    aten.conv_transpose1d: _TRANSPOSED,
    aten.conv_transpose2d: _TRANSPOSED,
    aten.conv_transpose3d: _TRANSPOSED,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Product:
    """One product of activations with a weight.

    Attributes:
        operation: what it was read off.
        kind: how the weight is laid out: ``[out, in]``, ``[in, out]``, ``[out, in / groups, *kernel]`` or
            ``[in, out / groups, *kernel]``.
        x: the activations, as the operation takes them.
        weight: as the operation takes it; it may be a view of a parameter.
        bias: ``[out]``, None without one.
        groups: of channels; 1 but for grouped convolutions.
        stride, padding, dilation: one number for each spatial dimension.
    """

    operation: Operation
    kind: Kind
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    groups: int = 1
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()

    @property
    def out_dim(self) -> int:
        """The dimension of the weight that runs over outputs."""
        return 1 if self.kind in ("matmul", "transposed") else 0

    @property
    def in_dim(self) -> int:
        """The dimension of the weight that runs over inputs."""
        return 1 - self.out_dim

    @property
    def num_outputs(self) -> int:
        """How many there are at each position."""
        return self.weight.shape[self.out_dim] * (self.groups if self.kind == "transposed" else 1)

    def matrix(self, weight: Tensor) -> Tensor:
        """``[groups, out / groups, kernel * in / groups]`` of a tensor laid out as the weight is."""
        if self.kind == "linear":
            return weight[None]
        if self.kind == "matmul":
            return weight.t()[None]
        split = torch.unflatten(weight.flatten(2), 0, (self.groups, -1))
        order = (0, 2, 3, 1) if self.kind == "transposed" else (0, 1, 3, 2)
        return split.permute(order).flatten(2)

    def unmatrix(self, matrix: Tensor) -> Tensor:
        """The inverse of :meth:`matrix`."""
        if self.kind == "linear":
            return matrix[0]
        if self.kind == "matmul":
            return matrix[0].t()
        kernel = self.weight.shape[2:]
        split = torch.unflatten(matrix, 2, (math.prod(kernel), -1))
        order = (0, 3, 1, 2) if self.kind == "transposed" else (0, 1, 3, 2)
        return torch.unflatten(split.permute(order).flatten(0, 1), 2, kernel)

    def outputs_at(self, y: Tensor, positions: Tensor) -> Tensor:
        """``[n, out]``: what of the operation's output ``y`` lies at ``positions: [n]``."""
        if not self.padding:
            return y.reshape(-1, y.shape[-1])[positions]
        y = self._batched(y).flatten(2)
        return y[positions // y.shape[2], :, positions % y.shape[2]]

    def inputs_at(self, y: Tensor, positions: Tensor) -> Tensor:
        """``[groups, n, kernel * in / groups]``: what the outputs at ``positions: [n]`` of ``y`` are sums of."""
        if not self.padding:
            return self.x.reshape(-1, self.x.shape[-1])[positions][None]
        x, size = self._batched(self.x), self._batched(y).shape[2:]
        image, place = positions // math.prod(size), positions % math.prod(size)
        where, exists = self._sources(torch.stack(torch.unravel_index(place, size), dim=-1), x.shape[2:])
        rows = x.movedim(1, -1).reshape(-1, x.shape[1])
        values = rows[image[:, None] * math.prod(x.shape[2:]) + where] * exists[..., None]
        return torch.unflatten(values, 2, (self.groups, -1)).permute(2, 0, 1, 3).flatten(2)

    def num_positions(self, y: Tensor) -> int:
        """How many positions the output ``y`` has."""
        return y.numel() // self.num_outputs

    def _batched(self, tensor: Tensor) -> Tensor:
        return tensor if tensor.ndim == self.weight.ndim else tensor[None]

    def _sources(self, place: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Where in the input each value comes from, for ``place: [n, spatial]`` of the output.

        Returns:
            flat places and whether they are within the input, both ``[n, kernel]``.
        """

        def numbers(values: Sequence[int]) -> Tensor:
            return torch.tensor(values, device=place.device)

        kernel = self.weight.shape[2:]
        offsets = torch.stack(torch.unravel_index(torch.arange(math.prod(kernel)), kernel), dim=-1).to(place.device)
        moved = offsets * numbers(self.dilation) - numbers(self.padding)
        if self.kind == "transposed":
            scaled = place[:, None] - moved
            source = scaled.div(numbers(self.stride), rounding_mode="floor")
            on_grid = (scaled == source * numbers(self.stride)).all(-1)
        else:
            source = place[:, None] * numbers(self.stride) + moved
            on_grid = torch.ones_like(source[..., 0], dtype=torch.bool)
        exists = on_grid & ((source >= 0) & (source < numbers(size))).all(-1)
        steps = [math.prod(size[dim + 1 :]) for dim in range(len(size))]
        return (source * numbers(steps)).sum(-1).where(exists, 0), exists


def product_of(operation: Operation, owns: Callable[[Tensor], bool]) -> Product | None:
    """``operation`` as a product with a weight that the model ``owns``; None if it is none."""
    roles = _ROLES.get(operation.function.overloadpacket)
    if roles is None:
        return None
    given = _named(operation)
    weight: Tensor = given[roles.weight]
    matrix = roles.kind in ("linear", "matmul")
    if not owns(weight) or not weight.is_floating_point() or (matrix and weight.ndim != 2):  # noqa: PLR2004
        return None
    if given.get("alpha", 1) != 1 or given.get("beta", 1) != 1:
        return None
    bias = None if roles.bias is None else given[roles.bias]
    # What a product is added to need not be a bias.
    is_bias = isinstance(bias, Tensor) and bias.ndim == 1 and owns(bias)
    product = Product(
        operation=operation, kind=roles.kind, x=given[roles.x], weight=weight, bias=bias if is_bias else None
    )
    return product if matrix else _with_geometry(product, given)


def narrowed(product: Product, rows: int, columns: int) -> Callable[[], Any]:
    """A call of the same operation on the first channels alone, with a weight ``[rows, columns, ...]`` of its own.

    Args:
        product: not yet done with its activations.
        rows, columns: how much of dimensions 0 and 1 of the weight is left; of the rows of grouped convolutions as
            many as fall into equal parts.
    """
    roles, weight, groups = _ROLES[product.operation.function.overloadpacket], product.weight, product.groups
    if groups > 1 and groups == len(weight):
        groups = rows
    else:
        rows = max(groups, rows // groups * groups)
    # Dimension 1 of a grouped convolution's weight is that of one group.
    sizes = (rows, columns * groups)
    ins, outs = sizes[product.in_dim], sizes[product.out_dim]
    given = _named(product.operation)
    given[roles.weight] = weight[:rows, :columns].clone()
    channels_last = product.x.ndim == 4 and product.x.is_contiguous(memory_format=torch.channels_last)  # noqa: PLR2004
    x = product.x.narrow(product.x.ndim - max(1, weight.ndim - 1) if product.padding else -1, 0, ins)
    given[roles.x] = x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    if roles.bias is not None and isinstance(given[roles.bias], Tensor):
        given[roles.bias] = given[roles.bias][..., :outs].clone()
    if "groups" in given:
        given["groups"] = groups
    return partial(product.operation.function, **given)


def _with_geometry(product: Product, given: Mapping[str, Any]) -> Product:
    kernel = product.weight.shape[2:]

    def each(name: str) -> tuple[int, ...]:
        values = given[name]
        return tuple(values) * len(kernel) if len(values) == 1 else tuple(values)

    dilation, padding = each("dilation"), given["padding"]
    if padding == "same":
        around = tuple(step * (size - 1) // 2 for step, size in zip(dilation, kernel, strict=True))
    else:
        around = (0,) * len(kernel) if padding == "valid" else each("padding")
    return Product(
        operation=product.operation,
        kind=product.kind,
        x=product.x,
        weight=product.weight,
        bias=product.bias,
        groups=given["groups"],
        stride=each("stride"),
        padding=around,
        dilation=dilation,
    )


def _named(operation: Operation) -> dict[str, Any]:
    """The operation's arguments by name, defaults too."""
    given = dict(operation.kwargs)
    for number, argument in enumerate(operation.function._schema.arguments):
        if number < len(operation.args):
            given[argument.name] = operation.args[number]
        elif argument.name not in given:
            given[argument.name] = argument.default_value
    return given
