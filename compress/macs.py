"""Multiply-accumulates: the one count that techniques aim at and the gate holds them to."""

from __future__ import annotations

from collections.abc import Callable

from torch.utils.flop_counter import FlopCounterMode


def macs_of(forward: Callable[[], object]) -> int:
    """Multiply-accumulates of convolutions and matrix products while ``forward`` runs, as torch's counter sees them.

    Compiled code runs operations that the counter does not know: those do not count.
    """
    with FlopCounterMode(display=False) as counter:
        forward()
    # The counter's unit is floating point operations, of which a multiply-accumulate is two.
    return int(counter.get_total_flops()) // 2
