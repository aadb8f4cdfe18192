"""Means and variances over channels, of norms that are written out in Python.

``(x - x.mean(-1, keepdim=True)) * (variance + eps).rsqrt()`` is a layer norm, and a global response norm divides each
channel's norm by the mean of all. As in torch's own norms, they run over the channels that a cut keeps. That is right
only as long as all that comes of such a statistic is subtracted from those channels, or scales them: whatever else
reads it, as an attention over space does, keeps them whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from compress.channels.call import Call
from compress.channels.labels import Ids, Ledger
from compress.channels.notes import Notes
from compress.channels.pointwise import STATISTICS, reduced


class Statistic(NamedTuple):
    """A number made of channels.

    Attributes:
        ids: those of the channels.
        reason: why those stay if it is read by anything but a norm.
    """

    ids: Ids
    reason: str


def follow(call: Call, notes: Notes) -> None:
    """Take down what a finished call makes of statistics: begins, hands on, uses up, or reads otherwise."""
    found = {id(one): one for note in call.notes if note is not None for one in note.statistics}
    going: list[Statistic] = []
    if call.op in STATISTICS:
        freeze(call.ledger, found.values())
        reason = f"a statistic over channels ({call.ledger.place})"
        going = [Statistic(axis.ids, reason) for axis in reduced(call)]
    elif found and call.op in _HANDED_ON:
        met = [axis.ids for tensor in call.operands for axis in call.lookup(tensor).values()]
        going = [one for one in found.values() if not any(call.ledger.are_tied(one.ids, ids) for ids in met)]
    elif found:
        freeze(call.ledger, found.values())
    if going:
        for out in call.outs:
            notes.of(out).statistics = tuple(going)


def freeze(ledger: Ledger, statistics: Iterable[Statistic]) -> None:
    """Keep the channels of ``statistics``."""
    for one in statistics:
        ledger.freeze_ids(one.ids, one.reason)


# fmt: off
# What the code of a norm does to a statistic before the channels meet it, and when they do.
_HANDED_ON: Sequence[str] = (
    "_reshape_alias", "_to_copy", "_unsafe_view", "abs", "add", "alias", "clamp", "clamp_min", "clone", "detach", "div",
    "expand", "maximum", "mul", "neg", "pow", "reciprocal", "reshape", "rsqrt", "sqrt", "square", "sub", "unsqueeze",
    "view",
)
# fmt: on
