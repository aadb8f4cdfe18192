"""How near the outputs of one model come to those of another: what every report is measured by.

It takes what two forward passes put out, and knows nothing of how either model was made. The reference is the model
that the user gave, never what a technique made of it on its way.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from compress.calling.inputs import Inputs, device_of, evaluating, run
from compress.calling.outputs import named_tensors
from compress.calling.randomness import own_random_state
from compress.errors import ModelError

# Two ways to run the same float32 operations differ by less; what computes another model by far more.
SAME = 0.01


def relative_error(exact: Any, other: Any) -> float:
    """Root of the mean, over the tensors of the outputs, of the error's power over the tensor's own.

    So each tensor weighs the same, whatever the size of its numbers. Entries that are equal, infinite ones too, have no
    error. Integers count only where nothing else is put out.

    Args:
        exact: what the reference put out, of any nesting.
        other: what is held against it; it must be nested alike.

    Raises:
        ModelError: if there is no tensor to compare, or the two are nested otherwise or of other shapes.
    """
    ratios = [_noise_to_signal(*pair) for pair in _pairs(exact, other)]
    return math.sqrt(sum(ratios) / len(ratios))


def snr_db(exact: Any, other: Any) -> float:
    """Signal-to-noise ratio of the outputs in dB: -20 log10 of :func:`relative_error`, infinite where that is 0.

    Raises:
        ModelError: as :func:`relative_error` does.
    """
    error = relative_error(exact, other)
    return math.inf if error == 0 else -20 * math.log10(error)


def check_same(
    model: nn.Module, call: Callable[..., Any], inputs: Inputs, what: str, *, tolerance: float = SAME
) -> None:
    """Refuse what computes something else than ``model``.

    Where a module was made of it, one that is the same in float64 is let pass: rounding decides which of a detector's
    places are the best of many that are about as good, and in which order.

    Args:
        model: what the user gave.
        call: what was made of it.
        inputs: to run both on.
        what: what a message calls it.
        tolerance: the largest :func:`relative_error`.

    Raises:
        ModelError: if they differ by more, and the model does not itself differ from one call to the next.
    """
    # The random state goes on from one call to the next, which shows whether the model itself draws.
    with evaluating(model), torch.no_grad(), own_random_state([device_of(model)]):
        exact = run(model, inputs)
        error = relative_error(exact, inputs.call(call))
        differs = error > tolerance and relative_error(exact, run(model, inputs)) <= tolerance
    if differs:
        if isinstance(call, nn.Module) and _error_in_float64(model, call, inputs) <= tolerance:
            return
        raise ModelError(
            f"{what} does not compute what the model does: its outputs are {error:.1%} off on the inputs given"
        )


def _error_in_float64(model: nn.Module, made: nn.Module, inputs: Inputs) -> float:
    """As :func:`relative_error`; infinite where one of the two does not run in float64."""
    args, kwargs = tree_map_only(Tensor, _wide, (inputs.args, dict(inputs.kwargs)))
    wide = Inputs(args=args, kwargs=kwargs)
    try:
        with torch.no_grad():
            return relative_error(*(wide.call(copy.deepcopy(one).double()) for one in (model, made)))
    except Exception:  # noqa: BLE001 - a module raises what it likes where it writes a type, or cannot be copied
        return math.inf


def _wide(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def powers(exact: Any, other: Any) -> Tensor:
    """``[n, 2 * tensors]``: of each example, and of each tensor of the outputs, power of the error and its own.

    The root of the mean, over the tensors, of the sums' ratios is :func:`relative_error` of all examples.

    Args:
        exact, other: as for :func:`relative_error`; the first dimension of every tensor is that of the examples.

    Raises:
        ModelError: as :func:`relative_error` does, or if a tensor has no row for each example.
    """
    pairs = _pairs(exact, other)
    if any(ours.ndim == 0 or len(ours) != len(pairs[0][0]) for ours, _ in pairs):
        raise ModelError(
            "outputs must have a row for each example to be compared one by one, got shapes"
            f" {[list(ours.shape) for ours, _ in pairs]}: name those that do with outputs="
        )
    columns = []
    for ours, theirs in pairs:
        columns += [power.flatten(1).sum(dim=1) if power.ndim > 1 else power for power in _powers(ours, theirs)]
    return torch.stack(columns, dim=1)


def _pairs(exact: Any, other: Any) -> list[tuple[Tensor, Tensor]]:
    """The tensors of both that are held against each other."""
    ours, theirs = _comparable(exact), _comparable(other)
    if not ours:
        raise ModelError(f"a model must put out a tensor to be compared, got {type(exact).__name__}")
    if [one.shape for one in ours] != [one.shape for one in theirs]:
        shapes = [[list(one.shape) for one in outputs] for outputs in (ours, theirs)]
        raise ModelError(f"outputs of shapes {shapes[0]} cannot be compared with {shapes[1]}")
    return list(zip(ours, theirs, strict=True))


def _comparable(outputs: Any) -> list[Tensor]:
    """The tensors that are compared, in order."""
    # What another object holds, as a cache does, is no output.
    named = named_tensors(outputs, within_objects=False)
    tensors = [tensor.detach() for _, tensor in named if tensor.numel()]
    floats = [tensor for tensor in tensors if tensor.is_floating_point() or tensor.is_complex()]
    return floats or tensors


def _powers(exact: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Of each number: power of the difference, 0 between equal ones, and of ``exact``, 0 where that is infinite."""
    wide = torch.complex128 if exact.is_complex() else torch.float64
    exact, other = exact.to(wide), other.to(exact.device, wide)
    same = (exact == other) | (exact.isnan() & other.isnan())
    noise = (exact - other).abs().square().masked_fill(same, 0.0)
    return noise, exact.abs().square().masked_fill(~exact.isfinite(), 0.0)


def _noise_to_signal(exact: Tensor, other: Tensor) -> float:
    """Power of the difference over the power of ``exact``."""
    noise, signal = (float(power.sum()) for power in _powers(exact, other))
    if noise == 0:
        return 0.0
    return noise / signal if signal > 0 and math.isfinite(noise) else math.inf
