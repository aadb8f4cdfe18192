"""What a training step makes smaller: the cross-entropy with the labels, and the distance to a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from compress.copying import copied
from compress.outputs import Outputs
from compress.train.config import FitConfig
from compress.train.distillation import hint_loss, soft_loss, tap_
from compress.train.evaluation import logits_of
from compress.train.processes import Processes


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
    """The loss of a batch, to go backward from.

    Attributes:
        config: the settings of the training.
        forward: the model in training, or what keeps its copies in step.
        teacher: what the model is to be like; None for the labels alone.
        num_classes: of the data.
        bfloat16: whether both models compute in bfloat16.
        outputs: which of what both put out are the logits; all of it if None.
    """

    config: FitConfig
    forward: nn.Module
    teacher: Teacher | None
    num_classes: int
    bfloat16: bool
    outputs: Outputs | None = None

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """``images: [n, c, h, w]`` and ``labels: [n]`` to a number."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bfloat16):
            target = self._teachers_logits(images)
            logits = logits_of(self.forward, images, self.num_classes, outputs=self.outputs)
        # In float32 whatever the model ran in: a softmax over many classes loses too much in bfloat16.
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.config.label_smoothing)
        if self.teacher is None or target is None:
            return loss
        alpha = self.config.alpha
        loss = (1 - alpha) * loss + alpha * soft_loss(logits.float(), target.float(), self.config.temperature)
        if self.config.hints:
            loss = loss + self.config.hint_weight * hint_loss(self.teacher.student_features, self.teacher.features)
        return loss

    def _teachers_logits(self, images: Tensor) -> Tensor | None:
        if self.teacher is None:
            return None
        with torch.no_grad():
            return logits_of(self.teacher.model, images, self.num_classes, outputs=self.outputs, role="teacher")
