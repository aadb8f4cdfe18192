"""What each ATen operation does to channel labels: one table, and the rule for what is not in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch._ops import OpOverload

from compress.channels import contraction, pointwise, recurrence, reshaping, selection
from compress.channels.call import Call, Rule
from compress.channels.labels import FIXED, NONE, WILD, Axis, Labels
from compress.channels.parts import fits

TABLE: Mapping[str, Rule] = {
    **pointwise.TABLE,
    **reshaping.TABLE,
    **selection.TABLE,
    **contraction.TABLE,
    **recurrence.TABLE,
}


# What puts values beside each other along a dimension: there, what was the same all along may be so no more.
_JOINING = frozenset(
    {"_reshape_alias", "_unsafe_view", "cat", "constant_pad_nd", "reshape", "stack", "unflatten", "view"}
)


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
    return [_steady(labels[0], call.out), *labels[1:]] if call.op in _JOINING else labels


def _steady(labels: Labels, out: Tensor) -> Labels:
    """``labels`` without WILD along dimensions where neighbours, of which no channel tells the one, are unlike.

    Ones beside zeros, each as many as half the channels, do not fit what is left of the channels.
    """
    return {
        dim: axis if _is_steady(axis, dim, out) else axis._replace(ids=np.where(axis.ids == WILD, FIXED, axis.ids))
        for dim, axis in labels.items()
    }


def _is_steady(axis: Axis, dim: int, out: Tensor) -> bool:
    wild, placed = axis.ids == WILD, axis.ids >= 0
    loose = (wild[..., 1:] | wild[..., :-1]) & ~placed[..., 1:] & ~placed[..., :-1]
    if not (loose.any() and out.numel()):
        return True
    dims = (*axis.parts, dim)
    values = out.detach().movedim(dims, tuple(range(-len(dims), 0)))
    values = values if values.is_complex() else values.double()
    same = torch.isclose(values[..., 1:], values[..., :-1], rtol=1e-4, equal_nan=True)
    return bool(same.cpu().numpy().reshape(-1, *loose.shape)[:, loose].all())
