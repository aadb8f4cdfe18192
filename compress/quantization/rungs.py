"""Ways to make rounding cost less that leave the float model as it is: ranges of weights, biases, and roundings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from compress.calling.inputs import Inputs
from compress.quantization.observed import Layer
from compress.quantization.simulation import Simulation
from compress.quantization.tuning import bias_of, node_of, weight_of
from compress.reconstruction.passes import Operation
from compress.reconstruction.products import product_of

# Of the range of a channel's weights, the shares that are tried.
_SHARES = torch.linspace(0.5, 1.0, 26)
# A shift of a channel's mean counts as one from that many of its standard errors on.
_STANDARD_ERRORS = 3.0
_SWEEPS = 4
_RIDGE = 1e-2
_POSITIONS = 8192

Range = tuple[Tensor, Tensor]


def squared_error_ranges(simulation: Simulation) -> dict[str, Range]:
    """For each int8 layer the range of each output channel's weights that rounds them with the least squared error.

    Source: Choukroun et al., "Low-bit Quantization of Neural Networks for Efficient Inference", ICCVW 2019, equation 5.
    """
    found = {}
    for layer in _candidates(simulation):
        weight = weight_of(simulation.graph, layer)
        if weight is None:
            continue
        observer: Any = _observer(simulation.graph, layer)
        low, high = observer.min_val.clone(), observer.max_val.clone()
        best = torch.full_like(low, torch.inf)
        kept = low.clone(), high.clone()
        for share in _SHARES:
            observer.min_val, observer.max_val = low * share, high * share
            error = (_rounded(weight.detach(), observer) - weight.detach()).flatten(1).square().sum(1)
            is_less = error <= best
            best = torch.where(is_less, error, best)
            kept = torch.where(is_less, low * share, kept[0]), torch.where(is_less, high * share, kept[1])
        observer.min_val, observer.max_val = low, high
        found[layer.node] = kept
    return found


def corrected_biases(simulation: Simulation, reference: Simulation, inputs: Inputs) -> dict[str, Tensor]:
    """For each int8 layer the bias that takes out the shift of its outputs' means, layer after layer.

    A channel whose shift is not beyond what chance makes on these inputs keeps its bias. ``reference`` is of the same
    graph, in which neither biases nor weights were changed yet.

    Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section
    4.2, with means that are measured.
    """
    graph = simulation.graph
    layers = {layer.node: layer for layer in _candidates(simulation)}
    exact: dict[str, Tensor] = {}

    def note(node: fx.Node, value: Any, _: object) -> Any:
        if node.name in layers:
            exact[node.name] = _by_channel(node, value)
        return value

    biases: dict[str, Tensor] = {}

    def correct(node: fx.Node, value: Any, _: object) -> Any:
        if node.name not in layers:
            return value
        shifts = exact[node.name] - _by_channel(node, value)
        mean = shifts.mean(0)
        mean = mean.where(mean.abs() > _STANDARD_ERRORS * shifts.std(0) / len(shifts) ** 0.5, 0.0).nan_to_num()
        if not mean.any():
            return value
        bias = bias_of(graph, layers[node.name])
        biases[node.name] = mean if bias is None else bias.detach() + mean
        return value + _along(node, mean, value)

    reference.watched(inputs, note, rounding=False)
    simulation.watched(inputs, correct, rounding=True)
    return biases


def adaptive_roundings(simulation: Simulation, batches: Sequence[Inputs], layers: Iterable[Layer]) -> dict[str, Tensor]:
    """Weights of ``layers`` rounded up or down so that their outputs, not the weights, are met best.

    What each layer takes in, as the int8 model has it, gives the variance of its outputs' error as a quadratic form of
    the roundings, which is descended coordinate by coordinate, from rounding to the nearest: never worse than that.
    What is left of the error's mean is for :func:`corrected_biases`.

    Source: Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020, equation 13.
    """
    graph = simulation.graph
    wanted = {layer.node: layer for layer in layers if weight_of(graph, layer) is not None}
    grams: dict[str, Tensor] = {}

    def look(node: fx.Node, value: Any, args: Sequence[Any]) -> Any:
        if node.name in wanted:
            product = product_of(Operation(node.target, args, {}), lambda _: True)  # type: ignore[arg-type]  # aten's
            if product is not None:
                count = product.num_positions(value)
                step = max(1, count * len(batches) // _POSITIONS)
                x = product.inputs_at(value, torch.arange(0, count, step))
                x = x - x.mean(1, keepdim=True)
                gram = (x.transpose(1, 2) @ x).double()
                grams[node.name] = grams[node.name] + gram if node.name in grams else gram
        return value

    for batch in batches:
        simulation.watched(batch, look, rounding=True)
    found = {}
    for name, gram in grams.items():
        weight = weight_of(graph, wanted[name])
        assert weight is not None  # noqa: S101 - a premise
        found[name] = _rounded_adaptively(weight.detach(), gram, _observer(graph, wanted[name]), node_of(graph, name))
    return found


def _rounded_adaptively(weight: Tensor, gram: Tensor, observer: Any, node: fx.Node) -> Tensor:
    product = product_of(
        Operation(node.target, (weight.new_zeros(0), weight, None, *_geometry(node)), {}),  # type: ignore[arg-type]
        lambda _: True,
    )
    assert product is not None  # noqa: S101 - of such layers grams are made
    scale, _ = observer.calculate_qparams()
    scale = scale.reshape(-1, *[1] * (weight.ndim - 1)).expand_as(weight)
    low, high = observer.quant_min, observer.quant_max
    exact, steps = (product.matrix(one).double() for one in (weight / scale, scale))
    down = exact.floor().clamp(low, high)
    up = (down + 1).clamp(low, high)
    chosen = exact.round().clamp(low, high)
    gram = gram.clone()
    diagonal = gram.diagonal(dim1=1, dim2=2)
    diagonal += (_RIDGE * diagonal.mean(1, keepdim=True)).clamp(min=1e-30)
    missed = (chosen - exact) * steps
    slope = missed @ gram
    for _ in range(_SWEEPS):
        before = chosen.clone()
        for column in range(chosen.shape[2]):
            own, size = chosen[:, :, column], steps[:, :, column]
            other = down[:, :, column] + up[:, :, column] - own
            change = (other - own) * size
            # Of the quadratic form, half of what the change adds.
            added = change * (slope[:, :, column] + 0.5 * change * gram[:, None, column, column])
            change = change.where(added < 0, 0.0)
            chosen[:, :, column] = own.where(added >= 0, other)
            slope += change[:, :, None] * gram[:, None, column]
        if chosen.equal(before):
            break
    return product.unmatrix((chosen * steps).to(weight.dtype))


def _candidates(simulation: Simulation) -> list[Layer]:
    return [layer for layer in simulation.layers if layer.observers]


def _observer(graph: fx.GraphModule, layer: Layer) -> Any:
    return graph.get_submodule(str(node_of(graph, layer.observers[1]).target))


def _rounded(weight: Tensor, observer: Any) -> Tensor:
    scale, zero_point = observer.calculate_qparams()
    return torch.fake_quantize_per_channel_affine(
        weight, scale, zero_point.to(torch.int32), observer.ch_axis, observer.quant_min, observer.quant_max
    )


def _geometry(node: fx.Node) -> tuple[Any, ...]:
    return tuple(node.args[3:])


def _axis(node: fx.Node, value: Tensor) -> int:
    return value.ndim - 1 if node.target is torch.ops.aten.linear.default else 1


def _by_channel(node: fx.Node, value: Tensor) -> Tensor:
    """``[n, channels]``: the mean of each channel of each example."""
    axis = _axis(node, value)
    others = [dim for dim in range(1, value.ndim) if dim != axis]
    return value.detach().mean(others) if others else value.detach().clone()


def _along(node: fx.Node, mean: Tensor, value: Tensor) -> Tensor:
    return mean.reshape([-1 if dim == _axis(node, value) else 1 for dim in range(value.ndim)])
