"""What a channel of each group saves: parameters, multiply-accumulates, or milliseconds out of a measured table.

Source: Shen et al., "Structural Pruning via Latency-Saliency Knapsack" (HALP), NeurIPS 2022: latency looked up layer by
layer, for each number of channels, and widths chosen by importance for each millisecond saved.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from compress.calling.inputs import Inputs
from compress.calling.pairs import elapsed_ms, pinned_threads
from compress.channels.groups import Channels, Group
from compress.channels.modes import plain_forward
from compress.modules.copying import copied
from compress.modules.masks import make_permanent_
from compress.pruning.choosing import steps_of
from compress.pruning.places import state_of
from compress.reconstruction.passes import ForwardPass
from compress.reconstruction.products import Product, narrowed
from compress.reconstruction.survey import Parameters

# Widths of a group that are timed, evenly apart, and how often each layer is called for one.
_WIDTHS, _CALLS = 8, 7


@dataclass(kw_only=True, eq=False)
class Costs:
    """What the layers of a model cost on one example, looked up by how much of their weights is left.

    Attributes:
        products: those that read each parameter.
        positions: how many multiply-accumulates there are for each element of a parameter.
        threads: of the CPU, while they are timed.
        times: milliseconds found so far, by product, rows and columns.
    """

    products: Mapping[str, Sequence[Product]]
    positions: Mapping[str, int]
    threads: int = 1
    times: dict[tuple[int, int, int], float] = field(default_factory=dict)

    def milliseconds(self, product: Product, rows: int, columns: int) -> float:
        """The time of one call with the first ``rows`` and ``columns`` of the weight."""
        key = (id(product), rows, columns)
        if key not in self.times:
            call = narrowed(product, rows, columns)
            with torch.inference_mode(), pinned_threads(self.threads):
                call()
                self.times[key] = statistics.median(elapsed_ms(call) for _ in range(_CALLS))
        return self.times[key]


def costs_of(model: nn.Module, example: Inputs, threads: int = 1) -> Costs:
    """Run ``model`` once and keep its products; their activations stay in memory as long as what is returned.

    Raises:
        ModelError: if the forward pass fails.
    """
    model = make_permanent_(copied(model)).eval()
    found: dict[str, list[Product]] = {}
    positions: Counter[str] = Counter()
    parameters = Parameters(model)
    with plain_forward(list(model.parameters())), ForwardPass(model, example) as forward:
        while (operation := forward.next()) is not None:
            product = parameters.product(operation)
            if product is not None:
                name = parameters.site(product).tensor
                found.setdefault(name, []).append(product)
                # A transposed convolution multiplies at every place of its input.
                data = product.x if product.kind == "transposed" else forward.compute()
                width = product.weight.shape[0] if product.kind == "transposed" else product.num_outputs
                positions[name] += data.numel() // width
    return Costs(products=found, positions=positions, threads=threads)


def savings(
    model: nn.Module, channels: Channels, groups: Iterable[int], costs: Costs, target: str
) -> dict[int, list[float]]:
    """For each of the ``groups`` what each of its steps saves, the first to go first, all others being whole.

    Args:
        model: as it is.
        channels: its channels.
        groups: their numbers.
        costs: of its layers.
        target: "max_params", "max_macs" or "max_latency_ms".
    """
    if target == "max_latency_ms":
        return {index: _saved_ms(channels, channels.groups[index], costs) for index in groups}
    state = state_of(model)

    def weight(name: str) -> float:
        return (
            float(costs.positions.get(name, 0))
            if target == "max_macs"
            else float(isinstance(state[name], nn.Parameter))
        )

    found = {}
    for index in groups:
        group = channels.groups[index]
        shares = _shares(channels, group).items()
        step = sum(state[name].numel() * share * weight(name) for (name, _), share in shares)
        found[index] = [step] * steps_of(group).count
    return found


def _shares(channels: Channels, group: Group) -> dict[tuple[str, int], float]:
    """For each dimension that a group lives in, tensor and number, the fraction of it that goes in a step."""
    shares: dict[tuple[str, int], float] = {}
    for cell, width in zip(group.cells, group.widths, strict=True):
        for index in channels.slot_of(cell.ids[0]).tolist():
            slot = channels.slots[index]
            key = (slot.tensor, slot.dim)
            shares[key] = shares.get(key, 0.0) + width / slot.ids.size
    return shares


def _saved_ms(channels: Channels, group: Group, costs: Costs) -> list[float]:
    count = steps_of(group).count
    shares = _shares(channels, group)
    products = [
        (name, product)
        for name in dict.fromkeys(name for name, _ in shares)
        for product in costs.products.get(name, ())
    ]

    def milliseconds(gone: int) -> float:
        total = 0.0
        for name, product in products:
            left = [1 - shares.get((name, dim), 0.0) * gone for dim in (0, 1)]
            rows, columns = (max(1, round(product.weight.shape[dim] * left[dim])) for dim in (0, 1))
            total += costs.milliseconds(product, rows, columns)
        return total

    # Only widths of the table may be chosen: what is saved counts with the last step up to each.
    saved, before = [0.0] * count, milliseconds(0)
    for gone in sorted({count * part // _WIDTHS for part in range(1, _WIDTHS)} - {0}):
        after = min(before, milliseconds(gone))
        saved[gone - 1] = before - after
        before = after
    return saved
