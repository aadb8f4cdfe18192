"""Rules of recurrent layers and cells: each is one call, however many steps it makes and whatever kernel runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from compress.channels.call import Call, Rule
from compress.channels.contraction import contract
from compress.channels.labels import NONE, NOT_A_CHANNEL, Axis, Labels, Ledger, Width
from compress.channels.parts import flat, joined


class _Weights(NamedTuple):
    """The tensors of one direction of one layer.

    Attributes:
        of_input: ``[gates * hidden, in]``.
        of_state: ``[gates * hidden, out]``.
        biases: ``[gates * hidden]`` each, two or none.
        projection: ``[out, hidden]``; None where what is put out is the hidden units themselves.
    """

    of_input: Tensor
    of_state: Tensor
    biases: Sequence[Tensor]
    projection: Tensor | None


class _State(NamedTuple):
    """The labels of what a cell hands on: what it puts out, and an LSTM's memory, which is as wide as its gates."""

    out: Axis | None
    memory: Axis | None


def layer(num_gates: int) -> Rule:
    """``[time, batch, in], states [layers, batch, hidden] -> [time, batch, out], states``, batch or time first.

    Layers and directions each have units of their own, but one size for all: they must keep equally many.
    """

    def rule(call: Call) -> Sequence[Labels]:
        name = "input" if "input" in call.args else "data"
        last = call.args[name].ndim - 1
        labels = call.labels(name)
        for dim in [dim for dim in labels if dim != last]:
            call.ledger.freeze(labels[dim], "channels taken for time")
        weights = _weights_of(call)
        given = _given(call, len(weights))
        per_layer = 2 if call.args["bidirectional"] else 1
        data, ends = labels.get(last), []
        for first in range(0, len(weights), per_layer):
            of_layer = [_step(call, num_gates, data, weights[at], given[at]) for at in range(first, first + per_layer)]
            ends += of_layer
            data = _side_by_side([end.out for end in of_layer])
        states = [_stacked(call.ledger, [end.out for end in ends])]
        if num_gates == _LSTM:
            states.append(_stacked(call.ledger, [end.memory for end in ends]))
        _note_widths(call, states)
        return [NONE if data is None else {last: data}, *states]

    return rule


def cell(num_gates: int) -> Rule:
    """``[batch, in], states [batch, hidden] -> states``: one step."""

    def rule(call: Call) -> Sequence[Labels]:
        last = call.args["input"].ndim - 1
        biases = [call.args[name] for name in ("b_ih", "b_hh") if isinstance(call.args[name], Tensor)]
        weights = _Weights(call.args["w_ih"], call.args["w_hh"], biases, None)
        end = _step(call, num_gates, call.labels("input").get(last), weights, _given(call, 1)[0])
        states = [NONE if axis is None else {last: axis} for axis in end]
        _note_widths(call, states)
        return states

    return rule


_LSTM = 4


def _weights_of(call: Call) -> list[_Weights]:
    """Those of each layer, and in it of each direction."""
    params, count = call.args["params"], call.args["num_layers"] * (2 if call.args["bidirectional"] else 1)
    num_biases, each = (2 if call.args["has_biases"] else 0), len(params) // count
    return [
        _Weights(own[0], own[1], own[2 : 2 + num_biases], own[-1] if each == 3 + num_biases else None)
        for own in (params[at : at + each] for at in range(0, len(params), each))
    ]


def _states(call: Call) -> Sequence[Tensor]:
    """The states that the call starts from: what was put out, and an LSTM's memory."""
    given = call.args["hx"]
    return [given] if isinstance(given, Tensor) else given


def _given(call: Call, count: int) -> list[_State]:
    """Their labels, for each of ``count`` layers and directions."""
    rows = [_rows(call, tensor, count) for tensor in _states(call)]
    return [_State(out, memory) for out, memory in zip(rows[0], rows[-1], strict=True)]


def _rows(call: Call, tensor: Tensor, count: int) -> list[Axis | None]:
    """The labels of the last dimension of a state, for each of ``count`` indices of the first."""
    labels, last = dict(call.lookup(tensor)), tensor.ndim - 1
    axis = labels.pop(last, None)
    for other in labels.values():
        call.ledger.freeze_ids(other.ids, NOT_A_CHANNEL)
    if axis is None:
        return [None] * count
    axis = joined(call.ledger, axis, set(axis.parts) - ({0} if count > 1 else set()))
    return [Axis(row, axis.zero) for row in (axis.ids if axis.parts else [axis.ids] * count)]


