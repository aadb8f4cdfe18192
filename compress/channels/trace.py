"""One run of a network on channel labels.

The network's own forward pass runs once, as it is, on its example inputs; a dispatch mode sees each ATen call it makes
and carries the labels along. Whatever runs can be traced: there is no graph to capture.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from torch import Tensor, nn

from compress.calling.inputs import Inputs
from compress.calling.outputs import Outputs
from compress.channels.history import ids_of
from compress.channels.labels import Ids, Ledger, Slot
from compress.channels.modes import LentWrittenError
from compress.channels.run import Run, Trace
from compress.channels.sizes import other_inputs, sizes_of
from compress.channels.sketch import is_alike, sketch, warm_up
from compress.channels.view import View
from compress.errors import CompressError, ModelError, first_line
from compress.modules.copying import copied

__all__ = ["Heads", "Trace", "labelled_at", "retrace", "trace"]

Heads = Literal["dims", "whole"]


def trace(model: nn.Module, example: Inputs, heads: Heads = "dims", outputs: Outputs | None = None) -> Trace:
    """Run ``model`` on labels of its own. A copy runs, in eval mode: nothing of ``model`` changes.

    Where parameters take no part, it runs in train mode too: there are heads that only training uses.

    Args:
        model: any that runs on ``example``.
        example: its inputs.
        heads: whether the channels of an attention are the dimensions of its heads, or whole heads.
        outputs: which outputs count; all if None.

    Raises:
        ConfigError: if ``outputs`` names no output.
        ModelError: if the model cannot be copied, if its forward pass fails, or puts out no tensor.
    """
    found = _elsewhere(model, _first_run(model, View(example=example, outputs=outputs), heads, slots=None))
    unused = [name for name, _ in model.named_parameters() if name not in found.used]
    if not unused:
        return found
    training = View(example=example, outputs=outputs, known=found.used)
    try:
        other = _first_run(model, training, heads, found.slots)
    except _BrokenOffError as broken:
        note = (
            f"{len(unused)} parameters take no part in eval mode ('{unused[0]}'), and in train mode {broken}: training"
            " the pruned network may fail"
        )
        joined = _joined(found, _cut_along(broken.seen))
        return replace(joined, others=found.others, notes=(*found.notes, note))
    return _joined(found, other) if other.used - found.used else found


def _elsewhere(model: nn.Module, found: Trace) -> Trace:
    """``found``, with what a run on inputs of another batch and another size showed, as far as the model runs there.

    Labels depend on sizes only where a reshape takes channels apart. Elsewhere it is enough that the network runs; and
    where it makes the same calls, labels need not be carried through them again.
    """
    changed: frozenset[str] = frozenset()
    for one in other_inputs(found.view.example):
        view = replace(found.view, example=one.inputs)
        try:
            there = sketch(_copy(model, () if found.writes else model.parameters()), view, writes=found.writes)
            if not found.ledger.takes_apart or is_alike(found.seen, there.lines):
                found = replace(found, elsewhere=there)
            else:
                found = _joined_at_size(found, labelled_at(model, found, view))
        except (ModelError, LentWrittenError):
            continue
        changed = one.changed
        break
    missing = [what for what in sizes_of(found.view.example) if what not in changed]
    if not missing:
        return found
    note = f"verified at the example's {' and '.join(missing)} alone: the model was found to run at no other"
    return replace(found, notes=(*found.notes, note))


def _joined_at_size(found: Trace, other: Trace) -> Trace:
    # Sizes that Python wrote are those of the example; here others may come to the same numbers.
    other.ledger.widths.clear()
    return _joined(found, other)


def labelled_at(model: nn.Module, found: Trace, view: View) -> Trace:
    """A run of ``model`` on the labels and with the choices of ``found``, in the way ``view``, in which it ran before.

    Raises:
        ModelError: if its forward pass fails.
    """
    lent = () if found.writes else list(model.parameters())
    return _result(Run(_copy(model, lent), view, slots=found.slots, alike=found), lent)


class _BrokenOffError(ModelError):
    """A run in train mode failed.

    Attributes:
        seen: what it showed until then.
    """

    def __init__(self, message: str, seen: Trace) -> None:
        super().__init__(message)
        self.seen = seen


def _cut_along(broken: Trace) -> Trace:
    """``broken``, in which what it used for the first time may only lose channels that are known from eval mode.

    Of others nobody knows where they would have gone.
    """
    known = [slot.ids.reshape(-1) for slot in broken.slots if slot.tensor in (broken.view.known or ())]
    new = [slot.ids.reshape(-1) for slot in broken.slots if slot.tensor not in (broken.view.known or ())]
    familiar, others = (np.concatenate([np.empty(0, np.int64), *some]) for some in (known, new))
    pairs = [pair for tie in broken.ledger.ties for pair in ((tie.first, tie.second), (tie.second, tie.first))]
    tied = [ids[np.isin(to, familiar)] for ids, to in pairs]
    alone = others[~np.isin(others, np.concatenate([np.empty(0, np.int64), *tied]))]
    broken.ledger.freeze_ids(alone, "used only in training, where the forward pass failed")
    return broken


def _joined(found: Trace, other: Trace) -> Trace:
    """``found``, with what ``other`` showed beside; ``found`` made the choices that are repeated on its own view."""
    ledger, more = found.ledger, other.ledger
    joined = replace(
        ledger,
        ties=[*ledger.ties, *more.ties],
        freezes=[*ledger.freezes, *more.freezes],
        parts=[*ledger.parts, *more.parts],
        alignments=[*ledger.alignments, *more.alignments],
        outputs=[*ledger.outputs, *more.outputs],
        attending=ledger.attending | more.attending,
        bindings=[*ledger.bindings, *more.bindings],
        widths=[*ledger.widths, *more.widths],
    )
    return replace(found, ledger=joined, slots=other.slots, used=found.used | other.used, others=(*found.others, other))


def _first_run(model: nn.Module, view: View, heads: Heads, slots: Sequence[Slot] | None) -> Trace:
    found = _run_once(model, view, slots, wishes={})
    wishes = _whole_heads(found.ledger) if heads == "whole" else {}
    return _run_once(model, view, slots, wishes) if wishes else found


def _whole_heads(ledger: Ledger) -> dict[int, int]:
    """What to choose, by the number of the call, so that heads shrink in number where they did in width."""
    attended = {(int(row[0]), len(row)) for rows in ledger.attended if len(rows) > 1 for row in rows}
    return {
        split.call: split.heads
        for split in ledger.splits
        if any((int(row[0]), len(row)) in attended for row in split.axis.rows)
    }


def _run_once(model: nn.Module, view: View, slots: Sequence[Slot] | None, wishes: Mapping[int, int]) -> Trace:
    """A first run in the way ``view``."""

    def run(lent: Sequence[Tensor]) -> Trace:
        _warm_up(_copy(model, lent), view, lent)
        return _result(Run(_copy(model, lent), view, slots=slots, wishes=wishes), lent)

    try:
        return run(list(model.parameters()))
    except LentWrittenError:
        return run(())


def _warm_up(model: nn.Module, view: View, lent: Sequence[Tensor]) -> None:
    """Run ``model`` unrecorded: what Python keeps from a first call on, a table by the size, is then there for all."""
    # What fails here fails in the recorded run too, which says so.
    with contextlib.suppress(ModelError):
        warm_up(model, view, writes=not lent)


def _result(run: Run, lent: Sequence[Tensor]) -> Trace:
    try:
        run.forward(lent)
    except (LentWrittenError, CompressError):
        raise
    except Exception as error:
        message = f"the forward pass on the example inputs failed: {first_line(error)}"
        if run.view.in_training:
            raise _BrokenOffError(message, run.result(writes=not lent)) from error
        raise ModelError(message) from error
    if not run.output_shapes and not run.view.in_training:
        raise ModelError("the forward pass on the example inputs put out no tensor")
    return run.result(writes=not lent)


def retrace(model: nn.Module, slots: Sequence[Slot], first: Trace) -> Trace:
    """Run a cut ``model`` on the labels that survived, ``slots``, in the way and with the choices of the run ``first``.

    ``model`` itself runs, and is of no use afterwards. What fails is not raised but reported, as a fault with the
    channels that it concerns.
    """
    run = Run(model, first.view, slots=slots, first=first)
    try:
        # Its weights are views of the uncut ones, unless it is a true cut.
        run.forward(() if first.writes else list(model.parameters()))
    except Exception as error:  # noqa: BLE001 - whatever a cut breaks is a reason to take the cut back
        layer = run.modules[-1][0] if run.modules else ""
        reason = f"the cut breaks the forward pass: {first_line(error)} (layer '{layer}')"
        run.history.fault(_suspects(run, error), reason)
        return run.result()
    run.history.finish(run.output_shapes, first.output_shapes)
    return run.result()


def _suspects(run: Run, error: Exception) -> list[Ids]:
    """Ids whose cut may have led to ``error``, the likeliest first."""
    failed = run.watch.failed
    there = ids_of([[tensor for tensor in failed if id(tensor) not in run.names], failed], run.labels)
    around = ids_of([*run.at_work(error), *run.enclosing()], run.labels)
    contracted = list(reversed(run.ledger.contracted))
    # What a function was called on came of the last products; a check in Python is of what went into its module.
    return [*there, *contracted, *around] if failed else [*around, *contracted]


def _copy(model: nn.Module, lent: Iterable[Tensor]) -> nn.Module:
    """A copy, whose parameters are those of ``model`` as far as they are ``lent``: they may be big."""
    try:
        return copied(model, {id(tensor): tensor for tensor in lent})
    except Exception as error:
        raise ModelError(f"the model cannot be copied: {first_line(error)}") from error
