"""Training: SGD with warm-up and a cosine, the best epoch kept, resumable, on one process or several."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F  # noqa: N812
from torch.nn.parallel import DistributedDataParallel

from compress.copying import check_given, copied
from compress.data import ImageData, Split, resident
from compress.errors import ArtifactError, DataError, ModelError
from compress.outputs import Outputs
from compress.progress import stderr_console
from compress.train.checkpoint import State, identity, load_checkpoint_, save_checkpoint, tensors_of
from compress.train.config import FitConfig, learning_rate
from compress.train.evaluation import true_class_ranks
from compress.train.objective import Objective, prepare_teacher
from compress.train.processes import Processes, as_device, best_device, has_bfloat16, joined, own_random_state, seed_
from compress.train.progress import EpochRecord, fit_progress

_DEFAULT = FitConfig()
# Reading a loss makes a GPU wait for it, so losses are looked at in lots.
_STEPS_BETWEEN_CHECKS = 50
# Between the seeds of neighbouring runs: no two of them meet in the same epoch seed.
_SEED_STRIDE = 1_000_003


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """A trained model and how it came about.

    Attributes:
        model: as it was after the best epoch; on the device, in the memory format and in the modes of the given one.
        best_epoch: counted from 1.
        history: a record of every epoch.
    """

    model: nn.Module
    best_epoch: int
    history: tuple[EpochRecord, ...]


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What stays the same from the first step to the last."""

    config: FitConfig
    processes: Processes
    train: Split
    validation: Split | None
    objective: Objective
    batch_size: int  # of this process
    steps_per_epoch: int


def fit(
    model: nn.Module,
    data: ImageData,
    config: FitConfig = _DEFAULT,
    *,
    outputs: Outputs | None = None,
    teacher: nn.Module | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
    device: torch.device | str | None = None,
) -> FitResult:
    """A copy of ``model`` trained on ``data.train``; ``model`` and the caller's random state are left as they are.

    SGD with Nesterov momentum on the cross-entropy, and with a ``teacher`` on the distance to what that puts out for
    the same images, see :mod:`compress.train.distillation`. The best epoch is chosen on examples held out from the
    training split, never on the test split; of equally good ones the latest. On a CPU the result depends on the
    arguments alone, to the bit, as long as the number of threads and processes stays the same.

    Under torchrun every process calls it, takes its part of each batch and returns the same weights.

    Args:
        model: puts out logits ``[n, num_classes]``.
        data: what to train on.
        config: how to train.
        outputs: which of what the model (and the teacher) put out are the logits; all of it if left out.
        teacher: a trained model of the same classes, e.g. the one that was compressed; run in eval mode and left as it
            is. The settings ``temperature``, ``alpha``, ``hints`` and ``hint_weight`` say how to learn from it.
        checkpoint: a file to write after every epoch. Where it exists already, training goes on from it, to the same
            weights as if it had never stopped. It is deleted at the end. All processes must see it.
        progress: whether to show how far the training is, on stderr.
        device: where to train; a CUDA device if there is one, else the CPU, if left out.

    Raises:
        ConfigError: if the number of processes does not divide the batch size, ``device`` does not exist, or a hint
            names no module of both models.
        ModelError: if the model cannot be copied or trained, the teacher knows other classes, hints differ in their
            shapes, or the loss is no longer finite.
        ArtifactError: if the checkpoint is of another run or damaged, or cannot be written.
    """
    check_given(model, "train")
    target = best_device() if device is None else as_device(device)
    path = None if checkpoint is None else Path(checkpoint)
    processes = joined(target)
    with own_random_state(target):
        state = _fresh_state(model, config, target)
        run = _prepare(state, data, config, processes, teacher=teacher, outputs=outputs)
        taught_by = run.objective.teacher
        digests = identity(model, data, config, None if taught_by is None else taught_by.model)
        if path is not None:
            _resume_(state, path, run, digests)
        try:
            _train_(state, run, path, digests, shown=progress and processes.rank == 0)
        except KeyboardInterrupt:
            if path is not None and path.exists() and processes.rank == 0:
                stderr_console().print(f"training stopped, a rerun resumes from {path}", highlight=False)
            raise
        trained = copied(model)
        trained.load_state_dict(state.best or state.model.state_dict())
        if path is not None and processes.rank == 0:
            path.unlink(missing_ok=True)
        # No process may start another run while the file of this one is still there.
        processes.wait()
    return FitResult(model=trained, best_epoch=state.best_epoch, history=tuple(state.history))


def _fresh_state(model: nn.Module, config: FitConfig, device: torch.device) -> State:
    """A copy of the model, ready for its first step."""
    model = copied(model).to(device)
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ModelError("a model must have parameters that require gradients to be trained, this one has none")
    # Decay would pull scales and shifts to zero, which limits nothing (He et al., "Bag of Tricks", CVPR 2019).
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = optim.SGD(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
    )
    return State(model=model, optimizer=optimizer)


