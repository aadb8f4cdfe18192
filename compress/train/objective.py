"""What a training step makes smaller: a loss of outputs and targets, and the distance to a teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils._pytree import tree_map_only

from compress.calling.inputs import Inputs
from compress.calling.outputs import Outputs
from compress.errors import CompressError, ConfigError, first_line
from compress.modules.copying import copied
from compress.train.config import FitConfig
from compress.train.distillation import hint_loss, tap_
from compress.train.evaluation import outputs_of
from compress.train.mixing import Mixed, cut_mixed
from compress.train.processes import Processes

Loss = Callable[[Any, Any], Tensor]
"""What a model puts out and the targets to a number."""

_HALVES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A model that is only ever run, and the features that its student is to have too.

    Attributes:
        model: a copy in eval mode, without gradients.
        features: what its hinted modules put out in the latest forward pass.
        student_features: what those of the student did.
    """

    model: nn.Module
    features: Mapping[str, Tensor] = field(default_factory=dict)
    student_features: Mapping[str, Tensor] = field(default_factory=dict)


def prepare_teacher(teacher: nn.Module, student_: nn.Module, config: FitConfig, processes: Processes) -> Teacher:
    """A copy of ``teacher`` where the training runs, the same one in every process; ``student_`` is hooked for hints.

    Raises:
        ConfigError: if a hint names no module of one of the two.
    """
    model = copied(teacher).to(processes.device).eval().requires_grad_(requires_grad=False)
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)
    processes.spread([*model.parameters(), *model.buffers()])
    return Teacher(
        model=model,
        features=tap_(model, config.hints, "teacher"),
        student_features=tap_(student_, config.hints, "student"),
    )


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The loss of a training batch, to go backward from.

    Attributes:
        config: the settings of the training.
        forward: the model in training, or what keeps its copies in step.
        teacher: what the model is to be like; None for the targets alone.
        loss: what is made smaller: of what the model puts out, in float32, and the targets.
        distance: of what the model and its teacher put out.
        num_classes: of logits ``[n, num_classes]``; None where it puts out something else.
        bfloat16: whether both models compute in bfloat16.
        outputs: which of what both put out counts; all of it if None.
    """

    config: FitConfig
    forward: nn.Module
    teacher: Teacher | None
    loss: Loss
    distance: Loss
    num_classes: int | None
    bfloat16: bool
    outputs: Outputs | None = None

    def __call__(self, inputs: Inputs, targets: Any) -> Tensor:
        """The loss of a batch: a number. Images are mixed first, where the settings say so.

        Raises:
            ModelError: if the model or its teacher does not run, or puts out something that the loss does not take.
            ConfigError: if the loss is no number, or there are no images or labels to mix.
        """
        device = next(iter(inputs.tensors)).device
        # Nothing is drawn where nothing is mixed: the random numbers of what else draws stay the same.
        mixed = cut_mixed(inputs) if self.config.cutmix and float(torch.rand(())) < self.config.cutmix else None
        inputs = inputs if mixed is None else mixed.inputs
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bfloat16):
            wanted = self._teachers_outputs(inputs)
            found = outputs_of(self.forward, inputs, self.num_classes, outputs=self.outputs)
        # In float32 whatever the model ran in: a softmax over many classes loses too much in bfloat16.
        alpha = 0.0 if self.teacher is None else self.config.alpha
        # Where the teacher alone counts, there may be no targets.
        loss = torch.zeros((), device=device)
        if alpha < 1:
            loss = (1 - alpha) * self._labels_loss(_in_float32(found), targets, mixed)
        if self.teacher is None:
            return loss
        apart = applied(self.distance, _in_float32(found), _in_float32(wanted), "the distance to the teacher")
        loss = loss + alpha * apart
        if self.config.hints:
            loss = loss + self.config.hint_weight * hint_loss(self.teacher.student_features, self.teacher.features)
        return loss

    def _labels_loss(self, found: Any, targets: Any, mixed: Mixed | None) -> Tensor:
        loss = applied(self.loss, found, targets, "the loss")
        if mixed is None:
            return loss
        others = applied(self.loss, found, _partners_labels(targets, mixed), "the loss")
        return mixed.share * loss + (1 - mixed.share) * others

    def _teachers_outputs(self, inputs: Inputs) -> Any:
        if self.teacher is None:
            return None
        with torch.no_grad():
            return outputs_of(self.teacher.model, inputs, self.num_classes, outputs=self.outputs, role="teacher")


def label_loss(config: FitConfig) -> Loss:
    """Cross-entropy of logits ``[n, num_classes, ...]`` with integer labels ``[n, ...]``.

    Raises:
        ConfigError: later, of what is something else: such a model needs a loss of its own.
    """

    def loss(outputs: Any, targets: Any) -> Tensor:
        fits = (
            isinstance(outputs, Tensor)
            and isinstance(targets, Tensor)
            and not targets.is_floating_point()
            and outputs.ndim == targets.ndim + 1
        )
        if not fits:
            raise ConfigError(
                "without loss= a model must put out logits [n, num_classes, ...] for integer labels [n, ...], got"
                f" {_described(outputs)} for {_described(targets)}"
            )
        return F.cross_entropy(outputs, targets.long(), label_smoothing=config.label_smoothing)

    return loss


def applied(loss: Loss, outputs: Any, targets: Any, what: str) -> Tensor:
    """What a loss comes to.

    Raises:
        ConfigError: if it fails, or is no number with a gradient.
    """
    try:
        value = loss(outputs, targets)
    except CompressError:
        raise
    except Exception as cause:
        raise ConfigError(f"{what} failed on outputs and targets: {first_line(cause)}") from cause
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise ConfigError(f"{what} must be a single number, got {_described(value)}")
    return value.reshape(())


def _partners_labels(labels: Any, mixed: Mixed) -> Tensor:
    """``[n] -> [n]``: the label of each image's partner."""
    count = len(mixed.partners)
    if not (isinstance(labels, Tensor) and not labels.is_floating_point() and labels.shape == (count,)):
        raise ConfigError(f"cutmix takes an integer label for each of {count} images, got {_described(labels)}")
    partners: Tensor = labels[mixed.partners.to(labels.device)]
    return partners


def _in_float32(value: Any) -> Any:
    return tree_map_only(Tensor, lambda one: one.float() if one.dtype in _HALVES else one, value)


def _described(value: Any) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} of shape {list(value.shape)}"
