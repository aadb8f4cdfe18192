"""Where a network could be factorized: weights of plain linear and convolution layers, and what runs through them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from compress.calling.inputs import tensors_in
from compress.errors import ConfigError, ModelError
from compress.lowrank.config import LowRankConfig
from compress.modules.masks import is_masked
from compress.modules.substitute import Substitute

Layer = nn.Linear | _ConvNd

_PLAIN = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
# It takes its layers' weights and never calls the layers.
_READER = nn.MultiheadAttention


class Pass(NamedTuple):
    """One call of a layer: how many rows of data, and their spatial size before and after; () for a linear layer."""

    rows: int
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Site:
    """A weight, and the layers that use it; more than one where it is tied.

    Attributes:
        layers: by their names.
        passes: every call of one of them on the example inputs.
    """

    layers: Mapping[str, Layer]
    passes: list[Pass] = field(default_factory=list)

    @property
    def layer(self) -> Layer:
        """One of the layers, whose weight is that of all of them."""
        return next(iter(self.layers.values()))

    @property
    def weight(self) -> Tensor:
        """``[out, in, *kernel]`` in float64, whatever the layer's own order and type."""
        weight = self.layer.weight.detach().double()
        return weight.transpose(0, 1) if self.is_transposed or self.inputs_first else weight

    @property
    def is_transposed(self) -> bool:
        """Whether the layer is a transposed convolution."""
        return isinstance(self.layer, _ConvTransposeNd)

    @property
    def inputs_first(self) -> bool:
        """Whether the layer is linear, and its weight ``[in, out]``."""
        return _is_inputs_first(self.layer)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all passes."""
        sizes = (one.before if self.is_transposed else one.after for one in self.passes)
        rows = (one.rows for one in self.passes)
        return self.layer.weight.numel() * sum(row * math.prod(size) for row, size in zip(rows, sizes, strict=True))

    def __str__(self) -> str:
        return f"layer '{next(iter(self.layers))}'"


def find_sites(model: nn.Module, config: LowRankConfig) -> tuple[list[Site], dict[str, str]]:
    """The weights that might be factorized, and for each other linear or convolution layer why it must stay whole.

    Raises:
        ConfigError: if ``only`` or ``ignore`` name no module.
        ModelError: if the model holds no such layer at all, a weight is not finite, or masks are not permanent yet.
    """
    modules = dict(model.named_modules())
    for option, names in (("only", config.only), ("ignore", config.ignore)):
        for name in names:
            if name not in modules:
                raise ConfigError(f"{option} must name modules of the model, got {name!r}")
    users = _users(model)
    whole: dict[str, str] = {}
    layers: dict[nn.Parameter, dict[str, Layer]] = {}
    for name, module in modules.items():
        if not isinstance(module, (nn.Linear, _ConvNd)) and not _is_inputs_first(module):
            continue
        layer = cast("Layer", module)
        reason = _chosen(name, config) or _obstacle(name, layer, modules) or _stranger(layer, users)
        if reason:
            whole[name] = reason
            continue
        if not layer.weight.isfinite().all():
            raise ModelError(f"weights must be finite to be factorized, '{name}.weight' is not")
        layers.setdefault(cast("nn.Parameter", layer.weight), {})[name] = layer
    if not layers and not whole:
        raise ModelError(f"{type(model).__name__} has no linear or convolution layer that could be factorized")
    return [Site(layers=some) for some in layers.values()], whole


def _is_inputs_first(module: nn.Module) -> bool:
    """Whether it is Hugging Face's ``Conv1D``, a linear layer whose weight is ``[in, out]``."""
    if type(module).__name__ != "Conv1D" or isinstance(module, _ConvNd):
        return False
    own = dict(module.named_parameters())
    weight, bias = own.get("weight"), own.get("bias")
    if len(own) != 2 or weight is None or bias is None or weight.shape[1:] != bias.shape:  # noqa: PLR2004
        return False
    ones = weight.new_ones(1, len(weight))
    with torch.no_grad():
        return torch.allclose(module.forward(ones)[0], weight.sum(0) + bias, rtol=1e-2, atol=1e-2)


def _users(model: nn.Module) -> dict[int, list[tuple[str, nn.Module]]]:
    """For each parameter, by identity, the modules that hold it, with the parameter's full name there."""
    users: dict[int, list[tuple[str, nn.Module]]] = {}
    for place, module in model.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            users.setdefault(id(parameter), []).append((f"{place}.{leaf}".removeprefix("."), module))
    return users


def _chosen(name: str, config: LowRankConfig) -> str | None:
    if config.only and not _within(name, config.only):
        return "it is not among the modules to factorize"
    return "it is to be ignored" if _within(name, config.ignore) else None


def _within(name: str, places: Collection[str]) -> bool:
    return any(not place or name == place or name.startswith(f"{place}.") for place in places)


def _obstacle(name: str, layer: Layer, modules: Mapping[str, nn.Module]) -> str | None:
    """What in the layer itself, or in what holds it, is in the way."""
    if is_masked(layer):
        raise ModelError(f"masks must be made permanent before a factorization: make_permanent_(model) ('{name}')")
    parent = modules[name.rpartition(".")[0]] if name else None
    if isinstance(parent, Substitute):
        return "it is a factor already"
    if isinstance(parent, _READER):
        return f"its weight is read by {type(parent).__name__}"
    if type(layer) not in _PLAIN and not _is_inputs_first(layer):
        return f"a {type(layer).__name__} may do more than its base class"
    if isinstance(layer, _ConvNd) and layer.groups > 1:
        depthwise = layer.groups == layer.in_channels
        return "it is depthwise already" if depthwise else f"it is grouped, in {layer.groups} groups"
    if not isinstance(layer.weight, nn.Parameter) or not layer.weight.is_floating_point():
        return "its weight is no real parameter"
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return "its hooks would be lost" if any(hooks) else None


def _stranger(layer: Layer, users: Mapping[int, list[tuple[str, nn.Module]]]) -> str | None:
    """A user of the layer's weight that is of another kind, or uses it as something else."""
    for name, module in users[id(layer.weight)]:
        if type(module) is not type(layer) or not name.endswith("weight"):
            return f"its weight is also '{name}'"
    return None


@contextmanager
def watched(sites: Iterable[Site], see: Callable[[Site, Layer, Tensor, Tensor], None]) -> Iterator[None]:
    """While it lasts, ``see`` is told of each call of the sites' layers: site, layer, input and output."""

    def hook_of(site: Site, layer: Layer) -> Callable[[nn.Module, Any, Any, Tensor], None]:
        def hook(_: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
            see(site, layer, next(tensors_in([args, kwargs])).detach(), output.detach())

        return hook

    handles = [
        layer.register_forward_hook(hook_of(site, layer), with_kwargs=True)
        for site in sites
        for layer in site.layers.values()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def pass_of(layer: Layer, given: Tensor, output: Tensor) -> Pass:
    """The sizes of one call, of one image without a batch dimension too."""
    if not isinstance(layer, _ConvNd):
        return Pass(math.prod(given.shape[:-1]), (), ())
    spatial = layer.weight.ndim - 2
    rows = given.shape[0] if given.ndim == layer.weight.ndim else 1
    return Pass(rows, tuple(given.shape[-spatial:]), tuple(output.shape[-spatial:]))


def batched(layer: Layer, given: Tensor) -> Tensor:
    """``[n, in, *spatial]`` out of whatever the layer takes."""
    if not isinstance(layer, _ConvNd):
        return given.reshape(-1, given.shape[-1])
    return given if given.ndim == layer.weight.ndim else given[None]
