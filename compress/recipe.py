"""Recipes: ordered steps read from TOML, and the only place where techniques meet.

A recipe file reads::

    description = "20 % of the channels of every layer removed, then fine-tuned"

    [[steps]]
    use = "prune_channels"
    pruning_ratio = 0.2

    [[steps]]
    use = "fit"
    epochs = 4

    [limits]
    num_params = { max_ratio = 0.65 }

The limits are what the compressed model must hold relative to the dense one; they are read here and judged elsewhere.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from compress import artifact, channels, data, pruning, train
from compress.cache import cache_path, cached_model
from compress.errors import CompressError, ConfigError
from compress.pruning.checks import check_ratio
from compress.pruning.importance import importance_of
from compress.pruning.structured import prune_channels
from compress.pruning.unstructured import Scope, check_settings, prune_weights
from compress.train import FitConfig
from compress.workload import Workload, ingredients


@dataclass(frozen=True, kw_only=True)
class PruneChannels:
    """Settings of the step ``prune_channels``, see :func:`compress.prune_channels`."""

    pruning_ratio: float = 0.2
    importance: str = "l1"

    def __post_init__(self) -> None:
        # Now, not after hours of training the dense model.
        check_ratio(self.pruning_ratio)
        importance_of(self.importance)


@dataclass(frozen=True, kw_only=True)
class PruneWeights:
    """Settings of the step ``prune_weights``, see :func:`compress.prune_weights`."""

    sparsity: float = 0.2
    scope: Scope = "layer"

    def __post_init__(self) -> None:
        check_settings(self.sparsity, self.scope)


Settings = PruneChannels | PruneWeights | FitConfig


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a recipe file says.

    Attributes:
        name: the file's name without its ending.
        path: the file, for messages.
        description: one line for people.
        steps: the settings of each step, in order; their type says which step it is. None at all leaves the model as it
            is: for limits on a model that is compressed elsewhere.
        limits: the table ``[limits]`` as it stands in the file.
    """

    name: str
    path: Path
    description: str = ""
    steps: tuple[Settings, ...]
    limits: Mapping[str, object] = field(default_factory=dict)


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe file.

    Raises:
        ConfigError: if the file is missing or malformed, or a step or a setting in it is unknown or of a wrong type.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as cause:
        raise ConfigError(f"cannot read recipe {path}: {cause.strerror or cause}") from cause
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as cause:
        raise ConfigError(f"recipe {path} is not valid TOML: {cause}") from cause
    _check_keys(content, ("description", "steps", "limits"), f"recipe {path}")
    steps = content.get("steps", [])
    if not isinstance(steps, list):
        raise ConfigError(f"steps must be [[steps]] tables, got {steps!r} (recipe {path})")
    description = content.get("description", "")
    if not isinstance(description, str):
        raise ConfigError(f"'description' must be a string, got {description!r} (recipe {path})")
    limits = content.get("limits", {})
    if not isinstance(limits, dict):
        raise ConfigError(f"'limits' must be a table [limits], got {limits!r} (recipe {path})")
    return Recipe(
        name=path.stem,
        path=path,
        description=description,
        steps=tuple(_read_step(step, f"recipe {path}, step {i}") for i, step in enumerate(steps, 1)),
        limits=limits,
    )


def run_recipe(recipe: Recipe, dense: nn.Module, workload: Workload, *, progress: bool = True) -> nn.Module:
    """The compressed model that ``recipe`` makes of ``dense``, in eval mode; ``dense`` is left as it is.

    The result is kept in the user's cache directory under a hash of the dense model's bytes, the data, the shape of the
    example input, the steps and the code of every technique, so that only what changed is computed again. An
    interrupted fine-tuning goes on where it stopped.

    Raises:
        CompressError: what the step that failed raises, with the recipe and the step named.
    """
    made_from = {
        **ingredients(workload),
        "dense": artifact.digest(dense),
        # What is coupled to what can depend on the shape; the values may be drawn anew in every run.
        "example_input": [list(workload.example_input.shape), str(workload.example_input.dtype)],
        "steps": [[type(step).__name__, asdict(step)] for step in recipe.steps],
    }
    sources: tuple[ModuleType | Callable[..., Any], ...] = (channels, data, pruning, train, workload.model_factory)
    path = cache_path(f"{workload.name}-{recipe.name}", made_from, (*sources, run_recipe))

    def compressed() -> nn.Module:
        model = dense
        for number, step in enumerate(recipe.steps, 1):
            checkpoint = path.with_suffix(f".step{number}.checkpoint")
            try:
                model = _apply(step, model, workload, checkpoint, progress=progress)
            except CompressError as cause:
                raise type(cause)(f"{cause} (recipe {recipe.path}, step {number})") from cause
        return model

    return cached_model(path, workload.build, compressed).eval()


def _apply(step: Settings, model: nn.Module, workload: Workload, checkpoint: Path, *, progress: bool) -> nn.Module:
    match step:
        case PruneChannels():
            return prune_channels(model, workload.example_input, step.pruning_ratio, step.importance)
        case PruneWeights():
            return prune_weights(model, step.sparsity, step.scope)
        case FitConfig():
            return train.fit(model, workload.dataset, step, checkpoint=checkpoint, progress=progress).model


_STEPS: Mapping[str, type[Settings]] = {
    "fit": FitConfig,
    "prune_channels": PruneChannels,
    "prune_weights": PruneWeights,
}


def _read_step(table: object, where: str) -> Settings:
    if not isinstance(table, dict):
        raise ConfigError(f"a step must be a table, got {table!r} ({where})")
    name, given = table.get("use"), {key: value for key, value in table.items() if key != "use"}
    if not isinstance(name, str) or name not in _STEPS:
        raise ConfigError(f"'use' must be one of {', '.join(_STEPS)}, got {name!r}{_suggest(name, _STEPS)} ({where})")
    settings = _STEPS[name]
    known = {entry.name: type(entry.default) for entry in fields(settings)}
    _check_keys(given, known, where)
    for key, value in given.items():
        expected = known[key]
        # TOML writes 1 where a fraction is meant; and a bool is an int in Python, but never a count.
        if not (type(value) is expected or (expected is float and type(value) is int)):
            raise ConfigError(f"{key} must be of type {expected.__name__}, got {value!r} ({where})")
    try:
        return settings(**given)
    except ConfigError as cause:
        raise ConfigError(f"{cause} ({where})") from cause


def _check_keys(table: Mapping[str, object], known: Any, where: str) -> None:
    for key in table:
        if key not in known:
            raise ConfigError(f"unknown key {key!r}{_suggest(key, known)}; known are {', '.join(known)} ({where})")


def _suggest(name: object, known: Any) -> str:
    near = difflib.get_close_matches(str(name), known, n=1)
    return f" - did you mean {near[0]!r}?" if near else ""
