"""How structured pruning chooses, apart from the ratio and the importance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from torch import nn

from compress.calling.outputs import Outputs
from compress.channels.trace import Heads
from compress.errors import ConfigError
from compress.pruning.checks import check_ratio
from compress.pruning.choosing import ChannelScope
from compress.pruning.readings import Loss
from compress.pruning.timing import PairedLatency, paired_latency

DEFAULT_RATIO = 0.2
_TARGETS = ("max_macs", "max_params", "max_latency_ms")


@dataclass(frozen=True, kw_only=True)
class PruneOptions:
    """Further settings of :func:`compress.prune_channels`.

    Attributes:
        max_macs: in place of a ratio: the multiply-accumulates that one forward pass on the example inputs may take.
        max_params: in place of a ratio: the parameters that may be left.
        max_latency_ms: in place of a ratio: the milliseconds that a forward pass on the example inputs may take, on the
            device where the model lies; measured in turn with the uncut model.
        scope: "layer" removes the same fraction of every group's channels; "global" that fraction of all channels
            together, the least important ones wherever they are. Scores are then divided by the root of their mean
            square in each group, so that groups compare; those of "obs" compare as they are. "budget" goes with a
            target, and gives each group the width at which the target costs the least importance: what a channel of it
            saves (parameters, multiply-accumulates, or milliseconds out of a table measured layer by layer) is weighed
            against its score.
        heads: how attention gets narrower. "dims" takes the same number of dimensions from each head; "whole" takes
            whole heads and leaves the others as they were. Either way queries and keys lose the same dimensions.
        outputs: names the outputs that count, of a model with several: ``lambda out: out.logits``. The others (hidden
            states, caches) may lose channels; by default none may. ``loss`` is given what it names.
        min_kept: the smallest fraction of a group's channels that stays, where the fraction is not asked outright:
            under the scopes "global" and "budget" and in the search for a target.
        round_to: the number of channels that stays in a group is rounded up to a multiple of it, for kernels that like
            such widths. "auto" measures on the device where the model lies whether 8 or 16 make the model faster than
            no rounding, and takes the fastest.
        batches: calibration data, for importances that need it: inputs, or pairs ``(inputs, labels)``.
        loss: ``(outputs, labels) -> scalar`` for "taylor"; cross entropy if left out.
        seed: of the importance "random".
        threads: of the CPU, while latency is measured.
        relative_to: the model that a ratio counts from, if the one given has been cut before: pruning in rounds.
        latency: how latency is measured.
        reconstruct: batches that the cut network's layers are fitted on, see :func:`compress.reconstruct`.
        progress: whether to show how far the search for a target, and that fit, is, on stderr.

    Raises:
        ConfigError: if a setting breaks its rule.
    """

    max_macs: int | None = None
    max_params: int | None = None
    max_latency_ms: float | None = None
    scope: ChannelScope = "layer"
    heads: Heads = "dims"
    outputs: Outputs | None = None
    min_kept: float = 0.1
    round_to: int | Literal["auto"] = 1
    batches: Iterable[Any] | None = None
    loss: Loss | None = None
    seed: int = 0
    threads: int = 1
    relative_to: nn.Module | None = None
    latency: PairedLatency = paired_latency
    reconstruct: Iterable[Any] | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        if self.scope not in get_args(ChannelScope):
            raise ConfigError(f"scope must be one of {', '.join(get_args(ChannelScope))}, got {self.scope!r}")
        if self.heads not in get_args(Heads):
            raise ConfigError(f"heads must be one of {', '.join(get_args(Heads))}, got {self.heads!r}")
        if not _is_number(self.min_kept) or not 0 <= self.min_kept <= 1:
            raise ConfigError(f"min_kept must be in [0, 1], got {self.min_kept!r}")
        if self.round_to != "auto" and not _is_count(self.round_to):
            raise ConfigError(f"round_to must be a whole number at least 1, or 'auto', got {self.round_to!r}")
        if not _is_count(self.threads):
            raise ConfigError(f"threads must be a whole number at least 1, got {self.threads!r}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed must be a whole number in [0, 2**32), got {self.seed!r}")
        if isinstance(self.batches, Iterator):
            # They may be gone over more than once.
            object.__setattr__(self, "batches", tuple(self.batches))
        for name in _TARGETS:
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} must be a positive number, got {value!r}")


class Goal(NamedTuple):
    """How much is to go: until the quantity ``name`` is at most ``limit``; for a ratio exactly that much."""

    name: str
    limit: float


def goal_of(pruning_ratio: float | None, options: PruneOptions) -> Goal:
    """The one thing that was asked; a ratio of 0.2 where nothing was.

    Raises:
        ConfigError: if more than one was asked, or the ratio is out of range.
    """
    targets = [name for name in _TARGETS if getattr(options, name) is not None]
    asked = [*targets, *(["pruning_ratio"] if pruning_ratio is not None else [])]
    if len(asked) > 1:
        raise ConfigError(f"exactly one of pruning_ratio, {', '.join(_TARGETS)} may be given, got {', '.join(asked)}")
    if targets:
        if options.relative_to is not None:
            raise ConfigError(f"relative_to goes with a pruning_ratio, {targets[0]} counts for itself")
        return Goal(targets[0], float(getattr(options, targets[0])))
    if options.scope == "budget":
        raise ConfigError(f"scope 'budget' goes with one of {', '.join(_TARGETS)}, got none")
    ratio = DEFAULT_RATIO if pruning_ratio is None else pruning_ratio
    check_ratio(ratio)
    if options.scope == "global" and ratio > 1 - options.min_kept + 1e-9:
        raise ConfigError(f"pruning_ratio must leave min_kept = {options.min_kept:g} of the channels, got {ratio:g}")
    return Goal("pruning_ratio", float(ratio))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
