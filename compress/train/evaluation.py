"""How often a model is wrong on a split."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from compress.copying import copied
from compress.data import Split
from compress.errors import CompressError, DataError, ModelError, first_line
from compress.inputs import device_of, evaluating
from compress.outputs import Outputs, selected
from compress.progress import track
from compress.train.processes import Processes, alone, as_device

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
    if len(split) == 0:
        raise DataError("a split must hold at least one example to evaluate on, got none")
    own = device_of(model)
    target = own if device is None else as_device(device)
    if target != own:
        model = copied(model).to(target)
    ranks = true_class_ranks(
        model, split, outputs=outputs, batch_size=batch_size, processes=alone(target), progress=progress
    )
    top1, top5 = ranks < 1, ranks < _TOP
    return Evaluation(
        top1_error=_share_of_false(top1),
        top5_error=_share_of_false(top5),
        top1_correct=np.packbits(top1.numpy()).tobytes(),
        top5_correct=np.packbits(top5.numpy()).tobytes(),
        num_examples=len(split),
    )


def true_class_ranks(
    model: nn.Module,
    split: Split,
    *,
    outputs: Outputs | None = None,
    batch_size: int,
    processes: Processes,
    progress: bool = False,
) -> Tensor:
    """``[n]``: how many classes the model holds likelier than the true one, for this process's part of the split."""
    device = processes.device
    batches = split.batches(batch_size, rank=processes.rank, world_size=processes.world_size)
    total = math.ceil(len(split) / (batch_size * processes.world_size))
    ranks = [torch.empty(0, dtype=torch.int64)]
    # Not in inference mode: its tensors are of a kind of their own, for which a compiled model is compiled once more.
    with evaluating(model), torch.no_grad(), torch.autocast(device.type, enabled=False):
        for images, labels in track(batches, "evaluating", total=total, shown=progress):
            logits = logits_of(model, images.to(device), split.num_classes, outputs=outputs)
            if logits.isnan().any():
                raise ModelError("a model's logits must be numbers, this one put out NaN")
            ranks.append(_ranks(logits, labels.to(device)).cpu())
    return torch.cat(ranks)


def logits_of(
    model: nn.Module, images: Tensor, num_classes: int, *, outputs: Outputs | None = None, role: str = "model"
) -> Tensor:
    """Run the model, which messages call by its ``role``: ``images: [n, c, h, w]`` to ``[n, num_classes]``.

    Raises:
        ModelError: if it fails, or puts out something else.
    """
    try:
        logits = selected(model(images), outputs)
    except CompressError:
        raise
    except Exception as cause:
        reason = first_line(cause)
        raise ModelError(
            f"a {role} must run on images of shape {list(images.shape)}, this one failed: {reason}"
        ) from cause
    expected = [len(images), num_classes]
    if not isinstance(logits, Tensor) or list(logits.shape) != expected:
        got = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(f"a {role} must put out logits of shape {expected}, this one put out {got}")
    return logits


def _ranks(logits: Tensor, labels: Tensor) -> Tensor:
    own = logits.gather(1, labels[:, None])
    before = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    return ((logits > own) | ((logits == own) & before)).sum(dim=1)


def _share_of_false(correct: Tensor) -> float:
    return int((~correct).sum()) / len(correct)
