"""What becomes of the error of a network's layers when a channel goes and the others are fitted again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from compress.calling.inputs import device_of, each_batch
from compress.modules.copying import copied
from compress.modules.masks import make_permanent_
from compress.pruning.elimination import consumer, eliminated
from compress.pruning.places import Place, State, number_, producing, rows, state_of
from compress.pruning.readings import Evidence, Rows
from compress.reconstruction.grams import InputGram, input_grams


@dataclass(frozen=True, kw_only=True, eq=False)
class _Part:
    """One group of a layer.

    Attributes:
        layer: its inputs.
        group: its number.
        owners: ``[in]``, the number of the channel that each input is of, over all cells; -1 for none.
        cells: the numbers of the cells that those are of.
    """

    layer: InputGram
    group: int
    owners: Tensor
    cells: Sequence[int]


def remaining_errors(model: nn.Module, cells: Sequence[Sequence[Place]], evidence: Evidence) -> list[Rows]:
    """``[channels, 1]``: what each channel adds to the error that is left after :func:`compress.reconstruct`.

    In units of the variance of a layer's outputs, added up over the layers that take the channel in. Cells that a layer
    takes in together lose their channels in turn. Where no layer takes a channel in, its share in the energy of what
    the layers that put it out put out.
    """
    model = make_permanent_(copied(model)).eval()
    state = state_of(model)
    batches = [batch.inputs for batch in each_batch(evidence.batches, device=device_of(model))]
    wanted = {place.slot.tensor for places in cells for place in [*_taking(places), *producing(places, state)]}
    with torch.no_grad():
        layers = input_grams(model, batches, wanted, seed=evidence.seed)
        sizes = [len(places[0].positions) for places in cells]
        starts = np.cumsum([0, *sizes])
        parts = list(_parts(cells, starts, state, layers))
        scores: list[Tensor | None] = [None] * len(cells)
        for chosen in _together(parts, len(cells)):
            own = [part for part in parts if set(part.cells) & set(chosen)]
            if own:
                for number, vector in zip(chosen, _eliminated(own, chosen, starts), strict=True):
                    scores[number] = vector
        return [
            [(_energy(places, state, layers) if vector is None else vector)[:, None]]
            for places, vector in zip(cells, scores, strict=True)
        ]


def _taking(places: Sequence[Place]) -> list[Place]:
    return [place for place in places if place.consumes]


def _parts(
    cells: Sequence[Sequence[Place]], starts: np.ndarray, state: State, layers: Sequence[InputGram]
) -> Iterator[_Part]:
    labels: dict[str, Tensor] = {}
    for start, places in zip(starts.tolist(), cells, strict=False):
        for place in _taking(places):
            name = place.slot.tensor
            if name not in labels:
                labels[name] = torch.full_like(state[name], -1, dtype=torch.int64)
            number_(labels[name], place, start)
    cell_of = np.repeat(np.arange(len(cells)), np.diff(starts))
    for layer in layers:
        if layer.site.tensor not in labels:
            continue
        for group, owners in enumerate(layer.columns_of(labels[layer.site.tensor])):
            known = owners[owners >= 0].cpu().numpy()
            if known.size:
                yield _Part(layer=layer, group=group, owners=owners, cells=np.unique(cell_of[known]).tolist())


def _together(parts: Sequence[_Part], count: int) -> list[list[int]]:
    """The numbers of cells, those together that any layer takes in together."""
    pairs = [(part.cells[0], cell) for part in parts for cell in part.cells]
    first, second = (np.array([pair[side] for pair in pairs], dtype=np.int64) for side in (0, 1))
    graph = coo_array((np.ones(len(pairs), dtype=np.int8), (first, second)), shape=(count, count))
    number, labels = connected_components(graph, directed=False)
    return [np.flatnonzero(labels == one).tolist() for one in range(number)]


def _eliminated(parts: Sequence[_Part], cells: Sequence[int], starts: np.ndarray) -> list[Tensor]:
    """``[channels]`` for each of the cells."""
    numbers = np.concatenate([np.arange(starts[cell], starts[cell + 1]) for cell in cells])
    local = torch.full((int(starts[-1]) + 1,), -1, dtype=torch.int64)
    local[torch.from_numpy(numbers)] = torch.arange(len(numbers))
    cell_of = torch.from_numpy(np.repeat(np.arange(len(cells)), [starts[cell + 1] - starts[cell] for cell in cells]))
    consumers = [
        consumer(
            part.layer.gram[part.group],
            part.layer.weight[part.group],
            max(float(part.layer.variance.sum()), torch.finfo(torch.float64).tiny ** 0.5),
            local.to(part.owners.device)[part.owners],
            has_bias=part.layer.has_bias,
        )
        for part in parts
    ]
    scores = eliminated(consumers, cell_of)
    return [scores[cell_of == number] for number in range(len(cells))]


def _energy(places: Sequence[Place], state: State, layers: Sequence[InputGram]) -> Tensor:
    """``[channels]``: of what is put out, the share that is each channel's."""
    known: Mapping[str, InputGram] = {layer.site.tensor: layer for layer in layers}
    shares = []
    for place in producing(places, state):
        tensor = state[place.slot.tensor]
        layer = known.get(place.slot.tensor)
        energy = rows(tensor, place).double().square().sum(1)
        if layer is not None and layer.site.shape == tuple(tensor.shape):
            spread = layer.variance.flatten()
            if len(spread) == tensor.shape[place.slot.dim]:
                energy = spread[torch.from_numpy(place.positions).to(spread.device)]
        shares.append((energy / energy.sum().clamp(min=torch.finfo(torch.float64).tiny)).cpu())
    return torch.stack(shares).sum(0)
