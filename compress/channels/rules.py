"""What each ATen operation does to channel labels: one table, and the rule for what is not in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import torch
from torch._ops import OpOverload

from compress.channels import contraction, pointwise, recurrence, reshaping, selection
from compress.channels.call import Call, Rule
from compress.channels.labels import NONE, Labels
from compress.channels.parts import fits

TABLE: Mapping[str, Rule] = {
    **pointwise.TABLE,
    **reshaping.TABLE,
    **selection.TABLE,
    **contraction.TABLE,
    **recurrence.TABLE,
}


def base_name(op: OpOverload) -> str:
    """``aten.relu_.default`` -> ``relu``: the operation's name without overload, in place or not."""
    namespace, name = op._schema.name.split("::")
    name = name[:-1] if name.endswith("_") and not name.endswith("__") else name
    return name if namespace == "aten" else f"{namespace}::{name}"


@cache
def rule_of(op: OpOverload) -> Rule:
    """The rule for ``op``: from the table, the pointwise one if torch says so, or to freeze whatever it touches."""
    name = base_name(op)
    schema = op._schema
    # The sizes before a movement in place are gone once it is done.
    if not schema.returns or schema.overload_name.endswith("out") or (schema.is_mutable and name in reshaping.TABLE):
        return unknown
    if name in TABLE:
        return TABLE[name]
    return pointwise.pointwise if _is_pointwise(op, name) else unknown


def _is_pointwise(op: OpOverload, name: str) -> bool:
    if torch.Tag.pointwise in op.tags:
        return True
    # Some in-place forms lack the tag that their plain form has.
    packet = getattr(torch.ops.aten, name, None)
    return packet is not None and any(
        torch.Tag.pointwise in getattr(packet, overload).tags for overload in packet.overloads()
    )


def unknown(call: Call) -> Labels:
    """Keep all channels that meet an operation without a rule: they cannot be cut wrongly then."""
    for tensor in call.operands:
        call.freeze(tensor, "unknown operation")
    return NONE


def apply(op: OpOverload, call: Call) -> Sequence[Labels]:
    """The labels of each output of a finished call.

    A rule that cannot tell, or gives labels which do not fit the output, leaves the call as unknown.
    """
    found = rule_of(op)(call)
    if found is None:
        found = unknown(call)
    labels = list(found) if isinstance(found, Sequence) else [found]
    labels += [NONE] * (len(call.outs) - len(labels))
    for one, out in zip(labels, call.outs, strict=False):
        if not fits(one, out.shape):
            unknown(call)
            return [NONE] * len(call.outs)
    return labels
