"""One run of a network on channel labels.

The network's own forward pass runs once, as it is, on its example inputs; a dispatch mode sees each ATen call it makes
and carries the labels along. Whatever runs can be traced: there is no graph to capture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from torch import Tensor, nn

from compress.channels.copying import copied
from compress.channels.labels import Ledger, Slot
from compress.channels.modes import LentWrittenError
from compress.channels.run import Run, Trace
from compress.errors import ModelError, first_line
from compress.inputs import Inputs

__all__ = ["Heads", "Trace", "retrace", "trace"]

Heads = Literal["dims", "whole"]


def trace(model: nn.Module, example: Inputs, heads: Heads = "dims") -> Trace:
    """Run ``model`` on labels of its own. A copy runs, in eval mode: nothing of ``model`` changes.

    Args:
        model: any that runs on ``example``.
        example: its inputs.
        heads: whether the channels of an attention are the dimensions of its heads, or whole heads.

    Raises:
        ModelError: if the model cannot be copied, if its forward pass fails, or puts out no tensor.
    """
    found = _first_run(model, example, wishes={})
    wishes = _whole_heads(found.ledger) if heads == "whole" else {}
    return _first_run(model, example, wishes) if wishes else found


def _whole_heads(ledger: Ledger) -> dict[int, int]:
    """What to choose, by the number of the call, so that heads shrink in number where they did in width."""
    attended = {(int(row[0]), len(row)) for rows in ledger.attended if len(rows) > 1 for row in rows}
    return {
        split.call: split.heads
        for split in ledger.splits
        if any((int(row[0]), len(row)) in attended for row in split.axis.rows)
    }


def _first_run(model: nn.Module, example: Inputs, wishes: Mapping[int, int]) -> Trace:
    try:
        return _only_run(model, example, wishes, lent=list(model.parameters()))
    except LentWrittenError:
        return _only_run(model, example, wishes, lent=())


def _only_run(model: nn.Module, example: Inputs, wishes: Mapping[int, int], lent: Sequence[Tensor]) -> Trace:
    run = Run(_copy(model, lent), slots=None, first=None, wishes=wishes)
    try:
        run.forward(example, lent)
    except LentWrittenError:
        raise
    except Exception as error:
        raise ModelError(f"the forward pass on the example inputs failed: {first_line(error)}") from error
    if not run.output_shapes:
        raise ModelError("the forward pass on the example inputs put out no tensor")
    return run.result(writes=not lent)


def retrace(model: nn.Module, example: Inputs, slots: Sequence[Slot], first: Trace) -> Trace:
    """Run a cut ``model`` on the labels that survived, ``slots``, making the choices of the run before the cut.

    ``model`` itself runs, in eval mode, and is of no use afterwards. What fails is not raised but reported, as a
    fault with the channels that it concerns.
    """
    run = Run(model.eval(), slots=slots, first=first)
    try:
        # Its weights are views of the uncut ones, unless it is a true cut.
        run.forward(example, () if first.writes else list(model.parameters()))
    except Exception as error:  # noqa: BLE001 - whatever a cut breaks is a reason to take the cut back
        layer = run.modules[-1][0] if run.modules else ""
        reason = f"the cut breaks the forward pass: {first_line(error)} (layer '{layer}')"
        data = [tensor for tensor in run.watch.failed if id(tensor) not in run.names]
        run.history.fault([data, run.watch.failed, *run.at_work(error), *run.enclosing()], reason, run.labels)
        return run.result()
    run.history.finish(run.output_shapes, first.output_shapes)
    return run.result()


def _copy(model: nn.Module, lent: Iterable[Tensor]) -> nn.Module:
    """A copy in eval mode, whose parameters are those of ``model`` as far as they are ``lent``: they may be big."""
    try:
        return copied(model, {id(tensor): tensor for tensor in lent}).eval()
    except Exception as error:
        raise ModelError(f"the model cannot be copied: {first_line(error)}") from error
