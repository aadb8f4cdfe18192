from __future__ import annotations

import math

import pytest

from compress.errors import ConfigError
from compress.pruning.options import Goal, PruneOptions, goal_of


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scope": "rows"}, "scope must be one of layer, global, budget, got 'rows'"),
        ({"min_kept": -0.1}, "min_kept must be in [0, 1], got -0.1"),
        ({"min_kept": math.nan}, "min_kept must be in [0, 1], got nan"),
        ({"min_kept": True}, "min_kept must be in [0, 1], got True"),
        ({"round_to": 0}, "round_to must be a whole number at least 1, or 'auto', got 0"),
        ({"round_to": "8"}, "round_to must be a whole number at least 1, or 'auto', got '8'"),
        ({"round_to": 8.0}, "round_to must be a whole number at least 1, or 'auto', got 8.0"),
        ({"threads": 0}, "threads must be a whole number at least 1, got 0"),
        ({"seed": -1}, "seed must be a whole number in [0, 2**32), got -1"),
        ({"max_params": 0}, "max_params must be a positive number, got 0"),
        ({"max_macs": math.inf}, "max_macs must be a positive number, got inf"),
        ({"max_latency_ms": "3"}, "max_latency_ms must be a positive number, got '3'"),
    ],
)
def test_a_setting_that_breaks_its_rule_is_refused(settings, message):
    """Rule and value, in one sentence."""
    with pytest.raises(ConfigError) as caught:
        PruneOptions(**settings)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("ratio", "settings", "goal"),
    [
        (None, {}, Goal("pruning_ratio", 0.2)),
        (0.5, {}, Goal("pruning_ratio", 0.5)),
        (0, {}, Goal("pruning_ratio", 0.0)),
        (None, {"max_macs": 1000}, Goal("max_macs", 1000.0)),
        (None, {"max_params": 10}, Goal("max_params", 10.0)),
        (None, {"max_latency_ms": 0.5}, Goal("max_latency_ms", 0.5)),
        (0.9, {"scope": "global"}, Goal("pruning_ratio", 0.9)),
    ],
)
def test_one_thing_is_asked(ratio, settings, goal):
    """A ratio or a target; a fifth of the channels where nothing is said."""
    assert goal_of(ratio, PruneOptions(**settings)) == goal


@pytest.mark.parametrize(
    ("ratio", "settings", "message"),
    [
        (0.2, {"max_macs": 1}, "got max_macs, pruning_ratio"),
        (None, {"max_macs": 1, "max_params": 1}, "got max_macs, max_params"),
        (1.0, {}, "pruning_ratio must be in [0, 1), got 1.0"),
        (0.91, {"scope": "global"}, "pruning_ratio must leave min_kept = 0.1 of the channels, got 0.91"),
    ],
)
def test_two_things_or_too_much_are_refused(ratio, settings, message):
    """The message names what was given."""
    with pytest.raises(ConfigError) as caught:
        goal_of(ratio, PruneOptions(**settings))
    assert str(caught.value).endswith(message)


def test_an_iterator_of_batches_can_be_gone_over_again():
    """What can be read once only is kept."""
    options = PruneOptions(batches=iter([1, 2]))
    assert list(options.batches) == list(options.batches) == [1, 2]
    loader = [1, 2]
    assert PruneOptions(batches=loader).batches is loader