def _step(call: Call, num_gates: int, data: Axis | None, weights: _Weights, given: _State) -> _State:
    """One direction of one layer: all gates of a unit go with it, and so do the columns that read it a step later."""
    ledger = call.ledger
    of_input, of_state = (flat(ledger, call.lookup(one)) for one in (weights.of_input, weights.of_state))
    contract(call, data, of_input.get(1))
    rows = [of_input.get(0), of_state.get(0), *(flat(ledger, call.lookup(bias)).get(0) for bias in weights.biases)]
    gates = [gate for axis in rows for gate in _gates(axis, num_gates)]
    for gate in gates[1:]:
        ledger.tie(gates[0], gate)
    ledger.outputs.extend(axis.ids for axis in rows[:2] if axis is not None)
    # A unit without weights and biases puts out zeros for ever if it began with one.
    starts_at_zero = all(state is not None and state.zero for state in given)
    memory = None if gates[0] is None else Axis(gates[0].ids, starts_at_zero)
    out = memory
    if weights.projection is not None:
        projection = flat(ledger, call.lookup(weights.projection))
        contract(call, memory, projection.get(1))
        out = projection.get(0)
        ledger.outputs.extend([] if out is None else [out.ids])
    ledger.tie(out, of_state.get(1))
    ledger.tie(out, given.out)
    ledger.tie(memory, given.memory)
    return _State(out, memory)


def _gates(axis: Axis | None, num_gates: int) -> Sequence[Axis | None]:
    if axis is None:
        return [None] * num_gates
    return [Axis(ids, axis.zero) for ids in np.split(axis.ids, num_gates)]


def _side_by_side(axes: Sequence[Axis | None]) -> Axis | None:
    known = [axis for axis in axes if axis is not None]
    if len(known) < len(axes):
        return None
    return Axis(np.concatenate([axis.ids for axis in known]), all(axis.zero for axis in known))


def _stacked(ledger: Ledger, axes: Sequence[Axis | None]) -> Labels:
    """``n times [hidden] -> [n, batch, hidden]``, all of them as wide as the others."""
    whole = _side_by_side(axes)
    ledger.balance(whole, len(axes))
    if whole is None:
        return NONE
    return {2: whole if len(axes) == 1 else Axis(whole.ids.reshape(len(axes), -1), whole.zero, parts=(0,))}


def _note_widths(call: Call, ends: Sequence[Labels]) -> None:
    """Code that fills the first states with zeros knows how wide they are."""
    for tensor, labels in zip(_states(call), ends, strict=False):
        made = next(note for one, note in zip(call.operands, call.notes, strict=True) if one is tensor)
        if made is not None and made.filled_in is not None:
            for axis in labels.values():
                call.ledger.widths.append(Width(made.filled_in, axis.ids.shape[-1], axis.rows[0]))


def pack(call: Call) -> Sequence[Labels]:
    """``[batch, time, c] -> [steps, c], sizes``, what sequences are padded with left out."""
    return _moved_channels(call, "input", 2, 1)


def pad_packed(call: Call) -> Sequence[Labels]:
    """``[steps, c], sizes -> [batch, time, c], lengths``."""
    return _moved_channels(call, "data", 1, 2, zero=not call.args["padding_value"])


def _moved_channels(call: Call, name: str, old: int, new: int, *, zero: bool = True) -> Sequence[Labels]:
    labels = call.labels(name)
    for dim in [dim for dim in labels if dim != old]:
        call.ledger.freeze(labels[dim], "channels taken for time")
    return [{new: labels[old]._replace(zero=labels[old].zero and zero)} if old in labels else NONE, NONE]


_KINDS: Mapping[str, int] = {"lstm": _LSTM, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}

TABLE: Mapping[str, Rule] = {
    **{kind: layer(num_gates) for kind, num_gates in _KINDS.items()},
    **{f"{kind}_cell": cell(num_gates) for kind, num_gates in _KINDS.items()},
    "_pack_padded_sequence": pack,
    "_pad_packed_sequence": pad_packed,
}
