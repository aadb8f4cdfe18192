"""What a sweep is to try: for each recipe what of it varies, and the points that come of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from compress.errors import ConfigError
from compress.recipe import Recipe
from compress.sweep.parameters import (
    Choices,
    Parameter,
    Space,
    grid_of,
    own_settings,
    parameters_of,
    read_sweep_table,
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A recipe of the sweep and what of it varies."""

    recipe: Recipe
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True, kw_only=True)
class Point:
    """A recipe and the settings it is tried with, none of them for the recipe as its file says it."""

    recipe: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Equal for equal points."""
        return json.dumps([self.recipe, dict(self.settings)], sort_keys=True)


def plan_sweep(recipes: Sequence[Recipe], given: dict[str, Space]) -> list[Plan]:
    """What of each recipe varies: its table ``[sweep]``, and what is ``given``, which counts more.

    Raises:
        ConfigError: if two recipes have one name, or what is given suits none of them, or a value does not suit.
    """
    names = [recipe.name for recipe in recipes]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"a sweep's recipes must have names of their own, got {twice!r} twice")
    plans = [
        Plan(
            recipe=recipe,
            parameters=parameters_of(recipe, {**read_sweep_table(recipe.sweep, str(recipe.path)), **given}),
        )
        for recipe in recipes
    ]
    for name, space in given.items():
        if not any(parameters_of(recipe, {name: space}) for recipe in recipes):
            raise ConfigError(f"parameter {name} names a step of none of the recipes {', '.join(names)}")
    for recipe in recipes:
        table = read_sweep_table(recipe.sweep, str(recipe.path))
        for name, space in table.items():
            if not parameters_of(recipe, {name: space}):
                raise ConfigError(f"the recipe takes no such step ({recipe.path}, sweep.{name})")
    return plans


def seeds(plans: Sequence[Plan]) -> list[Point]:
    """The recipes as their files say them."""
    return [Point(recipe=plan.recipe.name) for plan in plans]


def all_points(plans: Sequence[Plan]) -> list[Point]:
    """The seeds, then every combination of values that is not a seed's own.

    Raises:
        ConfigError: if a parameter varies over a range.
    """
    points = seeds(plans)
    for plan in plans:
        own = own_settings(plan.recipe, plan.parameters)
        grid = grid_of(plan.parameters)
        points += [Point(recipe=plan.recipe.name, settings=settings) for settings in grid if settings != own]
    return points


def is_finite(plans: Sequence[Plan]) -> bool:
    """Whether all points can be counted."""
    return all(isinstance(parameter.space, Choices) for plan in plans for parameter in plan.parameters)
