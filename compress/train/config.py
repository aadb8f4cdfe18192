"""The settings of a training run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Literal, get_args

from compress.errors import ConfigError

Autocast = Literal["auto", "bfloat16", "off"]

# Field -> (whether it is a whole number, its rule in words, its rule).
_RULES: Mapping[str, tuple[bool, str, Callable[[float], bool]]] = {
    "epochs": (True, "at least 1", lambda value: value >= 1),
    "batch_size": (True, "at least 1", lambda value: value >= 1),
    "learning_rate": (False, "positive", lambda value: value > 0),
    "momentum": (False, "in [0, 1)", lambda value: 0 <= value < 1),
    "weight_decay": (False, "at least 0", lambda value: value >= 0),
    "warmup_epochs": (False, "at least 0", lambda value: value >= 0),
    "label_smoothing": (False, "in [0, 1)", lambda value: 0 <= value < 1),
    "validation_fraction": (False, "in [0, 1)", lambda value: 0 <= value < 1),
    "temperature": (False, "positive", lambda value: value > 0),
    "alpha": (False, "in [0, 1]", lambda value: 0 <= value <= 1),
    "hint_weight": (False, "at least 0", lambda value: value >= 0),
    "seed": (True, "in [0, 2**32)", lambda value: 0 <= value < 2**32),
    "accumulated_batches": (True, "at least 1", lambda value: value >= 1),
    "max_gradient_norm": (False, "at least 0", lambda value: value >= 0),
    "ema_decay": (False, "in [0, 1)", lambda value: 0 <= value < 1),
    "cutmix": (False, "in [0, 1]", lambda value: 0 <= value <= 1),
}


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How :func:`compress.fit` trains.

    Attributes:
        epochs: passes over the training split, warm-up included.
        batch_size: examples a step, over all processes together; their number must divide it.
        learning_rate: at its highest, after the warm-up; it then falls to 0 along a cosine.
        momentum: of SGD, in Nesterov's form.
        weight_decay: of weights; biases and the parameters of norms are not decayed.
        warmup_epochs: epochs, or parts of one, in which the learning rate rises from near 0, step by step.
        label_smoothing: share of the target spread over all classes (Szegedy et al., CVPR 2016, section 7).
        validation_fraction: share of the training split that is held out to choose the best epoch by; with 0 nothing
            is held out and the last epoch is taken.
        autocast: whether to compute in bfloat16. "auto" does so where the hardware has it natively, since emulated
            it is many times slower than float32.
        channels_last: whether to train in the channels-last memory format, which is faster for most networks.
        image_sizes: sides in pixels of the square images to train on, one after the other, each for an equal share of
            the epochs; empty for the images' own size. Small ones first cost less and, with the full size last, little
            accuracy (Howard, "Training Imagenet in 3 hours for USD 25", 2018: progressive resizing).
        seed: of shuffling, augmentation, dropout and the choice of validation examples.
        temperature: with a teacher: what the logits of both models are divided by before they are compared.
        alpha: with a teacher: weight of the distance to its softened probabilities; the cross-entropy with the labels
            weighs ``1 - alpha``.
        hints: with a teacher: names of modules, in both models, whose outputs are to be alike too.
        hint_weight: weight of the distance between those.
        accumulated_batches: how many batches' gradients are averaged before each step.
        max_gradient_norm: what the norm of all gradients is scaled down to where it is larger; 0 leaves it.
        ema_decay: of an exponential moving average of all weights and statistics, step by step, which is then what is
            validated and kept (Polyak and Juditsky, SIAM J. Control Optim. 30, 1992); 0 keeps the weights themselves.
            Over the first steps it decays faster, as (1 + step) / (10 + step), so that it forgets where it began.
        cutmix: share of the batches in which a rectangle of each image comes from another one, and that part of its
            label with it (Yun et al., ICCV 2019); a teacher sees the same images. It helps long trainings, and makes
            the training loss larger than it is on whole images.

    Raises:
        ConfigError: if a value breaks its rule.
    """

    epochs: int = 200
    batch_size: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup_epochs: float = 1.0
    label_smoothing: float = 0.1
    validation_fraction: float = 0.05
    autocast: Autocast = "auto"
    channels_last: bool = True
    image_sizes: tuple[int, ...] = ()
    seed: int = 0
    temperature: float = 4.0
    alpha: float = 0.9
    hints: tuple[str, ...] = ()
    hint_weight: float = 1.0
    accumulated_batches: int = 1
    max_gradient_norm: float = 0.0
    ema_decay: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name, (whole, rule, holds) in _RULES.items():
            value = getattr(self, name)
            number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
            if not (number and math.isfinite(value) and holds(value)):
                kind = "a whole number " if whole else ""
                raise ConfigError(f"{name} must be {kind}{rule}, got {value!r}")
        if self.warmup_epochs > self.epochs:
            raise ConfigError(f"warmup_epochs must be at most epochs = {self.epochs}, got {self.warmup_epochs}")
        if self.autocast not in get_args(Autocast):
            raise ConfigError(f"autocast must be one of {', '.join(get_args(Autocast))}, got {self.autocast!r}")
        if not isinstance(self.channels_last, bool):
            raise ConfigError(f"channels_last must be true or false, got {self.channels_last!r}")
        if not (isinstance(self.hints, tuple) and all(isinstance(name, str) for name in self.hints)):
            raise ConfigError(f"hints must be a tuple of module names, got {self.hints!r}")
        if not isinstance(self.image_sizes, tuple):
            raise ConfigError(f"image_sizes must be a tuple of whole numbers, got {self.image_sizes!r}")
        if not all(type(size) is int and size >= 1 for size in self.image_sizes):
            raise ConfigError(f"image_sizes must be whole numbers of at least 1, got {self.image_sizes!r}")
        if len(self.image_sizes) > self.epochs:
            raise ConfigError(
                f"image_sizes must be at most epochs = {self.epochs} of them, got {len(self.image_sizes)}"
            )

    def check_untaught(self, remedy: str) -> None:
        """Refuse settings that say how to learn from a teacher, where there is none.

        Raises:
            ConfigError: if one of them is not at its default.
        """
        defaults = {one.name: one.default for one in fields(FitConfig)}
        for name in ("temperature", "alpha", "hints", "hint_weight"):
            value = getattr(self, name)
            if value != defaults[name]:
                raise ConfigError(f"{name} needs a teacher: {remedy}, got {name} = {value!r} without it")

    def image_size(self, epoch: int) -> int | None:
        """The side of the images in ``epoch``, counted from 0; None for their own."""
        return self.image_sizes[epoch * len(self.image_sizes) // self.epochs] if self.image_sizes else None


def learning_rate(config: FitConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of step ``step``, counted from 0: linear warm-up, then a cosine down to 0.

    Source: Goyal et al., "Accurate, Large Minibatch SGD", 2017, section 2.2 (warm-up); Loshchilov and Hutter, "SGDR",
    ICLR 2017, equation 5 (cosine, without restarts).
    """
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    falling = config.epochs * steps_per_epoch - warmup
    # A split that gives more batches than it promised ends at 0, it does not climb the cosine's other side.
    progress = min(1.0, (step - warmup) / max(1, falling))
    return config.learning_rate * (1 + math.cos(math.pi * progress)) / 2
