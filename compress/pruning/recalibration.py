"""Batch norm's running statistics, measured anew on the network as it is after a cut.

They describe the activations of the uncut network; a cut moves them, and with wrong ones a pruned network guesses.
Often new ones alone, without a step of training, bring most of the accuracy back.

Source: Li et al., "EagleEye: Fast Sub-net Evaluation for Efficient Neural Network Pruning", ECCV 2020, section 3.3
(adaptive batch normalization), with a cumulative average in place of momentum.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from compress.calling.inputs import BATCH, device_of, each_batch, run
from compress.calling.outputs import Outputs, selected
from compress.calling.randomness import own_random_state
from compress.modules.copying import check_given, copied
from compress.system.progress import track

M = TypeVar("M", bound=nn.Module)

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def recalibrate(model: M, batches: Iterable[Any], *, outputs: Outputs | None = None, progress: bool = False) -> M:
    """A copy of ``model`` whose norms have the average statistics of ``batches``; no weight moves.

    Every norm with running statistics takes the mean of what it sees in each batch. All else runs in eval mode, without
    dropout and without gradients. A norm that the batches do not reach keeps what it had; a model without such norms
    comes back as it is.

    Args:
        model: any model that runs on the batches.
        batches: inputs, or pairs ``(inputs, labels)``, whose labels are not used. 50 batches of 64 images of the
            training split are plenty; augment them as training did, whose statistics the weights grew up with.
        outputs: names the outputs that count, as in :class:`~compress.PruneOptions`: those must be there still.
        progress: whether to show a bar, if stderr is a terminal.

    Raises:
        ConfigError: if there is no batch, or ``outputs`` names no output.
        ModelError: if the forward pass fails, as it does where a norm sees a single value of a channel.
    """
    check_given(model, "recalibrate")
    model = copied(model)
    norms = [norm for norm in model.modules() if isinstance(norm, _NormBase) and _keeps_statistics(norm)]
    if not norms:
        return model
    modes = [(module, module.training) for module in model.modules()]
    before = [(norm, norm.momentum, _statistics(norm)) for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        # To torch, no momentum means a cumulative average.
        norm.momentum = None
        norm.training = True
    with torch.no_grad(), own_random_state([device_of(model)]):
        for batch in each_batch(track(batches, "recalibrating", shown=progress), device=device_of(model)):
            selected(run(model, batch.inputs, BATCH), outputs)
    for norm, momentum, statistics in before:
        norm.momentum = momentum
        if not norm.num_batches_tracked:
            for name, value in statistics.items():
                getattr(norm, name).copy_(value)
    for module, training in modes:
        module.training = training
    return model


def _keeps_statistics(norm: _NormBase) -> bool:
    return all(isinstance(getattr(norm, name), Tensor) for name in _STATISTICS)


def _statistics(norm: _NormBase) -> dict[str, Tensor]:
    return {name: getattr(norm, name).clone() for name in _STATISTICS}
