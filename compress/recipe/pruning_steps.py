"""The steps that prune: their settings, with data taken from the training split where a technique asks for some."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from torch import nn

from compress import train
from compress.artifacts import artifact
from compress.calling.inputs import device_of
from compress.channels.trace import Heads
from compress.data import AnySplit
from compress.errors import ArtifactError, ConfigError
from compress.modules.copying import copied
from compress.pruning.choosing import ChannelScope
from compress.pruning.importance import importance_of
from compress.pruning.options import DEFAULT_RATIO, PruneOptions, goal_of
from compress.pruning.recalibration import recalibrate
from compress.pruning.reconstruct import reconstruct
from compress.pruning.structured import prune_channels
from compress.pruning.unstructured import Scope, check_settings, prune_weights
from compress.recipe.context import Context
from compress.recipe.training_batches import TrainingBatches
from compress.train import FitConfig
from compress.train.processes import best_device


@dataclass(frozen=True, kw_only=True)
class PruneChannels:
    """Settings of the step ``prune_channels``, see :func:`compress.prune_channels`.

    The step runs on a CUDA device if there is one, and so measures ``max_latency_ms`` there.

    Attributes:
        pruning_ratio, max_macs, max_params, max_latency_ms: how much goes; one of them, or a ratio of 0.2.
        importance: a name.
        ignore: names of modules that stay whole.
        scope, heads, min_kept, round_to, threads: see :class:`compress.PruneOptions`.
        calibration_batches: batches of the training split, for importances that need data.
        recalibration_batches: batches that the running statistics of norms are measured on anew after the cut; with 0
            they stay as they are.
        batch_size: images in each of those batches.
        seed: of the choice of images, and of the importance "random".
    """

    pruning_ratio: float | None = None
    max_macs: int | None = None
    max_params: int | None = None
    max_latency_ms: float | None = None
    importance: str = "l1"
    ignore: tuple[str, ...] = ()
    scope: ChannelScope = "layer"
    heads: Heads = "dims"
    min_kept: float = 0.1
    round_to: int | Literal["auto"] = 1
    threads: int = 1
    calibration_batches: int = 10
    recalibration_batches: int = 50
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        # Now, not after hours of training the dense model.
        goal_of(self.pruning_ratio, self.options())
        importance_of(self.importance)
        check_least("calibration_batches", self.calibration_batches, 1)
        check_least("recalibration_batches", self.recalibration_batches, 0)
        check_least("batch_size", self.batch_size, 1)

    def options(self) -> PruneOptions:
        """The same, as the technique takes it."""
        return PruneOptions(
            max_macs=self.max_macs,
            max_params=self.max_params,
            max_latency_ms=self.max_latency_ms,
            scope=self.scope,
            heads=self.heads,
            min_kept=self.min_kept,
            round_to=self.round_to,
            threads=self.threads,
            seed=self.seed,
        )


@dataclass(frozen=True, kw_only=True)
class PruneRounds(PruneChannels):
    """Settings of the step ``prune_rounds``: channels go in several rounds, with training or a repair between them.

    Every round keeps the same fraction of what the one before it left, so that after the last one ``pruning_ratio`` of
    the channels are gone; it ranks anew what is left. After every round but the last the network is trained; a step
    ``fit`` that follows trains it after the last one. Or it is repaired after every round, see
    :func:`compress.reconstruct`, and neither trained nor recalibrated.

    Attributes:
        rounds: how many.
        epochs: of training between two rounds; 0 where it is repaired.
        reconstruction_batches: of the training split, not augmented, that it is repaired on; with 0 it is not.
        learning_rate: of that training, see :class:`compress.FitConfig`; ``batch_size`` is its batch size too.
    """

    rounds: int = 3
    epochs: int = 1
    learning_rate: float = 0.01
    reconstruction_batches: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least("rounds", self.rounds, 1)
        if self.max_macs is not None or self.max_params is not None or self.max_latency_ms is not None:
            raise ConfigError("prune_rounds goes by pruning_ratio, a target can only be met at once by prune_channels")
        check_least("reconstruction_batches", self.reconstruction_batches, 0)
        if not self.reconstruction_batches:
            self.training(1)
        elif self.epochs:
            raise ConfigError(
                f"prune_rounds repairs with reconstruction_batches = {self.reconstruction_batches} in place of"
                f" training: epochs must be 0, got {self.epochs}"
            )

    def ratio_after(self, number: int) -> float:
        """The fraction of the channels that is gone after round ``number``, counted from 1."""
        ratio = DEFAULT_RATIO if self.pruning_ratio is None else self.pruning_ratio
        # The last one to the digit: a power of a root need not be the number itself.
        return ratio if number == self.rounds else 1 - (1 - ratio) ** (number / self.rounds)

    def training(self, number: int) -> FitConfig:
        """How the network is trained after round ``number``."""
        return FitConfig(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            warmup_epochs=0.0,
            validation_fraction=0.0,
            seed=self.seed + number,
        )


@dataclass(frozen=True, kw_only=True)
class Recalibrate:
    """Settings of the step ``recalibrate``, see :func:`compress.recalibrate`.

    Attributes:
        batches: of the training split, augmented as in training.
        batch_size: images in each of them.
        seed: of the choice of images and their augmentation.
    """

    batches: int = 50
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        check_least("batches", self.batches, 1)
        check_least("batch_size", self.batch_size, 1)


@dataclass(frozen=True, kw_only=True)
class PruneWeights:
    """Settings of the step ``prune_weights``, see :func:`compress.prune_weights`."""

    sparsity: float | None = None
    scope: Scope = "layer"
    pattern: str | None = None

    def __post_init__(self) -> None:
        check_settings(self.sparsity, self.scope, self.pattern)


def apply_prune_channels(settings: PruneChannels, model: nn.Module, context: Context) -> nn.Module:
    """Cut, then recalibrate."""
    return on_best_device(model, lambda moved: _cut(settings, moved, context, settings.pruning_ratio, None))


def apply_prune_rounds(settings: PruneRounds, model: nn.Module, context: Context) -> nn.Module:
    """Cut, train or repair, cut again; where it is trained it goes on after the last round that was finished."""
    if settings.reconstruction_batches:
        return on_best_device(model, lambda moved: _repaired_rounds(settings, moved, context))
    files = [context.checkpoint.with_suffix(f".round{number}.safetensors") for number in range(1, settings.rounds)]
    done, current = _last_finished(files, context, model)
    for number in range(done + 1, settings.rounds + 1):
        ratio = settings.ratio_after(number)
        current = on_best_device(current, partial(_cut, settings, context=context, ratio=ratio, relative_to=model))
        if number < settings.rounds:
            checkpoint = context.checkpoint.with_suffix(f".round{number}.checkpoint")
            current = train.fit(
                current,
                context.workload.dataset,
                settings.training(number),
                **context.workload.training,
                checkpoint=checkpoint,
                progress=context.progress,
            ).model
            artifact.save(current, files[number - 1])
    for file in files:
        file.unlink(missing_ok=True)
    return current


def _repaired_rounds(settings: PruneRounds, model: nn.Module, context: Context) -> nn.Module:
    batches = _batches(settings.reconstruction_batches, settings, context.workload.dataset.train)
    plain = replace(settings, recalibration_batches=0)
    current = model
    for number in range(1, settings.rounds + 1):
        small = _cut(plain, current, context, settings.ratio_after(number), model)
        # To the network before the first cut, so that errors do not add up.
        current = reconstruct(small, model, batches, seed=settings.seed, progress=context.progress)
    return current


def apply_recalibrate(settings: Recalibrate, model: nn.Module, context: Context) -> nn.Module:
    """Measure the statistics of norms anew."""
    return on_best_device(model, lambda moved: _recalibrated(settings.batches, settings, moved, context))


def apply_prune_weights(settings: PruneWeights, model: nn.Module, _: Context) -> nn.Module:
    """Mask."""
    return prune_weights(model, settings.sparsity, settings.scope, pattern=settings.pattern)


def _cut(
    settings: PruneChannels, model: nn.Module, context: Context, ratio: float | None, relative_to: nn.Module | None
) -> nn.Module:
    split = context.workload.dataset.train if importance_of(settings.importance).needs_data else None
    batches = None if split is None else _batches(settings.calibration_batches, settings, split)
    options = replace(
        settings.options(),
        outputs=context.workload.outputs,
        batches=batches,
        loss=context.workload.loss,
        relative_to=relative_to,
        progress=context.progress,
    )
    example = context.workload.inputs.to(device_of(model))
    small = prune_channels(model, example, ratio, settings.importance, ignore=settings.ignore, options=options)
    if not settings.recalibration_batches:
        return small
    return _recalibrated(settings.recalibration_batches, settings, small, context)


def _recalibrated(count: int, settings: PruneChannels | Recalibrate, model: nn.Module, context: Context) -> nn.Module:
    # Norms come to know images as training shows them: with statistics of images that nobody cropped or mirrored even
    # the dense network guesses worse.
    batches = replace(_batches(count, settings, context.workload.dataset.train), augmented=True)
    return recalibrate(model, batches, outputs=context.workload.outputs, progress=context.progress)


def _batches(count: int, settings: PruneChannels | Recalibrate, split: AnySplit) -> TrainingBatches:
    return TrainingBatches(split=split, batches=count, batch_size=settings.batch_size, seed=settings.seed)


def _last_finished(files: list[Path], context: Context, model: nn.Module) -> tuple[int, nn.Module]:
    """The number of the last round whose model lies in a file, and that model; 0 and ``model`` if there is none."""
    for number in range(len(files), 0, -1):
        try:
            return number, artifact.load(files[number - 1], context.workload.build)
        except ArtifactError:
            # Missing or damaged: an earlier one will do.
            continue
    return 0, model


def on_best_device(model: nn.Module, work: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """What ``work`` makes of the model on a CUDA device, if there is one, back where the model lies."""
    home, target = device_of(model), best_device()
    if home == target:
        return work(model)
    return work(copied(model).to(target)).to(home)


def check_least(name: str, value: int, least: int) -> None:
    """Refuse a count that is none, or below ``least``.

    Raises:
        ConfigError: if it is.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} must be a whole number at least {least}, got {value!r}")
