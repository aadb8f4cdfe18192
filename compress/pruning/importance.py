"""How much each channel of a group matters: the least important ones are removed.

An importance takes a matrix ``[channels, elements]`` for each place that speaks of a group's channels, and gives one
number a channel, ``[channels]``. What the matrices hold is its reading: filters, unless the table says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from compress.errors import ConfigError
from compress.pruning import readings
from compress.pruning.obs import remaining_errors
from compress.pruning.readings import Reading

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


def bn_scale(scales: Sequence[Tensor]) -> Tensor:
    """The sum of the absolute scales of a channel's norms: ``n x [channels, 1] -> [channels]``.

    Meant for networks trained with a penalty on the scales. Channels that no norm follows are ranked by :func:`l1`.

    Source: Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017, section 3.
    """
    return l1(scales)


def taylor(terms: Sequence[Tensor]) -> Tensor:
    """How far the loss would move if a channel were gone, to first order: ``n x [channels, batches] -> [channels]``.

    The square of the derivative by a gate on the channel, averaged over batches.

    Source: Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019, equation 9, with the gate
    where the channel is taken in, so that activation functions and norms lie before it.
    """
    return torch.cat(list(terms), dim=1).square().mean(dim=1)


def activation(magnitudes: Sequence[Tensor]) -> Tensor:
    """The mean absolute value of a channel where layers take it in: ``n x [channels, 1] -> [channels]``.

    Source: Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient Inference", ICLR 2017,
    section 2.2 ("activation"); absolute, because not every network's activations are positive.
    """
    return torch.cat(list(magnitudes), dim=1).abs().mean(dim=1)


def random(numbers: Sequence[Tensor]) -> Tensor:
    """Numbers drawn by the seed, as they are: ``[channels, 1] -> [channels]``. What every importance must beat.

    Source: Mittal et al., "Recovering from Random Pruning: On the Plasticity of Deep Convolutional Neural Networks",
    WACV 2018.
    """
    return numbers[0][:, 0]


def fpgm(weights: Sequence[Tensor]) -> Tensor:
    """How far a channel's filters lie from all others of its layer: ``n x [channels, elements] -> [channels]``.

    What lies near the geometric median can be stood in for by the rest, however large it is. Layers are added up.

    Source: He et al., "Filter Pruning via Geometric Median for Deep Convolutional Neural Networks Acceleration", CVPR
    2019, equation 4, with the Euclidean distance.
    """
    return torch.stack([torch.cdist(weight, weight).sum(dim=1) for weight in weights]).sum(dim=0)


def obs(errors: Sequence[Tensor]) -> Tensor:
    """What a channel adds to the error left once the others make up for it: ``[channels, 1] -> [channels]``.

    In units of the variance of the outputs of the layers that take it in, so that channels of all groups compare.

    Source: Hassibi and Stork, "Optimal Brain Surgeon", NeurIPS 1992, for blocks of weights as Frantar and Alistarh,
    "Optimal Brain Compression", NeurIPS 2022.
    """
    return errors[0][:, 0]


class Criterion(NamedTuple):
    """An importance, what it looks at, whether that comes from data, and whether groups compare as it is."""

    rank: Importance
    read: Reading = readings.weights
    needs_data: bool = False
    is_absolute: bool = False


IMPORTANCES: Mapping[str, Criterion] = {
    "l1": Criterion(l1),
    "l2": Criterion(l2),
    "bn_scale": Criterion(bn_scale, readings.norm_scales),
    "taylor": Criterion(taylor, readings.gate_gradients, needs_data=True),
    "activation": Criterion(activation, readings.activations, needs_data=True),
    "fpgm": Criterion(fpgm),
    "obs": Criterion(obs, remaining_errors, needs_data=True, is_absolute=True),
    "random": Criterion(random, readings.draws),
}


def importance_of(choice: str | Importance) -> Criterion:
    """The importance named ``choice``; a function ranks filters.

    Raises:
        ConfigError: if there is none of that name.
    """
    if callable(choice):
        return Criterion(choice)
    if not isinstance(choice, str) or choice not in IMPORTANCES:
        raise ConfigError(f"importance must be one of {', '.join(IMPORTANCES)}, or a function, got {choice!r}")
    return IMPORTANCES[choice]
