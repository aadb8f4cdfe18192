"""What an importance says of every channel that may go."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from compress.channels.groups import Channels
from compress.errors import ConfigError, ModelError
from compress.pruning.importance import Criterion
from compress.pruning.places import Place, mixing, places_of, producing, state_of
from compress.pruning.readings import Evidence

Vector = npt.NDArray[np.float64]
Scores = Mapping[int, Sequence[Vector]]  # for each group, for each of its cells: [channels]


def score(
    model: nn.Module, channels: Channels, frozen: Container[int], criterion: Criterion, evidence: Evidence
) -> Scores:
    """The importance of each channel of each group that is not ``frozen``.

    Raises:
        ConfigError: if the importance gives something else than one number a channel.
        ModelError: if it gives one that is not finite.
    """
    weights = mixing(channels)
    groups = [index for index in range(len(channels.groups)) if index not in frozen]
    cells = [places_of(channels, cell, weights) for index in groups for cell in channels.groups[index].cells]
    if not cells:
        return {}
    state = state_of(model)
    readings = criterion.read(model, cells, evidence)
    vectors = iter(
        [_scored(criterion, matrices, places, state) for matrices, places in zip(readings, cells, strict=True)]
    )
    return {index: [next(vectors) for _ in channels.groups[index].cells] for index in groups}


def _scored(
    criterion: Criterion, matrices: Sequence[Tensor], places: Sequence[Place], state: Mapping[str, Tensor]
) -> Vector:
    scores, count = criterion.rank(matrices), len(places[0].positions)
    tensors = [place.slot.tensor for place in producing(places, state)]
    if not isinstance(scores, Tensor) or scores.shape != (count,):
        raise ConfigError(
            f"importance must give one number for each of {count} channels (layer '{_layer(tensors[0])}')"
        )
    if not bool(scores.isfinite().all()):
        bad = next((name for name in tensors if not state[name].isfinite().all()), tensors[0])
        raise ModelError(f"importance must be finite, got NaN or infinity (layer '{_layer(bad)}')")
    vector: Vector = scores.detach().cpu().double().numpy()
    return vector


def _layer(tensor: str) -> str:
    return tensor.rpartition(".")[0]
