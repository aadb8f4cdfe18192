"""A training run on disk: enough of it to go on exactly where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn, optim

from compress.data import Data
from compress.data.storage import load_tensors, save_tensors
from compress.errors import ArtifactError, ModelError
from compress.modules.described import described
from compress.train.config import FitConfig
from compress.train.progress import EpochRecord

_FORMAT = "compress-fit 3"
_NUMBERS = (bool, int, float, str, type(None))
_MODEL, _BEST, _AVERAGE, _OPTIMIZER = "model/", "best/", "average/", "optimizer/"


@dataclass(kw_only=True)
class State:
    """All that a training run carries from one epoch to the next; everything else follows from the settings.

    Attributes:
        model: being trained.
        optimizer: its state.
        scheduler: of the learning rate; None where the settings say it all.
        history: a record of every epoch that is over.
        best_epoch: the best one of them, counted from 1; 0 before the first.
        learning_rate: of the latest step.
        best: the state of what is kept after it; None where it is the present one.
        average: with the moving averages of the model's tensors; None where none is asked for.
    """

    model: nn.Module
    optimizer: optim.Optimizer
    scheduler: optim.lr_scheduler.LRScheduler | None = None
    history: list[EpochRecord] = field(default_factory=list)
    best_epoch: int = 0
    learning_rate: float = 0.0
    best: dict[str, Tensor] | None = None
    average: nn.Module | None = None

    @property
    def kept(self) -> nn.Module:
        """What is validated and handed out: the averages, or the model itself."""
        return self.model if self.average is None else self.average


def identity(model: nn.Module, data: Data, config: FitConfig, teacher: nn.Module | None = None) -> dict[str, str]:
    """What a checkpoint must agree on with a run to be resumed by it: a digest of each thing.

    A model is known by the names, shapes and types of its tensors, not by the values it starts from; a teacher by the
    values too.
    """
    tensors = sorted((name, list(value.shape), str(value.dtype)) for name, value in tensors_of(model).items())
    parts: Mapping[str, object] = {
        "settings": asdict(config),
        "data": [data.sha256, data.train_sha256],
        "model": tensors,
        "teacher": None if teacher is None else _content(teacher),
    }
    return digest_of(parts)


def digest_of(parts: Mapping[str, object]) -> dict[str, str]:
    """A digest of each part of an identity, whatever it is."""
    return {name: hashlib.sha256(json.dumps(described(part)).encode()).hexdigest() for name, part in parts.items()}


def chosen(state: State) -> list[object]:
    """The optimizer and the schedule, without how far they are."""
    scheduler = None if state.scheduler is None else type(state.scheduler)
    return [type(state.optimizer), state.optimizer.defaults, scheduler]


def save_checkpoint(path: Path, state: State, run: Mapping[str, str]) -> None:
    """Write ``state`` of the run that has the identity ``run``, in one step.

    Raises:
        ArtifactError: if it cannot be written; an older checkpoint is then still there.
    """
    tensors = _named(_MODEL, tensors_of(state.model)) | _named(_BEST, state.best or {})
    if state.average is not None:
        tensors |= _named(_AVERAGE, tensors_of(state.average))
    numbers: dict[str, dict[str, object]] = {}
    for name, parameter in state.model.named_parameters():
        for key, value in state.optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{_OPTIMIZER}{key}/{name}"] = value
            elif value is not None:
                numbers.setdefault(name, {})[key] = value
    progress = {
        "history": [asdict(record) for record in state.history],
        "best_epoch": state.best_epoch,
        "optimizer": numbers,
        "groups": [_plain(group) for group in state.optimizer.param_groups],
    }
    metadata = {"format": _FORMAT, "progress": json.dumps(progress), **run}
    # Tensors may share memory, as tied weights do, which the format knows nothing of.
    save_tensors(path, {name: value.detach().cpu().clone() for name, value in tensors.items()}, metadata, ArtifactError)


def load_checkpoint_(path: Path, state: State, run: Mapping[str, str]) -> list[dict[str, Any]]:
    """Bring a fresh ``state`` to where the checkpoint at ``path`` was saved, in place.

    Returns:
        What the optimizer's groups held, to be put there once the schedule is where it was.

    Raises:
        ArtifactError: if the file is damaged, or of a run with another identity than ``run``; ``state`` is then as
            it was.
    """
    tensors, metadata = load_tensors(path, ArtifactError)
    if metadata.get("format") != _FORMAT:
        raise ArtifactError(f"a checkpoint must be of the format {_FORMAT!r}, got {metadata.get('format')!r} ({path})")
    for part, digest in run.items():
        if metadata.get(part) != digest:
            raise ArtifactError(
                f"a checkpoint must be of the run that it resumes, this one has other {part}:"
                f" delete it to train anew ({path})"
            )
    model, best, average, kept = (_unnamed(prefix, tensors) for prefix in (_MODEL, _BEST, _AVERAGE, _OPTIMIZER))
    parameters = dict(state.model.named_parameters())
    names = set(tensors_of(state.model))
    owners = {key.partition("/")[2] for key in kept}
    averaged = set() if state.average is None else names
    whole = set(model) == names and set(best) in (set(), names) and set(average) == averaged
    if not whole or not owners <= set(parameters):
        raise ArtifactError(f"a checkpoint must hold every tensor of its model, this one does not ({path})")
    try:
        progress = json.loads(metadata["progress"])
        history, best_epoch = [EpochRecord(**record) for record in progress["history"]], int(progress["best_epoch"])
        numbers = {parameters[name]: dict(values) for name, values in progress["optimizer"].items()}
        groups = [dict(group) for group in progress["groups"]]
    except (KeyError, TypeError, ValueError) as cause:
        raise ArtifactError(f"a checkpoint must tell how far its run was, this one does not ({path})") from cause
    state.model.load_state_dict(model)
    if state.average is not None:
        state.average.load_state_dict(average)
    for parameter, values in numbers.items():
        state.optimizer.state[parameter].update(values)
    for place, value in kept.items():
        key, _, name = place.partition("/")
        parameter = parameters[name]
        # What is as large as the parameter lies as it does; a count of steps lies where it lay.
        like = parameter.detach()
        same = value.shape == like.shape
        state.optimizer.state[parameter][key] = (
            torch.empty_like(like, dtype=value.dtype).copy_(value) if same else value
        )
    state.best = best or None
    state.history, state.best_epoch = history, best_epoch
    return groups


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """The model's state.

    Raises:
        ModelError: if something in it is no tensor.
    """
    state = model.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ModelError(
                f"a model's state must consist of tensors to be trained, got {type(value).__name__} ({name!r})"
            )
    return dict(state)


def _content(model: nn.Module) -> list[tuple[str, str]]:
    """A digest of each of a model's tensors."""
    flat = {name: value.detach().cpu().contiguous().view(-1) for name, value in tensors_of(model).items()}
    return sorted(
        (name, hashlib.sha256(value.view(torch.uint8).numpy().data).hexdigest()) for name, value in flat.items()
    )


def _plain(group: Mapping[str, Any]) -> dict[str, Any]:
    """What a group of parameters is set to: numbers, and tuples of them."""
    return {key: value for key, value in group.items() if all(isinstance(one, _NUMBERS) for one in _items(value))}


def _items(value: object) -> Sequence[object]:
    return value if isinstance(value, (tuple, list)) else [value]


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in tensors.items()}


def _unnamed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
