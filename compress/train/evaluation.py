"""How often a model is wrong on a split."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.calling.inputs import Inputs
from compress.calling.outputs import Outputs, selected
from compress.data import Split
from compress.errors import CompressError, ConfigError, DataError, ModelError, first_line
from compress.quality import judge_model, topk_error
from compress.train.processes import as_device

_TOP = 5


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How often a model was wrong, and on which examples.

    Attributes:
        top1_error: share of examples whose class was not the most likely one, in 0..1.
        top5_error: share whose class was not among the five most likely, in 0..1; all of them where there are fewer.
        top1_correct, top5_correct: a bit for each example in the split's order, set where it was right, packed as by
            ``numpy.packbits``.
        num_examples: how many of those bits count.
    """

    top1_error: float
    top5_error: float
    top1_correct: bytes
    top5_correct: bytes
    num_examples: int


def evaluate(
    model: nn.Module,
    split: Split,
    *,
    outputs: Outputs | None = None,
    batch_size: int = 256,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Evaluation:
    """Top-1 and top-5 error of ``model`` on every example of ``split``, in eval mode and without autocast.

    Classes with equal logits rank in their own order, so that a result does not hang on how a device sorts. The model
    comes out as it went in, every module in the mode it was in.

    Args:
        model: puts out logits ``[n, num_classes]``.
        split: images to classify.
        outputs: which of what the model puts out are the logits: ``lambda out: out.logits``; all of it if left out.
        batch_size: images at once.
        device: where to run; a model that lies elsewhere is copied there. Left out: where the model lies.
        progress: whether to show a bar, if stderr is a terminal.

    Raises:
        ConfigError: if ``batch_size`` or ``device`` makes no sense.
        DataError: if the split is empty.
        ModelError: if the model cannot run on the images, or its logits are of another shape or not a number.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size!r}")
    if len(split) == 0:
        raise DataError("a split must hold at least one example to evaluate on, got none")
    judged = judge_model(
        model,
        split.batches(batch_size),
        [topk_error(k, split.num_classes) for k in (1, _TOP)],
        outputs=outputs,
        device=None if device is None else as_device(device),
        total=math.ceil(len(split) / batch_size),
        progress=progress,
    )
    top1, top5 = judged["top1_error"], judged[f"top{_TOP}_error"]
    return Evaluation(
        top1_error=top1.value,
        top5_error=top5.value,
        top1_correct=np.packbits(top1.rows[:, 0] == 0).tobytes(),
        top5_correct=np.packbits(top5.rows[:, 0] == 0).tobytes(),
        num_examples=len(split),
    )


def outputs_of(
    model: nn.Module, inputs: Inputs, num_classes: int | None, *, outputs: Outputs | None = None, role: str = "model"
) -> Any:
    """What the model, which messages call by its ``role``, puts out; logits ``[n, num_classes]`` where that is known.

    Raises:
        ModelError: if it fails, or puts out something else than the logits.
    """
    try:
        found = selected(inputs.call(model), outputs)
    except CompressError:
        raise
    except Exception as cause:
        shapes = " and ".join(str(list(tensor.shape)) for tensor in inputs.tensors)
        reason = first_line(cause)
        raise ModelError(f"a {role} must run on inputs of shape {shapes}, this one failed: {reason}") from cause
    if num_classes is None:
        return found
    expected = [len(inputs.tensors[0]), num_classes]
    if not isinstance(found, Tensor) or list(found.shape) != expected:
        got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ModelError(f"a {role} must put out logits of shape {expected}, this one put out {got}")
    return found
