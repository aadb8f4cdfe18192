"""What the steps of a recipe are given beside the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from compress.workload.workload import Workload


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a step may need beside the model.

    Attributes:
        dense: the model before the first step.
        workload: data and example input.
        checkpoint: a file of its own, for a step that takes long; gone once the step is done.
        progress: whether to show how far it is.
    """

    dense: nn.Module
    workload: Workload
    checkpoint: Path
    progress: bool
