from __future__ import annotations

import tomllib

import hypothesis.strategies as st
import pytest
from hypothesis import given

from compress.errors import ConfigError
from compress.sweep.parameters import (
    Choices,
    Range,
    grid_of,
    own_settings,
    parameters_of,
    parse_parameter,
    read_sweep_table,
    with_settings,
)
from tests.sweep.recipes import CUT, FIT, ZERO, recipe


def choices(*values):
    """A list of values."""
    return Choices(values=values)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prune_weights.sparsity=0.1,0.2", ("prune_weights.sparsity", choices(0.1, 0.2))),
        (" fit.epochs = 1, 2 ,2", ("fit.epochs", choices(1, 2))),
        ("prune_channels.importance=l1,l2", ("prune_channels.importance", choices("l1", "l2"))),
        ("fit.channels_last=true,false", ("fit.channels_last", choices(True, False))),
        ("fit.learning_rate=0.1..0.5", ("fit.learning_rate", Range(low=0.1, high=0.5))),
        ("fit.learning_rate=1e-4..1e-1:log", ("fit.learning_rate", Range(low=1e-4, high=1e-1, log=True))),
        ("steps.2.epochs=1..9", ("steps.2.epochs", Range(low=1, high=9))),
    ],
)
def test_what_a_command_line_says(text, expected):
    """Values are what TOML would make of them, words are texts, two dots are a range."""
    assert parse_parameter(text) == expected


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=5, unique=True))
def test_numbers_are_read_as_python_writes_them(values):
    """Any list of fractions survives the command line."""
    name, space = parse_parameter(f"fit.learning_rate={','.join(map(str, values))}")
    assert (name, space) == ("fit.learning_rate", choices(*values))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fit.epochs", "a parameter must be NAME=VALUE,VALUE... or NAME=LOW..HIGH, got 'fit.epochs'"),
        ("=3", "a parameter must be NAME=VALUE,VALUE... or NAME=LOW..HIGH, got '=3'"),
        ("fit.epochs=", "a parameter must be NAME=VALUE,VALUE... or NAME=LOW..HIGH, got 'fit.epochs='"),
        ("a.b=5..1", "a range must rise, got 5 to 1 (parameter 'a.b=5..1')"),
        ("a.b=0..1:log", "a range must rise from above 0, got 0 to 1 (parameter 'a.b=0..1:log')"),
        ("a.b=x..y", "the ends of a range must be numbers, got 'x' and 'y' (parameter 'a.b=x..y')"),
        ("a.b=nan..1", "the ends of a range must be numbers, got nan and 1 (parameter 'a.b=nan..1')"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_sentence(text, message):
    """The rule, and what was given."""
    with pytest.raises(ConfigError) as caught:
        parse_parameter(text)
    assert str(caught.value) == message


def test_what_a_recipe_says():
    """Dotted keys are names, lists are values, tables with ends are ranges."""
    table = tomllib.loads(
        """
        prune_channels.pruning_ratio = [0.1, 0.2]
        fit.learning_rate = { low = 1e-3, high = 0.1, log = true }
        steps.2.epochs = [1]
        """
    )
    assert read_sweep_table(table, "r.toml") == {
        "prune_channels.pruning_ratio": choices(0.1, 0.2),
        "fit.learning_rate": Range(low=1e-3, high=0.1, log=True),
        "steps.2.epochs": choices(1),
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.b = 3", "a parameter varies over a list or { low = ..., high = ... }, got 3 (r.toml, sweep.a.b)"),
        ("a.b = []", "a parameter takes at least one value, got none (r.toml, sweep.a.b)"),
        ("a.b = [[1]]", "a parameter's values must be numbers, texts or booleans, got [[1]] (r.toml, sweep.a.b)"),
        ("a.b = { low = 1 }", "a range has low, high and perhaps log, got low (r.toml, sweep.a.b)"),
        (
            "a.b = { low = 1, high = 2, step = 1 }",
            "a range has low, high and perhaps log, got low, high, step (r.toml, sweep.a.b)",
        ),
        ("a.b = { low = 1, high = 2, log = 1 }", "log must be true or false, got 1 (r.toml, sweep.a.b)"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_sentence(content, message):
    """The rule, the value, and its place."""
    with pytest.raises(ConfigError) as caught:
        read_sweep_table(tomllib.loads(content), "r.toml")
    assert str(caught.value) == message


def test_a_step_is_named_by_its_name_or_its_number(tmp_path):
    """Where the name is enough it is the parameter's name; steps that come twice go by their number."""
    once = recipe(tmp_path, "once", CUT, FIT)
    found = parameters_of(once, {"fit.epochs": choices(1, 2), "steps.1.pruning_ratio": choices(0.1)})
    assert [(one.name, one.step, one.setting) for one in found] == [
        ("fit.epochs", 1, "epochs"),
        ("prune_channels.pruning_ratio", 0, "pruning_ratio"),
    ]
    twice = recipe(tmp_path, "twice", FIT, CUT, FIT)
    (found,) = parameters_of(twice, {"steps.3.epochs": choices(1, 2)})
    assert (found.name, found.step) == ("steps.3.epochs", 2)


def test_a_setting_named_twice_counts_once(tmp_path):
    """By name and by number it is the same setting; the later counts."""
    (found,) = parameters_of(
        recipe(tmp_path, "r", ZERO), {"steps.1.sparsity": choices(0.1), "prune_weights.sparsity": choices(0.2)}
    )
    assert found.space == choices(0.2)


def test_what_names_no_step_of_this_recipe_is_not_its_own(tmp_path):
    """Another recipe of the sweep may have it."""
    assert parameters_of(recipe(tmp_path, "r", ZERO), {"fit.epochs": choices(1), "steps.2.epochs": choices(1)}) == ()


@pytest.mark.parametrize(
    ("name", "space", "message"),
    [
        (
            "fit.epochs",
            choices(1),
            "recipe {path} takes the step fit 2 times, name one of them: steps.1.epochs or steps.3.epochs",
        ),
        ("steps.0.epochs", choices(1), "steps are counted from 1, as in steps.1.epochs, got 'steps.0'"),
        (
            "steps.2.pruning_rato",
            choices(1),
            "unknown key 'pruning_rato' - did you mean 'pruning_ratio'?; known are pruning_ratio, ",
        ),
        (
            "prune_channels.pruning_ratio",
            choices(0.1, 1.5),
            "pruning_ratio must be in [0, 1), got 1.5 (recipe {path}, parameter prune_channels.pruning_ratio)",
        ),
        (
            "prune_channels.pruning_ratio",
            Range(low=0.5, high=1.5),
            "pruning_ratio must be in [0, 1), got 1.5 (recipe {path}, parameter prune_channels.pruning_ratio)",
        ),
        (
            "steps.1.epochs",
            Range(low=0.5, high=1.5),
            "epochs must be of type int, got 0.5 (recipe {path}, parameter steps.1.epochs)",
        ),
        (
            "epochs",
            choices(1),
            "a parameter is named STEP.SETTING or steps.NUMBER.SETTING, where STEP is one of fit, ",
        ),
    ],
)
def test_what_does_not_suit_a_recipe_is_one_sentence(tmp_path, name, space, message):
    """Every value is held against the settings' own rules before anything is trained."""
    whole = recipe(tmp_path, "r", FIT, CUT, FIT)
    with pytest.raises(ConfigError) as caught:
        parameters_of(whole, {name: space})
    assert str(caught.value).startswith(message.format(path=whole.path))


def test_whole_ends_of_a_fraction_are_fractions(tmp_path):
    """A range of a count holds whole numbers, a range of a fraction all numbers, however its ends are written."""
    spaces = {"fit.epochs": Range(low=1, high=3), "fit.learning_rate": Range(low=1, high=3)}
    epochs, rate = parameters_of(recipe(tmp_path, "r", FIT), spaces)
    assert epochs.space.is_whole
    assert not rate.space.is_whole


def test_settings_are_put_into_the_recipe(tmp_path):
    """Only what is named changes, and the recipe given stays as it is."""
    whole = recipe(tmp_path, "r", CUT, FIT)
    parameters = parameters_of(whole, {"fit.epochs": choices(1, 7), "prune_channels.pruning_ratio": choices(0.1)})
    changed = with_settings(whole, parameters, {"fit.epochs": 7})
    assert (changed.steps[0], changed.steps[1].epochs) == (whole.steps[0], 7)
    assert own_settings(whole, parameters) == {"fit.epochs": 1, "prune_channels.pruning_ratio": 0.5}
    assert with_settings(whole, parameters, {}) == whole


def test_a_grid_is_every_combination(tmp_path):
    """In the order of the lists; a range has no end of values."""
    whole = recipe(tmp_path, "r", CUT, FIT)
    spaces = {"fit.epochs": choices(1, 2), "prune_channels.pruning_ratio": choices(0.1, 0.2)}
    grid = grid_of(parameters_of(whole, spaces))
    assert [tuple(point.values()) for point in grid] == [(1, 0.1), (1, 0.2), (2, 0.1), (2, 0.2)]
    ranged = parameters_of(whole, {"fit.epochs": Range(low=1, high=5)})
    with pytest.raises(ConfigError, match=r"^a grid takes lists of values, got 1 to 5 \(parameter fit\.epochs\)$"):
        grid_of(ranged)
