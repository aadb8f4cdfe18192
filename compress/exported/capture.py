"""From a module to its graph, with any number of inputs at once."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.utils._pytree import SUPPORTED_NODES, tree_is_leaf, tree_map

from compress.calling.batches import batch_size, repeated
from compress.calling.inputs import Inputs, inputs_of
from compress.errors import ModelError, first_line
from compress.modules.copying import check_given

_TORCH = Path(torch.__file__).parent
_HERE = Path(__file__).parent
_PLAIN = (Tensor, bool, int, float, complex, str, type(None))


def capture(
    model: nn.Module, example_inputs: Any, *, alike: Sequence[Inputs] = (), fixed: bool = False
) -> ExportedProgram:
    """The graph of ``model``, in the mode it is in, for inputs of the examples' shapes and any batch size.

    What the model puts out may be nested. An output that is neither a tensor nor a number, as a cache of keys and
    values, becomes None. What the forward pass keeps on its modules is put back.

    Args:
        model: on the device of the inputs.
        example_inputs: as :func:`compress.calling.inputs.inputs_of` takes them; the batch is the first dimension.
        alike: further inputs; a size in which these differ is left open too.
        fixed: for the sizes of ``example_inputs`` alone.

    Raises:
        ModelError: if the model cannot be captured; the message names the line of its code.
    """
    inputs = inputs_of(example_inputs)
    check_given(model, "export")
    try:
        with quiet_torch(), _kept(model), _plain_forward(model):
            if fixed:
                return torch.export.export(model, inputs.args, dict(inputs.kwargs))
            # Of a single input a capture would take the 1 for a constant.
            several = repeated(inputs, max(2, batch_size(inputs)))
            try:
                return _exported(model, several, alike, Dim("batch", min=1))
            # torch has no type of its own for what it finds of sizes.
            except Exception as cause:
                program = _after_another_size(model, several, alike)
                if program is None:
                    raise cause from None
                return program
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


def _exported(model: nn.Module, inputs: Inputs, alike: Sequence[Inputs], batch: Any) -> ExportedProgram:
    """Exported with the batch and all that differs left open."""
    size, open_sizes = batch_size(inputs), ShapesCollection()  # type: ignore[no-untyped-call]
    for place, tensor in enumerate(inputs.tensors):
        shapes = [one.tensors[place].shape for one in alike]
        dims = {
            dim: Dim.AUTO
            for dim in range(tensor.ndim)
            if any(len(shape) == tensor.ndim and shape[dim] != tensor.shape[dim] for shape in shapes)
        }
        if tensor.ndim and len(tensor) == size:
            dims[0] = batch
        if dims:
            open_sizes[tensor] = dims
    args, kwargs = inputs.args, dict(inputs.kwargs)
    # A fast path of encoders would put several layers into one operation; a layer without gradients needs no mode.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.set_grad_enabled(model.training):
            shapes = open_sizes.dynamic_shapes(model, args, kwargs)  # type: ignore[no-untyped-call]
            return torch.export.export(model, args, kwargs, dynamic_shapes=shapes)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _after_another_size(model: nn.Module, inputs: Inputs, alike: Sequence[Inputs]) -> ExportedProgram | None:
    """Exported after a forward pass on another batch size; None if the batch does not stay open then either.

    A model that keeps the shape of its last input, and computes some things anew where that changes, would otherwise
    be captured as one that computes nothing, for the batch size it saw last.
    """
    try:
        with torch.no_grad():
            repeated(inputs, batch_size(inputs) + 1).call(type(model).forward.__get__(model))
        program = _exported(model, inputs, alike, Dim.AUTO)
    # The first attempt's error is the one that is told.
    except Exception:  # noqa: BLE001
        return None
    return program if program.range_constraints else None


@contextlib.contextmanager
def _kept(model: nn.Module) -> Iterator[None]:
    """What the modules keep in plain attributes is afterwards what it was."""
    before = [(module, dict(vars(module))) for module in model.modules()]
    try:
        yield
    finally:
        for module, attributes in before:
            now = vars(module)
            for name in now.keys() - attributes.keys():
                del now[name]
            now.update(attributes)


@contextlib.contextmanager
def _plain_forward(model: nn.Module) -> Iterator[None]:
    """Let the forward pass put out what a graph can, and leave nothing behind that belongs to its capture."""
    forward = model.forward

    @functools.wraps(forward)
    def plain(*args: Any, **kwargs: Any) -> Any:
        with _kept(model):
            return _outputs(forward(*args, **kwargs))

    had = "forward" in vars(model)
    model.forward = plain
    try:
        yield
    finally:
        if had:
            model.forward = forward
        else:
            del model.forward


def _outputs(value: Any) -> Any:
    """The same with None for what a graph cannot put out."""
    kind = type(value)
    if dataclasses.is_dataclass(kind) and kind not in SUPPORTED_NODES and not isinstance(value, Mapping):
        torch.export.register_dataclass(kind, serialized_type_name=f"{kind.__module__}.{kind.__qualname__}")
    if isinstance(value, Mapping) and kind not in SUPPORTED_NODES:
        value = dict(value)
    if tree_is_leaf(value):
        return value if isinstance(value, (*_PLAIN, torch.SymInt, torch.SymFloat, torch.SymBool)) else None
    return tree_map(_outputs, value, is_leaf=lambda one: one is not value)


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
