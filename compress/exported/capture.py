"""From a module to its graph, with any number of inputs at once."""

from __future__ import annotations

import contextlib
import logging
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from compress.errors import ModelError, first_line

_TORCH = Path(torch.__file__).parent
_HERE = Path(__file__).parent


def capture(model: nn.Module, example_input: Tensor, *, fixed: bool = False) -> ExportedProgram:
    """The graph of ``model``, in the mode it is in, for inputs of ``example_input``'s shape and any batch size.

    Args:
        model: on the device of ``example_input``.
        example_input: ``[n, ...]``.
        fixed: for the batch size of ``example_input`` alone.

    Raises:
        ModelError: if the model cannot be captured; the message names the line of its code.
    """
    try:
        with quiet_torch():
            if fixed:
                return torch.export.export(model, (example_input,))
            # Of a single input a capture would take the 1 for a constant.
            inputs = batch_of(example_input, max(2, len(example_input)))
            return torch.export.export(model, (inputs,), dynamic_shapes=({0: Dim("batch", min=1)},))
    except Exception as cause:
        reason = first_line(cause)
        if reason.startswith("Constraints violated"):
            reason = "its code fixes the batch size"
        raise ModelError(f"{type(model).__name__} cannot be exported: {reason}{_line_of(cause)}") from cause


@contextlib.contextmanager
def quiet_torch() -> Iterator[None]:
    """Say nothing of what torch and its companions warn of and log while they work on their own graphs."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for kind in (DeprecationWarning, FutureWarning, UserWarning):
                warnings.simplefilter("ignore", kind)
            yield
    finally:
        logging.disable(disabled)


def batch_of(example_input: Tensor, count: int) -> Tensor:
    """``[count, ...]``: the inputs in ``example_input: [n, ...]`` over and over."""
    repeats = -(-count // len(example_input))
    return torch.cat([example_input] * repeats)[:count]


def _line_of(cause: BaseException) -> str:
    """Where the model's own code was when it failed: the innermost frame that is neither torch's nor ours."""
    frames = [
        frame
        for frame in traceback.extract_tb(cause.__traceback__)
        if not frame.filename.startswith("<") and not {_TORCH, _HERE} & set(Path(frame.filename).parents)
    ]
    if not frames or frames[-1].line is None:
        return ""
    return f" ({frames[-1].filename}, line {frames[-1].lineno}: {frames[-1].line})"