def _prepare(
    state: State,
    data: ImageData,
    config: FitConfig,
    processes: Processes,
    *,
    teacher: nn.Module | None,
    outputs: Outputs | None,
) -> _Run:
    batch_size = processes.share_of(config.batch_size)
    train, validation = data.train, None
    if config.validation_fraction > 0:
        train, validation = data.holdout(config.validation_fraction, config.seed)
    device = processes.device
    train = resident(train, device)
    validation = None if validation is None else resident(validation, device)
    forward = state.model
    if processes.world_size > 1:
        forward = DistributedDataParallel(state.model, device_ids=[device] if device.type == "cuda" else None)
    examples = len(train) // processes.world_size
    return _Run(
        config=config,
        processes=processes,
        train=train,
        validation=validation,
        objective=Objective(
            config=config,
            forward=forward,
            teacher=None if teacher is None else prepare_teacher(teacher, state.model, config, processes),
            outputs=outputs,
            num_classes=train.num_classes,
            bfloat16=config.autocast == "bfloat16" or (config.autocast == "auto" and has_bfloat16(device)),
        ),
        batch_size=batch_size,
        steps_per_epoch=math.ceil(examples / batch_size),
    )


def _resume_(state: State, path: Path, run: _Run, digests: dict[str, str]) -> None:
    """Go to where the checkpoint left off, on every process."""
    if path.exists():
        load_checkpoint_(path, state, digests)
    if not run.processes.agree(len(state.history)):
        raise ArtifactError(f"a checkpoint must lie where every process sees it, {path} does not")


def _train_(state: State, run: _Run, path: Path | None, digests: dict[str, str], *, shown: bool) -> None:
    """Every epoch that is left, in place."""
    epochs, first = run.config.epochs, len(state.history)
    with fit_progress(epochs=epochs, first_epoch=first, steps_per_epoch=run.steps_per_epoch, shown=shown) as progress:
        for epoch in range(first, epochs):
            losses: list[Tensor] = []
            for loss in _steps(state, run, epoch):
                losses.append(loss)
                if len(losses) % _STEPS_BETWEEN_CHECKS == 0:
                    _check_finite(losses, epoch)
                progress.step()
            if not losses:
                raise DataError("a training split must give at least one batch, this one gave none")
            _check_finite(losses, epoch)
            # Each process has seen other images, so their running statistics differ; rank 0's are taken.
            run.processes.spread(state.model.buffers())
            record = _record(state, run, torch.stack(losses).mean())
            state.history.append(record)
            _keep_best_(state)
            if path is not None and run.processes.rank == 0:
                save_checkpoint(path, state, digests)
            progress.epoch(epoch + 1, record)


def _steps(state: State, run: _Run, epoch: int) -> Iterator[Tensor]:
    """Train for one epoch in place; the loss of every step."""
    config, processes = run.config, run.processes
    seed = config.seed * _SEED_STRIDE + epoch
    seed_(seed * processes.world_size + processes.rank, processes.device)
    batches = run.train.batches(
        run.batch_size, training=True, seed=seed, rank=processes.rank, world_size=processes.world_size
    )
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    run.objective.forward.train()
    for step, (images, labels) in enumerate(batches, epoch * run.steps_per_epoch):
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(config, step, run.steps_per_epoch)
        images = _resized(images.to(processes.device), config.image_size(epoch)).contiguous(memory_format=layout)  # noqa: PLW2901
        loss = run.objective(images, labels.to(processes.device))
        state.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        state.optimizer.step()
        yield loss.detach()


def _resized(images: Tensor, side: int | None) -> Tensor:
    """``[n, c, h, w] -> [n, c, side, side]``."""
    if side is None or images.shape[2:] == (side, side):
        return images
    return F.interpolate(images, (side, side), mode="bilinear", align_corners=False, antialias=True)


def _check_finite(losses: list[Tensor], epoch: int) -> None:
    finite = torch.stack(losses).isfinite()
    if not finite.all():
        step = int(finite.logical_not().nonzero()[0])
        raise ModelError(
            f"the loss must stay finite, got {float(losses[step])} in epoch {epoch + 1}, step {step + 1}:"
            f" lower learning_rate"
        )


def _record(state: State, run: _Run, loss: Tensor) -> EpochRecord:
    """What the epoch that just ended came to, over all processes."""
    processes = run.processes
    error: float | None = None
    if run.validation is not None:
        ranks = true_class_ranks(
            state.model,
            run.validation,
            outputs=run.objective.outputs,
            batch_size=run.batch_size,
            processes=processes,
        )
        wrong = processes.total((ranks >= 1).sum().to(processes.device))
        error = int(wrong) / len(run.validation)
    return EpochRecord(
        train_loss=float(processes.total(loss)) / processes.world_size,
        validation_top1_error=error,
        learning_rate=float(state.optimizer.param_groups[0]["lr"]),
    )


def _keep_best_(state: State) -> None:
    """Take the epoch that just ended for the best one, unless an earlier one was better."""
    error = state.history[-1].validation_top1_error
    if error is None:
        state.best_epoch = len(state.history)
        return
    best = state.history[state.best_epoch - 1].validation_top1_error if state.best_epoch else None
    if best is None or error <= best:
        state.best_epoch = len(state.history)
        state.best = {name: value.clone() for name, value in tensors_of(state.model).items()}
