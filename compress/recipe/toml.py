"""Reading a recipe file, strictly.

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

    [sweep]
    prune_channels.pruning_ratio = [0.1, 0.2, 0.3]

The limits are what the compressed model must hold relative to the dense one, the sweep is what of it is worth trying in
other ways; both are read here and used elsewhere.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from compress.artifacts.runtimes import RUNTIMES
from compress.errors import ConfigError
from compress.recipe.order import check_order
from compress.recipe.steps import STEPS


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a recipe file says.

    Attributes:
        name: the file's name without its ending.
        path: the file, for messages.
        description: one line for people.
        steps: the settings of each step, in order; their type says which step it is. None at all leaves the model as it
            is: for limits on a model that is compressed elsewhere.
        runtime: what both models run under when their time is measured, one of
            :data:`~compress.artifacts.runtimes.RUNTIMES`.
        limits: the table ``[limits]`` as it stands in the file.
        sweep: the table ``[sweep]`` as it stands in the file.
    """

    name: str
    path: Path
    description: str = ""
    steps: tuple[Any, ...]
    runtime: str = "eager"
    limits: Mapping[str, object] = field(default_factory=dict)
    sweep: Mapping[str, object] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Hash, in hex, of the steps alone: what a recipe does to a model, and not what is asked of the result.

        A setting that has its default counts as if the file did not state it: then it says the same, also to a release
        that knows more settings.
        """
        text = json.dumps(list(map(_canonical, self.steps)), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe file.

    Raises:
        ConfigError: if the file is missing or malformed, or a step or a setting in it is unknown or of a wrong type,
            or the steps cannot work in their order.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as cause:
        raise ConfigError(f"cannot read recipe {path}: {cause.strerror or cause}") from cause
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as cause:
        raise ConfigError(f"recipe {path} is not valid TOML: {cause}") from cause
    _check_keys(content, ("description", "runtime", "steps", "limits", "sweep"), f"recipe {path}")
    steps = content.get("steps", [])
    if not isinstance(steps, list):
        raise ConfigError(f"steps must be [[steps]] tables, got {steps!r} (recipe {path})")
    description = content.get("description", "")
    if not isinstance(description, str):
        raise ConfigError(f"'description' must be a string, got {description!r} (recipe {path})")
    for key in ("limits", "sweep"):
        if not isinstance(table := content.get(key, {}), dict):
            raise ConfigError(f"{key!r} must be a table [{key}], got {table!r} (recipe {path})")
    runtime = content.get("runtime", "eager")
    if runtime not in RUNTIMES:
        raise ConfigError(f"'runtime' must be one of {', '.join(RUNTIMES)}, got {runtime!r} (recipe {path})")
    settings = tuple(_read_step(step, f"recipe {path}, step {i}") for i, step in enumerate(steps, 1))
    check_order([step["use"] for step in steps], f"recipe {path}")
    return Recipe(
        name=path.stem,
        path=path,
        description=description,
        runtime=runtime,
        steps=settings,
        limits=content.get("limits", {}),
        sweep=content.get("sweep", {}),
    )


def change_step(step: Any, key: str, value: object, where: str) -> Any:
    """The settings of a step with one of them changed, checked as if the file said so.

    Raises:
        ConfigError: if the step has no such setting, or ``value`` is of a wrong type or out of range.
    """
    known = get_type_hints(type(step))
    _check_keys({key: value}, known, where)
    return _settled(lambda changed: replace(step, **changed), {key: value}, known, where)


def _canonical(step: Any) -> dict[str, object]:
    """A step as the shortest table that says it."""
    use = next(name for name, one in STEPS.items() if one.settings is type(step))
    given = {one.name: getattr(step, one.name) for one in fields(step) if getattr(step, one.name) != one.default}
    return {"use": use, **given}


def _read_step(table: object, where: str) -> Any:
    if not isinstance(table, dict):
        raise ConfigError(f"a step must be a table, got {table!r} ({where})")
    name, given = table.get("use"), {key: value for key, value in table.items() if key != "use"}
    if not isinstance(name, str) or name not in STEPS:
        raise ConfigError(f"'use' must be one of {', '.join(STEPS)}, got {name!r}{_suggest(name, STEPS)} ({where})")
    settings = STEPS[name].settings
    known = get_type_hints(settings)
    _check_keys(given, known, where)
    return _settled(lambda given: settings(**given), given, known, where)


def _settled(
    make: Callable[[dict[str, Any]], Any], given: Mapping[str, object], known: Mapping[str, Any], where: str
) -> Any:
    """What ``make`` makes of settings whose types are right."""
    for key, value in given.items():
        if not _fits(value, known[key]):
            raise ConfigError(f"{key} must be {_in_words(known[key])}, got {value!r} ({where})")
    try:
        # TOML's arrays are lists, settings are frozen.
        return make({key: tuple(value) if isinstance(value, list) else value for key, value in given.items()})
    except ConfigError as cause:
        raise ConfigError(f"{cause} ({where})") from cause


def _fits(value: object, hint: Any) -> bool:
    """Whether TOML's ``value`` is of the type that a settings dataclass states for it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is Literal:
        # Which values there are, the dataclass says itself.
        return type(value) in {type(one) for one in arguments}
    if origin is tuple:
        return isinstance(value, list) and all(_fits(item, arguments[0]) for item in value)
    # TOML writes 1 where a fraction is meant; and a bool is an int in Python, but never a count.
    return type(value) is hint or (hint is float and type(value) is int)


def _in_words(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_in_words(one) for one in arguments if one is not NoneType)
    if origin is Literal:
        return f"of type {type(arguments[0]).__name__}"
    if origin is tuple:
        return f"a list, each entry {_in_words(arguments[0])}"
    return f"of type {hint.__name__}"


def _check_keys(table: Mapping[str, object], known: Any, where: str) -> None:
    for key in table:
        if key not in known:
            raise ConfigError(f"unknown key {key!r}{_suggest(key, known)}; known are {', '.join(known)} ({where})")


def _suggest(name: object, known: Any) -> str:
    near = difflib.get_close_matches(str(name), known, n=1)
    return f" - did you mean {near[0]!r}?" if near else ""
