"""Distillation: a student is trained on what a teacher puts out, beside the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from compress.errors import ConfigError, ModelError


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """How far the student's softened class probabilities are from the teacher's: ``T^2 KL(teacher || student)``.

    The factor keeps the gradient's size, which falls with the square of the temperature, next to that of the labels'
    cross-entropy.

    Args:
        student, teacher: logits ``[n, num_classes]``; the gradient flows to the student's alone.
        temperature: what both are divided by before the softmax.

    Returns:
        The mean over the ``n`` examples.

    Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, sections 2 and 2.1.
    """
    soft = F.log_softmax(student / temperature, dim=1)
    target = F.log_softmax(teacher.detach() / temperature, dim=1)
    return F.kl_div(soft, target, reduction="batchmean", log_target=True) * temperature**2


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
        square = target.detach().float().square().mean().clamp(min=torch.finfo(torch.float32).tiny)
        losses.append(F.mse_loss(student[name].float(), target.detach().float()) / square)
    return torch.stack(losses).mean()


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
            features[name] = output

        modules[name].register_forward_hook(keep)
    return features
