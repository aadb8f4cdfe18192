"""How long a cut model takes, in turn with the uncut one, while pruning looks for the cut to make."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from compress.calling.inputs import Inputs, device_of
from compress.calling.pairs import Pairs, Timer, elapsed_ms, pair_ms, take_pairs

PairedLatency = Callable[[nn.Module, nn.Module, Inputs], Pairs]
"""``(compressed, dense, example) -> ((dense_ms, compressed_ms), ...)``, the two called in turn."""

_MIN_PAIRS, _MAX_PAIRS = 15, 200
_MILLISECONDS = 1500.0


def paired_latency(compressed: nn.Module, dense: nn.Module, example: Inputs) -> Pairs:
    """Milliseconds of forward passes by the host's clock: 15 to 200 pairs, in about 1.5 seconds if that is enough."""
    timers = _timer(dense, example), _timer(compressed, example)
    once = pair_ms(*timers)
    return take_pairs(*timers, max(_MIN_PAIRS, min(_MAX_PAIRS, int(_MILLISECONDS / max(once, 1e-3)))))


def _timer(model: nn.Module, example: Inputs) -> Timer:
    model, cuda, own = model.eval(), device_of(model).type == "cuda", example.copy()

    def call() -> None:
        with torch.inference_mode():
            own.lend_to(model)
            if cuda:
                torch.cuda.synchronize()

    return partial(elapsed_ms, call)
