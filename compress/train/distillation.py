"""Distillation: a student is trained on what a teacher puts out, beside the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from compress.calling.inputs import tensors_in
from compress.errors import ConfigError, ModelError


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """How far the student's softened class probabilities are from the teacher's: ``T^2 KL(teacher || student)``.

    The factor keeps the gradient's size, which falls with the square of the temperature, next to that of the labels'
    cross-entropy.

    Args:
        student, teacher: logits ``[n, num_classes, ...]``; the gradient flows to the student's alone.
        temperature: what both are divided by before the softmax.

    Returns:
        The mean over the examples, of each position where there are more dimensions.

    Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, sections 2 and 2.1.
    """
    soft = F.log_softmax(student / temperature, dim=1)
    target = F.log_softmax(teacher.detach() / temperature, dim=1)
    positions = target.numel() // target.shape[1]
    return F.kl_div(soft, target, reduction="sum", log_target=True) / positions * temperature**2


def output_loss(student: Any, teacher: Any) -> Tensor:
    """How far what a student puts out is from what its teacher does, of any nesting: for outputs that are no logits.

    For each tensor the mean squared difference over the teacher's mean square; their mean over the tensors.

    Raises:
        ModelError: if the two are nested otherwise or of other shapes.
    """
    ours, theirs = ([one for one in tensors_in([value]) if one.is_floating_point()] for value in (student, teacher))
    if [one.shape for one in ours] != [one.shape for one in theirs] or not ours:
        shapes = [[list(one.shape) for one in outputs] for outputs in (ours, theirs)]
        raise ModelError(
            f"student and teacher must put out numbers of the same shapes, got {shapes[0]} and {shapes[1]}"
        )
    return torch.stack([_relative(*pair) for pair in zip(ours, theirs, strict=True)]).mean()


def hint_loss(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
    """How far the student's features are from the teacher's, by the name of the module that puts them out.

    For each module the mean squared difference over the teacher's mean square, so that layers of any scale count
    alike; their mean over the modules. There is no regressor between the two: the shapes must match.

    Raises:
        ModelError: if a module puts out other shapes in the student than in the teacher.

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, equation 3.
    """
    losses = []
    for name, target in teacher.items():
        if student[name].shape != target.shape:
            raise ModelError(
                f"hints must be of the same shape in student and teacher,"
                f" got {list(student[name].shape)} and {list(target.shape)} (module '{name}')"
            )
        losses.append(_relative(student[name], target))
    return torch.stack(losses).mean()


def _relative(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference over the teacher's mean square."""
    target = teacher.detach().float()
    square = target.square().mean().clamp(min=torch.finfo(torch.float32).tiny)
    return F.mse_loss(student.float(), target) / square


def tap_(model: nn.Module, names: Sequence[str], role: str) -> Mapping[str, Tensor]:
    """Hook the named modules of ``model``; the result holds what each of them put out in the latest forward pass.

    Raises:
        ConfigError: if ``model``, which the message calls by its ``role``, has no module of one of the names.
        ModelError: later, in a forward pass, if one of them puts out something else than a tensor.
    """
    modules = dict(model.named_modules())
    features: dict[str, Tensor] = {}
    for name in names:
        if name not in modules:
            raise ConfigError(f"hints must name modules of both student and teacher, the {role} has no {name!r}")

        def keep(_module: nn.Module, _inputs: object, output: object, name: str = name) -> None:
            if not isinstance(output, Tensor):
                raise ModelError(
                    f"hints must name modules that put out a tensor, got {type(output).__name__} (module '{name}')"
                )
            # An activation may be written over it.
            features[name] = output.clone()

        modules[name].register_forward_hook(keep)
    return features
