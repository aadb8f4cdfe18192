"""What stays the same over a training: its data, what it makes smaller, and how many steps an epoch has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from compress.calling.outputs import Outputs
from compress.data import AnySplit, Data, ImageData, LoaderSplit, resident
from compress.errors import ConfigError
from compress.quality import Quality, topk_error
from compress.train.config import FitConfig
from compress.train.distillation import output_loss, soft_loss
from compress.train.objective import Loss, Objective, label_loss, prepare_teacher
from compress.train.processes import Processes, has_bfloat16


@dataclass(frozen=True, kw_only=True)
class Judge:
    """What a training is told by, see :func:`compress.train.fit.fit`; what is None goes by the data."""

    loss: Loss | None
    distance: Loss | None
    quality: Quality | None
    outputs: Outputs | None


@dataclass(frozen=True, kw_only=True)
class Run:
    """What stays the same from the first step to the last.

    Attributes:
        config: as it was given.
        processes: those that train together, and this one's device.
        train: what is trained on, on the device where there is room.
        validation: what is held out, likewise; None where nothing is.
        objective: what is made smaller.
        batch_size: of this process.
        steps_per_epoch: batches that this process takes in an epoch.
        quality: what the best epoch is chosen by; the loss if None.
    """

    config: FitConfig
    processes: Processes
    train: AnySplit
    validation: AnySplit | None
    objective: Objective
    batch_size: int
    steps_per_epoch: int
    quality: Quality | None

    @property
    def updates_per_epoch(self) -> int:
        """How many steps the optimizer takes in an epoch."""
        return math.ceil(self.steps_per_epoch / self.config.accumulated_batches)


def prepare(
    model: nn.Module,
    data: Data,
    config: FitConfig,
    processes: Processes,
    *,
    teacher: nn.Module | None,
    judge: Judge,
) -> Run:
    """The run that trains ``model``, which lies on the device already, in place.

    Raises:
        ConfigError: if the best epoch is to be chosen by nearness to a dense model, and there is no teacher.
    """
    if judge.quality is not None and judge.quality.against == "dense" and teacher is None:
        raise ConfigError(
            f"the quality {judge.quality.name!r} is held against the dense model, which must be given as teacher"
        )
    batch_size = processes.share_of(config.batch_size)
    train: AnySplit = data.train
    validation: AnySplit | None = None
    if config.validation_fraction > 0:
        train, validation = data.holdout(config.validation_fraction, config.seed)
    device = processes.device
    train = resident(train, device)
    validation = None if validation is None else resident(validation, device)
    forward = model
    if processes.world_size > 1:
        forward = DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)
    num_classes = len(data.classes) if isinstance(data, ImageData) and judge.loss is None else None
    quality = judge.quality
    if quality is None and num_classes is not None:
        quality = topk_error(1, num_classes)
    by_labels = partial(soft_loss, temperature=config.temperature)
    return Run(
        config=config,
        processes=processes,
        train=train,
        validation=validation,
        objective=Objective(
            config=config,
            forward=forward,
            teacher=None if teacher is None else prepare_teacher(teacher, model, config, processes),
            loss=judge.loss or label_loss(config),
            distance=judge.distance or (by_labels if judge.loss is None else output_loss),
            outputs=judge.outputs,
            num_classes=num_classes,
            bfloat16=config.autocast == "bfloat16" or (config.autocast == "auto" and has_bfloat16(device)),
        ),
        batch_size=batch_size,
        steps_per_epoch=_steps_of(train, batch_size, processes),
        quality=quality,
    )


def _steps_of(train: AnySplit, batch_size: int, processes: Processes) -> int:
    """How many batches this process takes in an epoch."""
    if isinstance(train, LoaderSplit):
        return max(1, train.num_batches // processes.world_size)
    return math.ceil(len(train) // processes.world_size / batch_size)
