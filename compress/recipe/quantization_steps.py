"""The steps that make a model int8 or half, and the training images that they may look at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from compress.calling.inputs import Inputs
from compress.data import AnySplit, LoaderSplit
from compress.data.splits import generator, stratified
from compress.errors import ConfigError
from compress.quantization.aware import QuantizeAwareConfig, quantize_aware_fit
from compress.quantization.checks import calibration_batches, check_device
from compress.quantization.contract import Accuracy, check_drop
from compress.quantization.half import HalfModel, Precision, check_precision, to_half
from compress.quantization.model import QuantizedModel
from compress.quantization.observed import Observer, check_observer
from compress.quantization.static import QuantizeConfig, quantize_by
from compress.recipe.context import Context
from compress.results import Unit
from compress.workload.workload import judge_on

# Below it a figure is no measure of what one is worse by.
_LEAST = 1e-12


@dataclass(frozen=True, kw_only=True)
class Quantize:
    """Settings of the step ``quantize``, see :func:`compress.quantize`.

    The contract is held on training images set apart from those of the calibration, so that the test images judge a
    model that has never seen them.
    """

    max_accuracy_drop: float = 0.005
    observer: Observer = "histogram"
    num_calibration_images: int = 256
    num_holdout_images: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        check_drop(self.max_accuracy_drop)
        check_observer(self.observer)
        for name in ("num_calibration_images", "num_holdout_images"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Half:
    """Settings of the step ``half``, see :func:`compress.quantization.half.to_half`."""

    precision: Precision = "bfloat16"

    def __post_init__(self) -> None:
        check_precision(self.precision)


def apply_quantize(settings: Quantize, model: nn.Module, context: Context) -> QuantizedModel:
    """Static int8."""
    check_device("cpu", model)
    held_out, calibration = _apart(context.workload.dataset.train, settings)

    accuracy = _accuracy(model, held_out, context)
    config = QuantizeConfig(max_accuracy_drop=settings.max_accuracy_drop, observer=settings.observer)
    return quantize_by(config, model, calibration, accuracy, progress=context.progress).model


def apply_quantize_aware_fit(settings: QuantizeAwareConfig, model: nn.Module, context: Context) -> QuantizedModel:
    """Fine-tuning in int8."""
    known = context.workload.training
    return quantize_aware_fit(
        model,
        context.workload.dataset,
        settings,
        loss=known["loss"],
        optimizer=known["optimizer"],
        outputs=known["outputs"],
        quality=known["quality"],
        checkpoint=context.checkpoint,
        progress=context.progress,
    ).model


def apply_half(settings: Half, model: nn.Module, _: Context) -> HalfModel:
    """Half precision."""
    return to_half(model, settings.precision)


def _accuracy(model: nn.Module, held_out: AnySplit, context: Context) -> Accuracy | None:
    """What a model keeps of the workload's first quality of its own, in 0..1; None where it has none.

    Of a share it is the share that is right; of any other figure one less the part by which it is worse than that of
    the model in float.
    """
    quality = context.workload.own_quality
    if quality is None:
        return None
    metric = quality.metric

    def value(candidate: nn.Module) -> float:
        return judge_on(context.workload, candidate, held_out, [quality])[quality.name].value

    if metric.unit is Unit.FRACTION:
        return value if metric.higher_is_better else lambda candidate: 1 - value(candidate)
    reference = value(model)
    return lambda candidate: 1 - metric.worse_by(reference, value(candidate)) / max(abs(reference), _LEAST)


def _apart(split: AnySplit, settings: Quantize) -> tuple[AnySplit, list[Inputs]]:
    """Training examples to hold the contract on, and others to calibrate with; at most half of all for each."""
    half = max(1, len(split) // 2)
    if isinstance(split, LoaderSplit):
        remaining, set_apart = split.apart(min(settings.num_holdout_images, half), settings.seed)
        some = remaining.apart(settings.num_calibration_images, settings.seed)[1]
        return set_apart, calibration_batches(some.batches())
    rest, held = stratified(split.labels, min(settings.num_holdout_images, half), settings.seed)
    others = split.subset(rest)
    _, chosen = stratified(others.labels, min(settings.num_calibration_images, len(others)), settings.seed)
    # Images lie sorted by class in many a folder, and a batch should show them all.
    chosen = chosen[torch.randperm(len(chosen), generator=generator(settings.seed))]
    return split.subset(held), calibration_batches(others.subset(chosen).batches(64))
