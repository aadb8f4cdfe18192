"""Which settings of a recipe a sweep varies, and over what.

A setting is named by its step and its own name, ``prune_channels.pruning_ratio``, or, where a recipe takes a step more
than once, by the step's number as messages count it: ``steps.2.epochs``. It varies over a list of values or over a
range, on the command line (``NAME=0.1,0.2,0.3``, ``NAME=0.1..0.5``, ``NAME=1e-4..1e-1:log``) or in a recipe's table
``[sweep]``::

    [sweep]
    prune_channels.pruning_ratio = [0.1, 0.2, 0.3]
    fit.learning_rate = { low = 1e-4, high = 1e-1, log = true }
"""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard, get_args, get_type_hints

from compress.errors import ConfigError
from compress.recipe import Recipe
from compress.recipe.steps import STEPS
from compress.recipe.toml import change_step

_RANGE = re.compile(r"(?P<low>[^,]+?)\.\.(?P<high>[^,:]+)(?P<log>:log)?")
_RANGE_KEYS = {"low", "high", "log"}


@dataclass(frozen=True, kw_only=True)
class Choices:
    """A list of values; each is tried as it stands."""

    values: tuple[bool | int | float | str, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.values))


@dataclass(frozen=True, kw_only=True)
class Range:
    """All numbers from ``low`` to ``high``, whole ones if both ends are; ``log`` tries orders of magnitude alike."""

    low: float
    high: float
    log: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def __str__(self) -> str:
        return f"{self.low} to {self.high}{' by orders of magnitude' if self.log else ''}"


Space = Choices | Range


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A setting of one recipe, and what it varies over.

    Attributes:
        name: the step's name, or ``steps`` and its number, and the setting's name.
        step: position of the step in the recipe, from 0.
        setting: name in the step's dataclass.
        space: what it varies over.
    """

    name: str
    step: int
    setting: str
    space: Space


def parse_parameter(text: str) -> tuple[str, Space]:
    """What one ``--set`` says: ``prune_channels.pruning_ratio=0.1,0.2``.

    Raises:
        ConfigError: if it is no name and values.
    """
    name, equals, values = (part.strip() for part in text.partition("="))
    if not equals or not name or not values:
        raise ConfigError(f"a parameter must be NAME=VALUE,VALUE... or NAME=LOW..HIGH, got {text!r}")
    if match := _RANGE.fullmatch(values):
        ends = {end: _read_value(match[end].strip()) for end in ("low", "high")}
        return name, _range({**ends, "log": bool(match["log"])}, f"parameter {text!r}")
    return name, _choices([_read_value(value.strip()) for value in values.split(",")], f"parameter {text!r}")


def read_sweep_table(table: Mapping[str, object], where: str) -> dict[str, Space]:
    """A recipe's table ``[sweep]``: name to what it varies over.

    Raises:
        ConfigError: if an entry is neither a list of values nor a range.
    """
    return {name: _read_space(value, f"{where}, sweep.{name}") for name, value in _flat(table)}


def parameters_of(recipe: Recipe, spaces: Mapping[str, Space]) -> tuple[Parameter, ...]:
    """Those of ``spaces`` that name a setting of this recipe, every value tried on it once.

    Raises:
        ConfigError: if the recipe takes a named step twice, or a setting is unknown, or a value does not suit it.
    """
    parameters: dict[tuple[int, str], Parameter] = {}
    for name, space in spaces.items():
        path, _, setting = name.rpartition(".")
        step = _find_step(recipe, path, setting)
        if step is None:
            continue
        where = f"recipe {recipe.path}, parameter {name}"
        for value in space.values if isinstance(space, Choices) else (space.low, space.high):
            change_step(recipe.steps[step], setting, value, where)
        if isinstance(space, Range) and _takes_fractions(recipe.steps[step], setting):
            space = replace(space, low=float(space.low), high=float(space.high))  # noqa: PLW2901
        # Of a setting named in both ways the later counts.
        parameters[step, setting] = Parameter(
            name=f"{_step_name(recipe, step)}.{setting}", step=step, setting=setting, space=space
        )
    return tuple(parameters.values())


def with_settings(recipe: Recipe, parameters: Sequence[Parameter], settings: Mapping[str, object]) -> Recipe:
    """The recipe with some of its parameters set.

    Raises:
        ConfigError: if a value does not suit its setting.
    """
    steps = list(recipe.steps)
    for parameter in parameters:
        if parameter.name in settings:
            where = f"recipe {recipe.path}, parameter {parameter.name}"
            steps[parameter.step] = change_step(
                steps[parameter.step], parameter.setting, settings[parameter.name], where
            )
    return replace(recipe, steps=tuple(steps))


def own_settings(recipe: Recipe, parameters: Sequence[Parameter]) -> dict[str, object]:
    """What the recipe's file says of these parameters."""
    return {parameter.name: getattr(recipe.steps[parameter.step], parameter.setting) for parameter in parameters}


