from __future__ import annotations

import pytest

from compress.errors import ConfigError
from compress.sweep.parameters import Choices, Range
from compress.sweep.plans import Point, all_points, is_finite, plan_sweep, seeds
from tests.sweep.recipes import CUT, FIT, ZERO, recipe

SWEEP = "[sweep]\nprune_weights.sparsity = [0.1, 0.5, 0.9]\n"


def test_a_recipes_own_table_and_what_is_given(tmp_path):
    """What is given counts more, and goes to every recipe that has the step."""
    recipes = [recipe(tmp_path, "a", ZERO, SWEEP), recipe(tmp_path, "b", CUT, ZERO)]
    first, second = plan_sweep(recipes, {"prune_channels.pruning_ratio": Choices(values=(0.1,))})
    assert [parameter.space for parameter in first.parameters] == [Choices(values=(0.1, 0.5, 0.9))]
    assert [parameter.name for parameter in second.parameters] == ["prune_channels.pruning_ratio"]
    first, second = plan_sweep(recipes, {"prune_weights.sparsity": Choices(values=(0.3,))})
    assert [(one.name, one.space) for one in first.parameters] == [(one.name, one.space) for one in second.parameters]


def test_points_are_the_recipes_and_the_grid_without_them(tmp_path):
    """Each recipe as it stands comes first; the combination that it is comes only once."""
    plans = plan_sweep([recipe(tmp_path, "a", ZERO, SWEEP), recipe(tmp_path, "b", CUT)], {})
    assert seeds(plans) == [Point(recipe="a"), Point(recipe="b")]
    assert all_points(plans)[2:] == [
        Point(recipe="a", settings={"prune_weights.sparsity": sparsity}) for sparsity in (0.1, 0.9)
    ]
    assert is_finite(plans)
    assert not is_finite(
        plan_sweep([recipe(tmp_path, "c", ZERO)], {"prune_weights.sparsity": Range(low=0.1, high=0.2)})
    )


def test_points_are_equal_by_their_content():
    """In whatever order their settings came."""
    one, other = Point(recipe="a", settings={"x": 1, "y": 2}), Point(recipe="a", settings={"y": 2, "x": 1})
    assert one.key == other.key
    assert one.key != Point(recipe="b", settings={"x": 1, "y": 2}).key


def test_what_suits_no_recipe_is_refused(tmp_path):
    """A parameter that no recipe has, also in a recipe's own table, and two recipes of one name."""
    whole = recipe(tmp_path, "a", ZERO)
    with pytest.raises(ConfigError, match=r"^parameter fit\.epochs names a step of none of the recipes a$"):
        plan_sweep([whole], {"fit.epochs": Choices(values=(1,))})
    own = recipe(tmp_path, "own", ZERO, "[sweep]\nfit.epochs = [1]\n")
    with pytest.raises(ConfigError, match=r"^the recipe takes no such step \(.*own\.toml, sweep\.fit\.epochs\)$"):
        plan_sweep([own], {})
    (tmp_path / "sub").mkdir()
    with pytest.raises(ConfigError, match=r"^a sweep's recipes must have names of their own, got 'a' twice$"):
        plan_sweep([whole, recipe(tmp_path / "sub", "a", FIT)], {})
