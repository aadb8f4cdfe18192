"""Where a cell's channels live, as an importance sees it: slices of weights, one for each channel."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from compress.channels.groups import Cell, Channels
from compress.channels.labels import Ids, Slot

State = Mapping[str, Tensor]


class Place(NamedTuple):
    """One position of each of a cell's channels along one dimension of one tensor.

    Attributes:
        slot: tensor and dimension.
        positions: ``[channels]``, where along it.
        produces: whether the slices there put the channels out.
        consumes: whether they take them in and put others out. Norms, biases and embeddings of positions do neither.
    """

    slot: Slot
    positions: Ids
    produces: bool
    consumes: bool


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def mixing(channels: Channels) -> set[str]:
    """The tensors that put out channels: weights of layers."""
    starts = channels.starts.tolist()
    return {
        slot.tensor
        for slot, start in zip(channels.slots, starts, strict=True)
        if channels.is_output[start : start + slot.ids.size].any()
    }


def places_of(channels: Channels, cell: Cell, weights: Container[str]) -> list[Place]:
    """Every place of a cell's channels; ``weights`` as by :func:`mixing`."""
    slots = channels.slot_of(cell.ids[0])
    positions = cell.ids - channels.starts[slots]
    result = []
    for column, index in enumerate(slots.tolist()):
        slot, produces = channels.slots[index], bool(channels.is_output[cell.ids[:, column]].all())
        consumes = not produces and slot.tensor in weights
        result.append(Place(slot, positions[:, column], produces, consumes))
    return result


def producing(places: Iterable[Place], state: State) -> list[Place]:
    """The places that put the channels out: layers, or, where there is none, vectors."""
    some = [place for place in places if place.produces]
    # A bias or a norm's weight says little of a channel where the filter that produces it is known.
    return [place for place in some if state[place.slot.tensor].ndim > 1] or some


def rows(tensor: Tensor, place: Place) -> Tensor:
    """``[channels, elements]``: the slice of ``tensor`` that belongs to each channel."""
    slot, data = place.slot, tensor.detach()
    if slot.ids.ndim == 1:
        result = data.movedim(slot.dim, 0).reshape(slot.ids.size, -1)
    else:
        parts, size = slot.ids.shape
        result = data.reshape(parts, -1, size, data[0, 0].numel()).movedim(2, 1).reshape(parts * size, -1)
    first, count = int(place.positions[0]), len(place.positions)
    if np.array_equal(place.positions, np.arange(first, first + count)):
        result = result[first : first + count]
    else:
        result = result[torch.from_numpy(place.positions).to(result.device)]
    # A long sum in half precision would drop most of it.
    return result.float() if result.dtype in {torch.float16, torch.bfloat16} else result


def number_(labels: Tensor, place: Place, start: int) -> None:
    """Write the number of each channel, counted from ``start``, wherever :func:`rows` would read its slice."""
    slot, positions = place.slot, torch.from_numpy(place.positions).to(labels.device)
    numbers = torch.arange(start, start + len(positions), device=labels.device)
    if slot.ids.ndim == 1:
        labels.movedim(slot.dim, 0)[positions] = numbers.view(-1, *[1] * (labels.ndim - 1))
        return
    parts, size = slot.ids.shape
    first = len(labels) // parts
    for part in range(parts):
        own = positions // size == part
        labels[part * first : (part + 1) * first].movedim(1, 0)[positions[own] % size] = numbers[own].view(
            -1, *[1] * (labels.ndim - 1)
        )