def grid_of(parameters: Sequence[Parameter]) -> list[dict[str, object]]:
    """Every combination of values.

    Raises:
        ConfigError: if a parameter varies over a range, of which there is no end of values.
    """
    for parameter in parameters:
        if isinstance(parameter.space, Range):
            raise ConfigError(f"a grid takes lists of values, got {parameter.space} (parameter {parameter.name})")
    lists = [parameter.space.values for parameter in parameters if isinstance(parameter.space, Choices)]
    names = [parameter.name for parameter in parameters]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*lists)]


def _find_step(recipe: Recipe, path: str, setting: str) -> int | None:
    """Position of the step that ``path`` names; None if this recipe has no such step."""
    if path.startswith("steps."):
        number = path.removeprefix("steps.")
        if not number.isdecimal() or int(number) < 1:
            raise ConfigError(f"steps are counted from 1, as in steps.1.{setting}, got {path!r}")
        return int(number) - 1 if int(number) <= len(recipe.steps) else None
    if path not in STEPS:
        raise ConfigError(
            f"a parameter is named STEP.SETTING or steps.NUMBER.SETTING, where STEP is one of {', '.join(STEPS)},"
            f" got {f'{path}.{setting}' if path else setting!r}"
        )
    found = [index for index, step in enumerate(recipe.steps) if type(step) is STEPS[path].settings]
    if len(found) > 1:
        names = " or ".join(f"steps.{index + 1}.{setting}" for index in found)
        raise ConfigError(f"recipe {recipe.path} takes the step {path} {len(found)} times, name one of them: {names}")
    return found[0] if found else None


def _step_name(recipe: Recipe, index: int) -> str:
    kind = type(recipe.steps[index])
    if sum(type(step) is kind for step in recipe.steps) > 1:
        return f"steps.{index + 1}"
    return next(name for name, step in STEPS.items() if step.settings is kind)


def _takes_fractions(step: object, setting: str) -> bool:
    """Whether a range from 1 to 5 has 1.5 in it."""
    hint = get_type_hints(type(step))[setting]
    return float in (hint, *get_args(hint))


def _flat(table: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    """TOML reads ``fit.epochs = 3`` as a table in a table; here it is one name."""
    entries: list[tuple[str, object]] = []
    for key, value in table.items():
        if isinstance(value, Mapping) and not _RANGE_KEYS & value.keys():
            entries += _flat(value, f"{prefix}{key}.")
        else:
            entries.append((f"{prefix}{key}", value))
    return entries


def _read_space(value: object, where: str) -> Space:
    if isinstance(value, Mapping):
        return _range(value, where)
    if isinstance(value, list):
        return _choices(value, where)
    raise ConfigError(f"a parameter varies over a list or {{ low = ..., high = ... }}, got {value!r} ({where})")


def _choices(values: Sequence[object], where: str) -> Choices:
    if not values:
        raise ConfigError(f"a parameter takes at least one value, got none ({where})")
    plain = [value for value in values if isinstance(value, bool | int | float | str)]
    if len(plain) < len(values):
        raise ConfigError(f"a parameter's values must be numbers, texts or booleans, got {values!r} ({where})")
    return Choices(values=tuple(dict.fromkeys(plain)))


def _range(table: Mapping[str, object], where: str) -> Range:
    if not {"low", "high"} <= table.keys() <= _RANGE_KEYS:
        raise ConfigError(f"a range has low, high and perhaps log, got {', '.join(table)} ({where})")
    low, high, log = table["low"], table["high"], table.get("log", False)
    if not _is_number(low) or not _is_number(high):
        raise ConfigError(f"the ends of a range must be numbers, got {low!r} and {high!r} ({where})")
    if not isinstance(log, bool):
        raise ConfigError(f"log must be true or false, got {log!r} ({where})")
    if not low < high or (log and low <= 0):
        rule = "must rise from above 0" if log else "must rise"
        raise ConfigError(f"a range {rule}, got {low} to {high} ({where})")
    return Range(low=low, high=high, log=log)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _read_value(text: str) -> object:
    """A value as TOML would read it; what TOML cannot read is a text, which a shell leaves no quotes around."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
