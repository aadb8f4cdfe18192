"""Cutting slices out of a model's tensors, and telling its modules their new widths."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from compress.channels.labels import Ids
from compress.modules.copying import copied
from compress.pruning.plan import Member
from compress.pruning.repairs import Repair

_NO_SCALES: Mapping[Member, npt.NDArray[np.float64]] = MappingProxyType({})


def cut(
    model: nn.Module,
    kept: Mapping[Member, Ids],
    repairs: Iterable[Repair] = (),
    scales: Mapping[Member, npt.NDArray[np.float64]] = _NO_SCALES,
) -> nn.Module:
    """A copy of ``model`` in which each dimension named by ``kept`` has only the indices given there.

    Args:
        model: stays as it is.
        kept: indices, by dimension.
        repairs: attributes to change in the copy.
        scales: by dimension, what its kept slices are multiplied by: ``[kept]``.
    """
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    by_tensor: dict[str, dict[int, Ids]] = {member.tensor: {} for member in scales}
    for member, ids in kept.items():
        by_tensor.setdefault(member.tensor, {})[member.dim] = ids
    smaller = {name: _smaller(state[name], dims) for name, dims in by_tensor.items()}
    with torch.no_grad():
        for member, factors in scales.items():
            tensor = smaller[member.tensor]
            shape = [-1 if dim == member.dim else 1 for dim in range(tensor.ndim)]
            tensor.mul_(torch.from_numpy(factors).to(tensor).reshape(shape))
    result = _with(model, {id(state[name]): tensor for name, tensor in smaller.items()}, repairs)
    for module in result.modules():
        if isinstance(module, nn.RNNBase):
            # On CUDA its tensors are to be one piece of memory; elsewhere this does nothing.
            module.flatten_parameters()
    return result


def kept_of(name: str, tensor: Tensor, kept: Mapping[Member, Ids]) -> Tensor:
    """What a cut by ``kept`` leaves of ``tensor``, which is laid out as the parameter or buffer ``name``: a copy."""
    return _smaller(tensor, {member.dim: ids for member, ids in kept.items() if member.tensor == name})


def outline(model: nn.Module, kept: Mapping[Member, Ids], repairs: Iterable[Repair]) -> nn.Module:
    """What :func:`cut` makes, but for the values of parameters: some of the uncut ones, and in their memory.

    Enough to see whether it runs, and what goes where. It must not be written to.
    """
    state: dict[str, Tensor] = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    shapes = {member.tensor: list(state[member.tensor].shape) for member in kept}
    for member, ids in kept.items():
        shapes[member.tensor][member.dim] = ids.shape[-1]
    stand_ins: dict[int, Tensor] = {id(parameter): parameter for parameter in model.parameters()}
    stand_ins |= {id(state[name]): _first_elements(state[name], shape) for name, shape in shapes.items()}
    return _with(model, stand_ins, repairs)


def zeroed(model: nn.Module, kept: Mapping[Member, Ids]) -> nn.Module:
    """A copy of ``model`` at its full size, with zeros in place of the slices of parameters that :func:`cut` removes.

    It computes what the cut network does, unless a norm takes its statistics over the channels that are gone.
    """
    state = dict(model.named_parameters())
    zeros = {
        name: nn.Parameter(tensor.detach().clone(), requires_grad=tensor.requires_grad)
        for name, tensor in state.items()
        if any(member.tensor == name for member in kept)
    }
    for member, ids in kept.items():
        if member.tensor not in zeros:
            continue
        parts = zeros[member.tensor].detach().chunk(len(ids) if ids.ndim > 1 else 1)
        for part, some in zip(parts, np.atleast_2d(ids), strict=True):
            gone = np.setdiff1d(np.arange(part.shape[member.dim]), some)
            part.index_fill_(member.dim, torch.from_numpy(gone).to(part.device), 0.0)
    return copied(
        model,
        {id(tensor): tensor for tensor in model.parameters()}
        | {id(state[name]): tensor for name, tensor in zeros.items()},
    )


def _first_elements(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    flat = tensor.detach().reshape(-1)[: math.prod(shape)].view(*shape)
    # Whether a weight learns has a say in which operations a product of matrices comes down to.
    return nn.Parameter(flat, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else flat.clone()


def _with(model: nn.Module, tensors: Mapping[int, Tensor], repairs: Iterable[Repair]) -> nn.Module:
    """A copy of ``model`` with other tensors, by the identity of those they stand for."""
    # The big tensors are never copied, and one shared by several modules stays shared.
    smaller = copied(model, tensors)
    new = {id(tensor) for tensor in tensors.values()}
    for module in smaller.modules():
        if isinstance(module, nn.Transformer) or any(id(tensor) in new for tensor in _tensors(module)):
            _recompute_weights(module)
            _tell_width(module)
    for repair in repairs:
        setattr(smaller.get_submodule(repair.module), repair.attribute, repair.after)
    return smaller


def _smaller(tensor: Tensor, dims: Mapping[int, Ids]) -> Tensor:
    result = tensor.detach() if dims else tensor.detach().clone()
    # A matrix of indices counts in the parts of dimension 0 as it was, so it goes first.
    for dim, kept in sorted(dims.items(), key=lambda item: -item[1].ndim):
        if kept.ndim == 1:
            result = result.index_select(dim, torch.from_numpy(kept).to(result.device))
        else:
            result = _take_by_part(result, kept)
    if tensor.ndim == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last):  # noqa: PLR2004
        result = result.contiguous(memory_format=torch.channels_last)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(result, requires_grad=tensor.requires_grad)
    return result


def _take_by_part(tensor: Tensor, kept: Ids) -> Tensor:
    """``[parts * rows, columns, ...] -> [parts * rows, kept, ...]``, each part with columns of its own."""
    pieces = [
        piece.index_select(1, torch.from_numpy(np.ascontiguousarray(columns)).to(tensor.device))
        for piece, columns in zip(tensor.chunk(len(kept)), kept, strict=True)
    ]
    return torch.cat(pieces)


@torch.no_grad()
def _recompute_weights(module: nn.Module) -> None:
    """Weights that the hooks of torch's older weight and spectral norms compute before each forward pass."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            setattr(module, hook.name, hook.compute_weight(module))
        elif isinstance(hook, SpectralNorm):
            setattr(module, hook.name, hook.compute_weight(module, do_power_iteration=False))


