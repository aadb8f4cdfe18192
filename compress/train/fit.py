"""Training: SGD with warm-up and a cosine, the best epoch kept, resumable, on one process or several."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F  # noqa: N812
from torch.utils._pytree import tree_map_only

from compress.calling.inputs import Inputs, each_batch
from compress.calling.outputs import Outputs
from compress.calling.randomness import own_random_state
from compress.data import Data
from compress.errors import ArtifactError, ConfigError, ModelError
from compress.modules.copying import check_given, copied
from compress.quality import Quality
from compress.system.progress import stderr_console
from compress.train.checkpoint import State, chosen, digest_of, identity, load_checkpoint_, save_checkpoint
from compress.train.config import FitConfig, learning_rate
from compress.train.objective import Loss
from compress.train.processes import as_device, best_device, joined, seed_
from compress.train.progress import EpochRecord, fit_progress
from compress.train.run import Judge, Run, prepare
from compress.train.validation import keep_best_, record_of

MakeOptimizer = Callable[[list[dict[str, Any]]], optim.Optimizer]
MakeScheduler = Callable[[optim.Optimizer, int], optim.lr_scheduler.LRScheduler]

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


def fit(
    model: nn.Module,
    data: Data,
    config: FitConfig = _DEFAULT,
    *,
    loss: Loss | None = None,
    quality: Quality | None = None,
    optimizer: MakeOptimizer | None = None,
    scheduler: MakeScheduler | None = None,
    outputs: Outputs | None = None,
    teacher: nn.Module | None = None,
    distance: Loss | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
    device: torch.device | str | None = None,
) -> FitResult:
    """A copy of ``model`` trained on ``data.train``; ``model`` and the caller's random state are left as they are.

    SGD with Nesterov momentum on a loss, the cross-entropy if none is given, and with a ``teacher`` on the distance to
    what that puts out for the same inputs, see :mod:`compress.train.distillation`. The best epoch is chosen on examples
    held out from the training split, never on the test split; of equally good ones the latest. On a CPU the result
    depends on the arguments alone, to the bit, as long as the number of threads and processes stays the same.

    Under torchrun every process calls it, takes its part of each batch and returns the same weights.

    Args:
        model: puts out logits ``[n, num_classes]`` of labelled images, of other data what the loss takes.
        data: what to train on: labelled images, or what :func:`compress.data.from_loaders` gives; then batches are the
            loader's own.
        config: how to train.
        loss: what is made smaller, ``(outputs, targets) -> number``; the cross-entropy of logits with integer labels if
            left out.
        quality: what the best epoch is chosen by; if left out, the top-1 error of labelled images, else the loss.
        optimizer: makes one of groups of parameters: ``lambda groups: torch.optim.AdamW(groups, lr=1e-3)``; SGD by the
            settings if left out.
        scheduler: makes a schedule of an optimizer and the number of steps, taken after each step; warm-up and cosine
            by the settings if left out.
        outputs: which of what the model (and the teacher) put out are the logits; all of it if left out.
        teacher: a trained model of the same classes, e.g. the one that was compressed; run in eval mode and left as it
            is. The settings ``temperature``, ``alpha``, ``hints`` and ``hint_weight`` say how to learn from it.
        distance: of what the model and its teacher put out, ``(outputs, teachers) -> number``; if left out, that of
            softened probabilities of logits, and with a ``loss`` of your own the relative squared difference.
        checkpoint: a file to write after every epoch. Where it exists already, training goes on from it, to the same
            weights as if it had never stopped. It is deleted at the end. All processes must see it.
        progress: whether to show how far the training is, on stderr.
        device: where to train; a CUDA device if there is one, else the CPU, if left out.

    Raises:
        ConfigError: if the number of processes does not divide the batch size, ``device`` does not exist, a hint
            names no module of both models, a scheduler takes a metric, or ``quality`` is held against a dense model and
            there is no teacher, or comes to no number on the examples held out.
        ModelError: if the model cannot be copied or trained, the teacher knows other classes, hints differ in their
            shapes, or the loss is no longer finite.
        ArtifactError: if the checkpoint is of another run or damaged, or cannot be written.
    """
    check_given(model, "train")
    target = best_device() if device is None else as_device(device)
    path = None if checkpoint is None else Path(checkpoint)
    processes = joined(target)
    with own_random_state([target]):
        state = _fresh_state(model, config, target, optimizer)
        judge = Judge(loss=loss, distance=distance, quality=quality, outputs=outputs)
        run = prepare(state.model, data, config, processes, teacher=teacher, judge=judge)
        if scheduler is not None:
            state.scheduler = scheduler(state.optimizer, config.epochs * run.updates_per_epoch)
            if isinstance(state.scheduler, optim.lr_scheduler.ReduceLROnPlateau):
                raise ConfigError("a scheduler must go by the number of steps alone, ReduceLROnPlateau takes a metric")
        taught_by = run.objective.teacher
        digests = identity(model, data, config, None if taught_by is None else taught_by.model)
        digests |= digest_of({"optimizer": chosen(state), "loss": [loss, distance, outputs], "quality": quality})
        if path is not None:
            _resume_(state, path, run, digests)
        try:
            _train_(state, run, path, digests, shown=progress and processes.rank == 0)
        except KeyboardInterrupt:
            if path is not None and path.exists() and processes.rank == 0:
                stderr_console().print(f"training stopped, a rerun resumes from {path}", highlight=False)
            raise
        trained = copied(model)
        trained.load_state_dict(state.best or state.kept.state_dict())
        if path is not None and processes.rank == 0:
            path.unlink(missing_ok=True)
        # No process may start another run while the file of this one is still there.
        processes.wait()
    return FitResult(model=trained, best_epoch=state.best_epoch, history=tuple(state.history))


def _fresh_state(model: nn.Module, config: FitConfig, device: torch.device, make: MakeOptimizer | None = None) -> State:
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
    groups = [group for group in groups if group["params"]]
    sgd = partial(optim.SGD, lr=config.learning_rate, momentum=config.momentum, nesterov=config.momentum > 0)
    average = copied(model).requires_grad_(requires_grad=False) if config.ema_decay else None
    return State(model=model, optimizer=(make or sgd)(groups), average=average)


def _resume_(state: State, path: Path, run: Run, digests: dict[str, str]) -> None:
    """Go to where the checkpoint left off, on every process."""
    if path.exists():
        groups = load_checkpoint_(path, state, digests)
        if state.scheduler is not None:
            with warnings.catch_warnings():
                # The optimizer's own steps were taken before the training stopped.
                warnings.simplefilter("ignore")
                for _ in range(len(state.history) * run.updates_per_epoch):
                    state.scheduler.step()
        # What an optimizer keeps in its groups is as it was, whatever the schedule made of it on the way.
        for group, values in zip(state.optimizer.param_groups, groups, strict=True):
            group.update(values)
    if not run.processes.agree(len(state.history)):
        raise ArtifactError(f"a checkpoint must lie where every process sees it, {path} does not")


def _train_(state: State, run: Run, path: Path | None, digests: dict[str, str], *, shown: bool) -> None:
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
            _check_finite(losses, epoch)
            # Each process has seen other images, so their running statistics differ; rank 0's are taken.
            run.processes.spread(list(dict.fromkeys([*state.model.buffers(), *state.kept.buffers()])))
            record = record_of(state, run, torch.stack(losses).mean())
            state.history.append(record)
            better = run.quality is not None and run.quality.better == "higher"
            keep_best_(state, higher_is_better=better)
            if path is not None and run.processes.rank == 0:
                save_checkpoint(path, state, digests)
            progress.epoch(epoch + 1, record)


def _steps(state: State, run: Run, epoch: int) -> Iterator[Tensor]:
    """Train for one epoch in place; the loss of every step."""
    config, processes = run.config, run.processes
    seed = config.seed * _SEED_STRIDE + epoch
    seed_(seed * processes.world_size + processes.rank, processes.device)
    batches = run.train.batches(
        run.batch_size, training=True, seed=seed, rank=processes.rank, world_size=processes.world_size
    )
    run.objective.forward.train()
    state.optimizer.zero_grad()
    for number, batch in enumerate(each_batch(batches, name="training batches", device=processes.device)):
        if state.scheduler is None:
            for group in state.optimizer.param_groups:
                group["lr"] = learning_rate(config, epoch * run.steps_per_epoch + number, run.steps_per_epoch)
        inputs = _laid_out(batch.inputs, config, config.image_size(epoch))
        loss = run.objective(inputs, batch.targets)
        loss.backward()  # type: ignore[no-untyped-call]
        gathered = number % config.accumulated_batches + 1
        if gathered == config.accumulated_batches or number + 1 == run.steps_per_epoch:
            _update_(state, config, gathered)
            _average_(state, config, step=epoch * run.updates_per_epoch + number // config.accumulated_batches)
        yield loss.detach()


def _update_(state: State, config: FitConfig, gathered: int) -> None:
    """One step by the mean of the gradients of so many batches: of an epoch's last ones, fewer than elsewhere."""
    for parameter in state.model.parameters():
        if gathered > 1 and parameter.grad is not None:
            parameter.grad.div_(gathered)
    if config.max_gradient_norm > 0:
        nn.utils.clip_grad_norm_(state.model.parameters(), config.max_gradient_norm)
    state.learning_rate = float(state.optimizer.param_groups[0]["lr"])
    state.optimizer.step()
    state.optimizer.zero_grad()
    if state.scheduler is not None:
        state.scheduler.step()


@torch.no_grad()
def _average_(state: State, config: FitConfig, step: int) -> None:
    """Move the averages towards the weights and statistics as they are after a step, counted from 0."""
    if state.average is None:
        return
    decay = min(config.ema_decay, (1 + step) / (10 + step))
    for average, now in zip(_tensors(state.average), _tensors(state.model), strict=True):
        # What counts, as a batch norm does its batches, has no average.
        average.lerp_(now, 1 - decay) if average.is_floating_point() else average.copy_(now)


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    """Each once, though it may have several names."""
    yield from model.parameters()
    yield from model.buffers()


def _laid_out(inputs: Inputs, config: FitConfig, side: int | None) -> Inputs:
    """Images ``[n, c, h, w]`` among the inputs of the size and in the memory format to train with."""
    layout = torch.channels_last if config.channels_last else torch.contiguous_format

    def arranged(tensor: Tensor) -> Tensor:
        if tensor.ndim != 4 or not tensor.is_floating_point():  # noqa: PLR2004 - images
            return tensor
        return _resized(tensor, side).contiguous(memory_format=layout)

    args, kwargs = tree_map_only(Tensor, arranged, (inputs.args, dict(inputs.kwargs)))
    return Inputs(args=args, kwargs=kwargs)


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
