"""The layers of a chain, made to take exactly the place of the one layer that was decomposed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import skip_init

from compress.lowrank.decompositions import Stage
from compress.lowrank.sites import Layer, Site
from compress.modules.substitute import Substitute, type_name

_POINTWISE: Mapping[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: nn.Conv1d,
    nn.Conv2d: nn.Conv2d,
    nn.Conv3d: nn.Conv3d,
    nn.ConvTranspose1d: nn.Conv1d,
    nn.ConvTranspose2d: nn.Conv2d,
    nn.ConvTranspose3d: nn.Conv3d,
}


def chains(site: Site, stages: Sequence[Stage]) -> dict[str, Substitute]:
    """For each of the site's layers, by name, what takes its place; tied layers share the weights of the chain.

    ``stages`` are in float64, their weights ``[out, in, *kernel]``; the new layers have the old one's type and device.
    """
    weights: dict[tuple[int, bool], nn.Parameter] = {}
    biases: dict[int, nn.Parameter] = {}
    stages = _balanced(stages)
    result = {}
    for name, layer in site.layers.items():
        parts = []
        for number, stage in enumerate(stages):
            last = number == len(stages) - 1
            part = _part(layer, stage, bias=last and layer.bias is not None)
            transposed = isinstance(part, _ConvTransposeNd)
            part.weight = weights.setdefault((number, transposed), _parameter(stage.weight, layer, transposed))
            parts.append(part)
        if layer.bias is not None:
            copied = nn.Parameter(layer.bias.detach().clone(), requires_grad=layer.bias.requires_grad)
            parts[-1].bias = biases.setdefault(id(layer.bias), copied)
        result[name] = Substitute(*parts, replaces=type_name(layer), inputs_first=site.inputs_first).train(
            layer.training
        )
    return result


def _parameter(weight: Tensor, layer: Layer, transposed: bool) -> nn.Parameter:  # noqa: FBT001
    weight = (weight.transpose(0, 1) if transposed else weight).to(layer.weight.dtype)
    old = layer.weight
    last = not old.is_contiguous() and old.ndim == 4 and old.is_contiguous(memory_format=torch.channels_last)  # noqa: PLR2004
    layout = torch.channels_last if last else torch.contiguous_format
    # A clone, for slices of one matrix would keep all of it alive.
    return nn.Parameter(weight.clone(memory_format=layout), requires_grad=old.requires_grad)


def _part(layer: Layer, stage: Stage, *, bias: bool) -> nn.Module:
    """A layer for one stage, its weight still to be set: it does what ``layer`` does along ``stage.dims``."""
    out, ins, *kernel = stage.weight.shape
    device, dtype = layer.weight.device, layer.weight.dtype
    if not isinstance(layer, _ConvNd):
        return skip_init(nn.Linear, ins, out, bias=bias, device=device, dtype=dtype)  # type: ignore[no-untyped-call,no-any-return]
    if not stage.dims:
        pointwise = _POINTWISE[type(layer)]
        return skip_init(pointwise, ins, out, 1, bias=bias, device=device, dtype=dtype)  # type: ignore[no-untyped-call,no-any-return]

    def along(values: Sequence[int], neutral: int) -> tuple[int, ...]:
        return tuple(value if dim in stage.dims else neutral for dim, value in enumerate(values))

    settings = {
        "kernel_size": tuple(kernel),
        "stride": along(layer.stride, 1),
        # "same" and "valid" mean along a kernel of 1 what they should: nothing.
        "padding": layer.padding if isinstance(layer.padding, str) else along(layer.padding, 0),
        "dilation": along(layer.dilation, 1),
        "padding_mode": layer.padding_mode,
    }
    if isinstance(layer, _ConvTransposeNd):
        settings["output_padding"] = along(layer.output_padding, 0)
    return skip_init(type(layer), ins, out, bias=bias, device=device, dtype=dtype, **settings)  # type: ignore[no-untyped-call,no-any-return]


def _balanced(stages: Sequence[Stage]) -> list[Stage]:
    """The same chain, each channel between two layers scaled so that both sides' weights have the same norm.

    Training then moves both alike, and no side's small numbers are rounded away in half precision.
    """
    weights = [stage.weight for stage in stages]
    for i in range(len(weights) - 1):
        before, after = weights[i].flatten(1), weights[i + 1].transpose(0, 1).flatten(1)
        scale = (after.norm(dim=1) / before.norm(dim=1)).sqrt()
        scale = torch.where(scale.isfinite() & (scale > 0), scale, 1.0)
        shape = (-1,) + (1,) * (weights[i].ndim - 1)
        weights[i], weights[i + 1] = weights[i] * scale.view(shape), weights[i + 1] / scale.view(shape).transpose(0, 1)
    return [Stage(weight, stage.dims) for weight, stage in zip(weights, stages, strict=True)]