def _tell_width(module: nn.Module) -> None:
    for kind, tell in _WIDTHS:
        if isinstance(module, kind):
            tell(module)


def _conv(module: _ConvNd) -> None:
    first, second = module.weight.shape[:2]
    ins, outs = (first, second) if isinstance(module, _ConvTransposeNd) else (second, first)
    if module.groups == 1:
        module.in_channels, module.out_channels = ins, outs
    elif module.groups == module.in_channels:
        # Depthwise: a group leaves with its channel.
        per_group = module.out_channels // module.groups
        module.groups = first if isinstance(module, _ConvTransposeNd) else first // per_group
        module.in_channels, module.out_channels = module.groups, module.groups * per_group
    elif isinstance(module, _ConvTransposeNd):
        module.in_channels, module.out_channels = ins, outs * module.groups
    else:
        module.in_channels, module.out_channels = ins * module.groups, outs


def _linear(module: nn.Linear) -> None:
    module.out_features, module.in_features = module.weight.shape


def _norm(module: _NormBase) -> None:
    module.num_features = next(tensor.shape[0] for tensor in _tensors(module) if tensor.ndim)


def _layer_norm(module: nn.LayerNorm | nn.RMSNorm) -> None:
    module.normalized_shape = tuple(module.weight.shape)


def _group_norm(module: nn.GroupNorm) -> None:
    module.num_channels = module.weight.shape[0]


def _attention(module: nn.MultiheadAttention) -> None:
    # What the number of heads and their width are now is for repairs to say.
    if module.in_proj_weight is None:
        module.embed_dim, module.kdim, module.vdim = (
            weight.shape[1] for weight in (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
        )
    else:
        module.embed_dim = module.kdim = module.vdim = module.in_proj_weight.shape[1]


def _transformer(module: nn.Transformer) -> None:
    # It has no tensors of its own, and compares its inputs' width with its first layers'.
    layers = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
    first = next((one for one in module.modules() if isinstance(one, layers)), None)
    if first is not None:
        module.d_model = first.linear1.weight.shape[1]


def _prelu(module: nn.PReLU) -> None:
    module.num_parameters = module.weight.shape[0]


def _embedding(module: nn.Embedding) -> None:
    module.embedding_dim = module.weight.shape[1]


def _recurrent(module: nn.RNNBase) -> None:
    _, module.input_size = getattr(module, "weight_ih_l0").shape  # noqa: B009 - no attribute that a checker knows
    _, module.hidden_size = getattr(module, "weight_hh_l0").shape  # noqa: B009
    if module.proj_size:
        module.proj_size, module.hidden_size = getattr(module, "weight_hr_l0").shape  # noqa: B009


def _recurrent_cell(module: nn.RNNCellBase) -> None:
    module.input_size, module.hidden_size = module.weight_ih.shape[1], module.weight_hh.shape[1]


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Its own, and those that its own are computed from."""
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)
    if isinstance(parametrizations := getattr(module, "parametrizations", None), nn.ModuleDict):
        yield from parametrizations.parameters()


# Widths that modules keep beside their tensors, and read in forward or show in their repr.
_WIDTHS: Sequence[tuple[type[nn.Module], Callable[..., None]]] = (
    (_ConvNd, _conv),
    (nn.Linear, _linear),
    (_NormBase, _norm),
    (nn.LayerNorm, _layer_norm),
    (nn.RMSNorm, _layer_norm),
    (nn.GroupNorm, _group_norm),
    (nn.Transformer, _transformer),
    (nn.PReLU, _prelu),
    (nn.MultiheadAttention, _attention),
    (nn.Embedding, _embedding),
    (nn.RNNBase, _recurrent),
    (nn.RNNCellBase, _recurrent_cell),
)
