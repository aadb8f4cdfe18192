"""How much each channel of a group matters: the least important ones are removed.

An importance takes the weights that produce a group's channels, one matrix ``[channels, elements]`` for each layer that
does, and gives one number a channel, ``[channels]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from compress.errors import ConfigError

Importance = Callable[[Sequence[Tensor]], Tensor]


def l1(weights: Sequence[Tensor]) -> Tensor:
    """The sum of absolute weights: ``n x [channels, elements] -> [channels]``.

    Source: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, section 3.1. Layers whose channels must go
    together (those of a residual) are added up, where the paper asks one of them for all.
    """
    return torch.stack([torch.linalg.vector_norm(weight, ord=1, dim=1) for weight in weights]).sum(dim=0)


def l2(weights: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm of all weights of a channel: ``n x [channels, elements] -> [channels]``.

    Source: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, section 4.4 (with l1, as good).
    """
    return torch.stack([weight.square().sum(dim=1) for weight in weights]).sum(dim=0).sqrt()


IMPORTANCES: Mapping[str, Importance] = {"l1": l1, "l2": l2}


def importance_of(choice: str | Importance) -> Importance:
    """The importance named ``choice``, or ``choice`` itself if it is a function already.

    Raises:
        ConfigError: if there is none of that name.
    """
    if callable(choice):
        return choice
    if not isinstance(choice, str) or choice not in IMPORTANCES:
        raise ConfigError(f"importance must be one of {', '.join(IMPORTANCES)}, or a function, got {choice!r}")
    return IMPORTANCES[choice]
