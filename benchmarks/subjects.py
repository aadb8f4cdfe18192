"""A network, and what it is tried on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.calling.inputs import inputs_of

Arguments = tuple[Any, ...] | dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network, what it is traced on, and what else it may run on.

    Attributes:
        model: with random weights.
        example: arguments of one forward pass, by position or by name.
        others: further arguments, by what is unlike in them.
        outputs: those of what the model puts out that count; None if all do.
        prompt: token ids that it goes on from, of a model that generates.
    """

    model: nn.Module
    example: Arguments
    others: dict[str, Arguments]
    outputs: Callable[[Any], Any] | None = None
    prompt: Tensor | None = None


def awaken_(one: Subject) -> Subject:
    """As after some training: nothing is constant, and batch norms have the statistics of the example inputs."""
    with torch.no_grad():
        for parameter in one.model.parameters():
            if parameter.ndim and parameter.numel() > 1 and parameter.min() == parameter.max():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
        norms = [m for m in one.model.eval().modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        momentums = [norm.momentum for norm in norms]
        for norm in norms:
            norm.train().momentum = 1.0
        if norms:
            inputs_of(one.others["batch"]).call(one.model)
        for norm, momentum in zip(norms, momentums, strict=True):
            norm.eval().momentum = momentum
    return one
