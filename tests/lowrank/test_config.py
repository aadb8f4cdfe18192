from __future__ import annotations

import math

import pytest

from compress.errors import ConfigError
from compress.lowrank import LowRankConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"by": "svd"}, "by must be one of energy, ratio, rank, macs, params, latency, got 'svd'"),
        ({"by": "energy", "target": 1.5}, "target must be in (0, 1] for energy, got 1.5"),
        ({"by": "ratio", "target": 0}, "target must be in (0, 1] for ratio, got 0"),
        ({"by": "rank", "target": 2.5}, "target must be a whole number at least 1 for rank, got 2.5"),
        ({"by": "rank", "target": math.inf}, "target must be a whole number at least 1 for rank, got inf"),
        ({"by": "macs", "target": 1}, "target must be in (0, 1) for macs, got 1"),
        ({"by": "params", "target": True}, "target must be in (0, 1) for params, got True"),
        ({"by": "latency", "target": math.nan}, "target must be in (0, 1) for latency, got nan"),
        ({"target": "0.5"}, "target must be in (0, 1) for macs, got '0.5'"),
        ({"kinds": ()}, "kinds must be some of channel, spatial, tucker, got ()"),
        ({"kinds": ("cp",)}, "kinds must be some of channel, spatial, tucker, got ('cp',)"),
        ({"kinds": "channel"}, "kinds must be some of channel, spatial, tucker, got 'channel'"),
        ({"round_to": 0}, "round_to must be a whole number at least 1, got 0"),
        ({"round_to": 2.0}, "round_to must be a whole number at least 1, got 2.0"),
        ({"round_to": True}, "round_to must be a whole number at least 1, got True"),
        ({"only": "fc"}, "only must be a tuple of module names, got 'fc'"),
        ({"ignore": (1,)}, "ignore must be a tuple of module names, got (1,)"),
    ],
)
def test_a_value_that_breaks_its_rule_is_named(settings, message):
    """Every field has a rule, and its error is the rule and the value."""
    with pytest.raises(ConfigError) as caught:
        LowRankConfig(**settings)
    assert str(caught.value) == message


def test_whole_numbers_do_for_fractions():
    """TOML writes 1 where 1.0 is meant, and 8.0 is a rank too."""
    assert LowRankConfig(by="energy", target=1).target == 1
    assert LowRankConfig(by="rank", target=8.0).target == 8
