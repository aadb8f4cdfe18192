"""Running a model over test examples, and keeping what each of them gave."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.calling.inputs import Batch, device_of, each_batch, evaluating, run, tensors_in
from compress.calling.outputs import Outputs, selected
from compress.calling.randomness import own_random_state
from compress.errors import ConfigError, DataError, ModelError, first_line
from compress.modules.copying import copied
from compress.quality.quality import Quality
from compress.system.progress import track

Groups = Callable[[Any], Any]
"""A batch's targets to which examples belong together: a number or a name for each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """What a model came to in one quality.

    Attributes:
        quality: which.
        rows: ``[n, width]``: a row for each example, in their order.
        value: the figure of all.
        groups: ``[n]``: which examples belong together; None where each is on its own.
    """

    quality: Quality
    rows: NDArray[np.float64]
    value: float
    groups: NDArray[np.int64] | None = None


def judge_model(
    model: nn.Module,
    batches: Iterable[Any],
    qualities: Sequence[Quality],
    *,
    reference: nn.Module | None = None,
    outputs: Outputs | None = None,
    groups: Groups | None = None,
    device: torch.device | None = None,
    total: int | None = None,
    progress: bool = False,
) -> dict[str, Judged]:
    """All qualities of ``model``, by name, in one pass over pairs (inputs, targets); in eval mode, without autocast.

    Args:
        model: comes out as it went in, every module in the mode it was in.
        batches: pairs of inputs, as :func:`compress.calling.inputs.inputs_of` takes them, and targets of any structure;
            inputs alone where no quality takes targets.
        qualities: what it is judged by.
        reference: the dense model, of qualities that are held against it; may be ``model`` itself.
        outputs: which of what the model puts out counts; all of it if left out.
        groups: which examples belong together.
        device: where to run; a model that lies elsewhere is copied there. Left out: where the model lies.
        total: number of batches, for the bar.
        progress: whether to show a bar, if stderr is a terminal.

    Raises:
        DataError: if there is no example.
        ModelError: if the model does not run on them.
        ConfigError: if a quality gives no row of numbers for each example, or is held against a reference that is not
            given.
    """
    compared = next((quality.name for quality in qualities if quality.against == "dense"), None)
    if compared is not None and reference is None:
        raise ConfigError(f"the quality {compared!r} is held against the dense model, which must be given as reference")
    by_targets = any(quality.against == "targets" for quality in qualities)
    target = device_of(model) if device is None else device
    itself = reference is model or compared is None
    model = _on(model, target)
    exact_model = model if itself or reference is None else _on(reference, target)
    rows: dict[str, list[NDArray[np.float64]]] = {quality.name: [] for quality in qualities}
    keys: list[Any] = []
    # Not in inference mode: its tensors are of a kind of their own, for which a compiled model is compiled once more.
    with (
        evaluating(model),
        evaluating(exact_model),
        torch.no_grad(),
        own_random_state([target]),
        torch.autocast(target.type, enabled=False),
    ):
        for batch in track(_read(batches, target, by_targets), "evaluating", total=total, shown=progress):
            output = _put_out(model, batch, outputs)
            exact = output if exact_model is model else _put_out(exact_model, batch, outputs)
            count = num_examples(batch)
            for quality in qualities:
                wanted = batch.targets if quality.against == "targets" else exact
                rows[quality.name].append(rows_of(quality, output, wanted, count))
            if groups is not None:
                keys += _keys(groups, batch.targets, count)
    if not keys and not any(rows.values()):
        raise DataError("a split must hold at least one example to evaluate on, got none")
    numbers = np.unique([str(key) for key in keys], return_inverse=True)[1].astype(np.int64) if keys else None
    return {quality.name: _judged(quality, np.concatenate(rows[quality.name]), numbers) for quality in qualities}


def rows_of(quality: Quality, output: Any, targets: Any, count: int) -> NDArray[np.float64]:
    """``[count, width]``: what one batch gives.

    Raises:
        ConfigError: if it is no row of numbers for each example, or the quality fails on these targets.
    """
    try:
        value = quality.rows(output, targets)
    except (ConfigError, ModelError, DataError):
        raise
    except Exception as cause:
        raise ConfigError(f"the quality {quality.name!r} failed on outputs and targets: {first_line(cause)}") from cause
    rows = np.asarray(value.detach().cpu().double() if isinstance(value, Tensor) else value, dtype=np.float64)
    if rows.ndim == 1:
        rows = rows[:, None]
    if rows.ndim != 2 or len(rows) != count:  # noqa: PLR2004 - a row for each example
        got = "a single number" if rows.ndim == 0 else f"an array of shape {list(rows.shape)}"
        raise ConfigError(f"the quality {quality.name!r} must give a row for each of {count} examples, got {got}")
    if np.isnan(rows).any():
        raise ModelError(f"the quality {quality.name!r} must give numbers, got NaN: so does a model that puts out NaN")
    return rows


def num_examples(batch: Batch) -> int:
    """How many examples a batch holds: the first dimension of its first tensor.

    Raises:
        DataError: if it has none.
    """
    first = next(iter(batch.inputs.tensors), None)
    if first is None or first.ndim == 0:
        raise DataError("a batch must hold a tensor whose first dimension is that of the examples")
    return len(first)


def _on(model: nn.Module, device: torch.device) -> nn.Module:
    """The model; a copy of one that lies elsewhere."""
    return model if device_of(model) == device else copied(model).to(device)


def _read(batches: Iterable[Any], device: torch.device, by_targets: bool) -> Iterator[Batch]:  # noqa: FBT001
    for batch in each_batch(batches, name="test examples", device=device):
        if by_targets and batch.targets is None:
            raise DataError("a quality takes pairs (inputs, targets), got a batch without targets")
        yield batch


def _put_out(model: nn.Module, batch: Batch, outputs: Outputs | None) -> Any:
    output = selected(run(model, batch.inputs, "the test examples"), outputs)
    for tensor in tensors_in([output]):
        if tensor.is_floating_point() and tensor.isnan().any():
            raise ModelError("a model's outputs must be numbers to be judged, this one put out NaN")
    return output


def _keys(groups: Groups, targets: Any, count: int) -> list[Any]:
    keys = groups(targets)
    found = keys.tolist() if isinstance(keys, Tensor) else list(keys)
    if len(found) != count:
        raise ConfigError(f"groups must name one for each of {count} examples, got {len(found)}")
    return found


def _judged(quality: Quality, rows: NDArray[np.float64], groups: NDArray[np.int64] | None) -> Judged:
    value = float(quality.reduce(rows, np.ones((1, len(rows))))[0])
    if not np.isfinite(value):
        raise ConfigError(f"the quality {quality.name!r} of {len(rows):,} examples must be a number, got {value}")
    return Judged(quality=quality, rows=rows, value=value, groups=groups)
