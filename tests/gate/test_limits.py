from __future__ import annotations

import math
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.errors import ConfigError
from compress.gate.limits import Limit, exceeds, find_metric, parse_limits
from compress.quality import Quality

WHERE = "recipes/structured.toml"
ERROR_RULE = "an error is limited by max_increase, because the better the dense model the less a ratio allows"
MARGIN_RULE = "max_increase of an error must be in [0, 1), where 0.01 is one percentage point"
TIME_RULE = "a time is limited by max_ratio, because milliseconds differ from machine to machine"


def parse(text):
    """The limits of a recipe with this text as its table."""
    return parse_limits(tomllib.loads(text), where=WHERE)


def test_recipe_table_is_read():
    """Each entry becomes the limit of its metric and knows its file."""
    limits = parse("""
        num_params = { max_ratio = 0.65 }
        top1_error = { max_increase = 0.01 }
        cpu_latency_ms = { max_ratio = 1 }
        cpu_peak_bytes = { max_ratio = 0.9, max_increase = -1024 }
    """)
    assert limits == {
        "num_params": Limit(metric="num_params", max_ratio=0.65, where=WHERE),
        "top1_error": Limit(metric="top1_error", max_increase=0.01, where=WHERE),
        "cpu_latency_ms": Limit(metric="cpu_latency_ms", max_ratio=1.0, where=WHERE),
        "cpu_peak_bytes": Limit(metric="cpu_peak_bytes", max_ratio=0.9, max_increase=-1024.0, where=WHERE),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "num_param = { max_ratio = 0.65 }",
            f"metric 'num_param' is unknown, the nearest is 'num_params' ({WHERE}, limits.num_param)",
        ),
        (
            "num_params = { maxratio = 0.65 }",
            f"limit key 'maxratio' is unknown, the nearest is 'max_ratio' ({WHERE}, limits.num_params)",
        ),
        (
            "num_params = { zzz = 0.65 }",
            (
                "limit key 'zzz' is unknown, known are max_ratio, max_increase, min_ratio, max_drop, build_tolerance, "
                "devices "
                f"({WHERE}, limits.num_params)"
            ),
        ),
        (
            "num_params = 0.65",
            f"a limit must be a table such as {{ max_ratio = 0.8 }}, got 0.65 ({WHERE}, limits.num_params)",
        ),
        (
            "top1_error = 0.01",
            f"a limit must be a table such as {{ max_increase = 0.01 }}, got 0.01 ({WHERE}, limits.top1_error)",
        ),
        (
            "macs = { build_tolerance = 1.0 }",
            f"build_tolerance must be in [0, 1), where 0.01 is 1 %, got 1 ({WHERE}, limits.macs.build_tolerance)",
        ),
        (
            "top1_error = { build_tolerance = 0.1 }",
            (
                "a build_tolerance is for counts and bytes; errors and times of another build are compared by those of "
                f"its own dense model, got 0.1 ({WHERE}, limits.top1_error.build_tolerance)"
            ),
        ),
        (
            "num_params = {}",
            (
                "a limit must state max_ratio or max_increase or build_tolerance, got none of them "
                f"({WHERE}, limits.num_params)"
            ),
        ),
        (
            'num_params = { max_ratio = "0.65" }',
            f"max_ratio must be a number, got '0.65' ({WHERE}, limits.num_params.max_ratio)",
        ),
        (
            "num_params = { max_ratio = true }",
            f"max_ratio must be a number, got True ({WHERE}, limits.num_params.max_ratio)",
        ),
        (
            "num_params = { max_ratio = -0.5 }",
            f"max_ratio must be a finite number above 0, got -0.5 ({WHERE}, limits.num_params.max_ratio)",
        ),
        (
            "num_params = { max_ratio = 0 }",
            f"max_ratio must be a finite number above 0, got 0 ({WHERE}, limits.num_params.max_ratio)",
        ),
        (
            "num_params = { max_ratio = nan }",
            f"max_ratio must be a finite number above 0, got nan ({WHERE}, limits.num_params.max_ratio)",
        ),
        (
            "num_params = { max_increase = inf }",
            f"max_increase must be a finite number, got inf ({WHERE}, limits.num_params.max_increase)",
        ),
        (
            "top1_error = { max_ratio = 1.1 }",
            f"{ERROR_RULE}, got max_ratio 1.1 ({WHERE}, limits.top1_error.max_ratio)",
        ),
        (
            "top1_error = { max_increase = 1 }",
            f"{MARGIN_RULE}, got 1 ({WHERE}, limits.top1_error.max_increase)",
        ),
        (
            "cpu_latency_ms = { max_increase = 1 }",
            f"{TIME_RULE}, got max_increase 1 ({WHERE}, limits.cpu_latency_ms.max_increase)",
        ),
    ],
)
def test_mistakes_are_named_in_one_sentence(text, message):
    """Every mistake in a recipe names its rule, the value and its place."""
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert str(caught.value) == message


def test_a_limit_may_be_for_some_classes_of_device():
    """It then binds what is measured on one of them, by shell patterns; any other limit binds everywhere."""
    limit = parse('cpu_latency_ms = { max_ratio = 0.8, devices = ["cpu-amx*", "cpu-avx512_vnni-?t"] }')[
        "cpu_latency_ms"
    ]
    bound = {device: limit.binds(device) for device in ("cpu-amx_int8-4t", "cpu-avx512_vnni-1t", "cpu-avx2-1t", "")}
    assert bound == {"cpu-amx_int8-4t": True, "cpu-avx512_vnni-1t": True, "cpu-avx2-1t": False, "": False}
    assert parse("cpu_latency_ms = { max_ratio = 0.8 }")["cpu_latency_ms"].binds("cpu-avx2-1t")
    assert not parse("num_params = { build_tolerance = 0 }")["num_params"].binds("")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('num_params = { max_ratio = 0.8, devices = ["cpu-*"] }', "devices are for metrics that depend on the device"),
        ('cpu_latency_ms = { max_ratio = 0.8, devices = "cpu-*" }', "devices must be a list of classes such as"),
        ('cpu_latency_ms = { devices = ["cpu-*"] }', "a limit must state max_ratio or max_increase or build_tolerance"),
    ],
)
def test_classes_of_device_that_make_no_sense_are_refused(text, message):
    """In one sentence that says where they stand."""
    with pytest.raises(ConfigError, match=f"{message}.*{WHERE}"):
        parse(text)


def test_integer_beyond_a_double_is_refused():
    """A number too large for a float is no limit."""
    with pytest.raises(ConfigError, match="must be a finite number"):
        parse_limits({"num_params": {"max_increase": 10**400}}, where=WHERE)


def test_limits_that_are_no_table_are_refused():
    """A list in place of the table is named."""
    with pytest.raises(ConfigError, match="limits must be a table of metrics"):
        parse_limits([1], where=WHERE)


def test_limit_made_in_code_obeys_the_same_rules():
    """A limit that does not suit its metric cannot be made at all."""
    with pytest.raises(ConfigError, match=r"limited by max_increase.*\(limits.top1_error.max_ratio\)$"):
        Limit(metric="top1_error", max_ratio=1.0)


@pytest.mark.parametrize(
    ("limit", "dense", "compressed", "text"),
    [
        (Limit(metric="num_params", max_ratio=0.65), 1000, 650, None),
        (Limit(metric="num_params", max_ratio=0.65), 1000, 651, "exceeded by 1"),
        (Limit(metric="num_params", max_ratio=0.29), 100, 29, None),
        (Limit(metric="num_params", max_increase=5), 1000, 1005, None),
        (Limit(metric="num_params", max_increase=-5), 1000, 996, "exceeded by 1"),
        (Limit(metric="num_params", max_ratio=2, max_increase=5), 1000, 1006, "exceeded by 1"),
        (Limit(metric="cpu_peak_bytes", max_ratio=0.5), 2001, 1001, "exceeded by 1 bytes"),
        (Limit(metric="top1_error", max_increase=0.01), 0.22, 0.23, None),
        (Limit(metric="top1_error", max_increase=0.01), 0.22, 0.235, "exceeded by 0.50 pt"),
    ],
)
def test_limit_explains_how_it_is_broken(limit, dense, compressed, text):
    """A limit held gives nothing, a broken one says by how much; rounding of doubles breaks none."""
    assert limit.broken_by(dense, compressed) == text


@pytest.mark.parametrize(
    ("limit", "dense", "text"),
    [
        (
            Limit(metric="num_params", max_ratio=0.65, where=WHERE),
            6_402_564,
            f"at most 0.65 x dense = 4,161,666 ({WHERE})",
        ),
        (Limit(metric="num_params", max_ratio=0.5, max_increase=-9), 10, "at most 0.5 x dense and dense - 9 = 1"),
        (Limit(metric="top1_error", max_increase=0.01), 0.2296, "at most dense + 1.00 pt = 23.96 %"),
        (Limit(metric="cpu_latency_ms", max_ratio=0.9), 5.0, "at most 0.9 x dense"),
    ],
)
def test_limit_describes_itself(limit, dense, text):
    """A limit is written with what it comes to, but a time with no such figure."""
    assert limit.describe(dense) == text


@given(dense=st.integers(0, 10**12), ratio=st.floats(0.01, 2))
@settings(deadline=None)
def test_whole_values_at_the_bound_hold(dense, ratio):
    """The largest whole number within the bound holds, the next one does not."""
    limit = Limit(metric="num_params", max_ratio=ratio)
    largest = math.floor(ratio * dense)
    assert limit.broken_by(dense, largest) is None
    assert limit.broken_by(dense, largest + 2) is not None


def test_exceeds_forgives_rounding_only():
    """Some units in the last place are no excess, a billionth is."""
    assert not exceeds(0.1 + 0.2, 0.3)
    assert exceeds(0.3 * (1 + 1e-9), 0.3)
    assert not exceeds(0.0, 0.0)


def test_metric_far_from_all_known_gets_the_list():
    """A name that resembles none is answered with all there are."""
    with pytest.raises(ConfigError, match="known are num_params, num_nonzero_params, macs"):
        find_metric("xyz", where="here")


def snr_limit(**bounds):
    """Of a quality that may lie below zero."""
    declared = Quality(name="snr_db", rows=lambda out, _: out, better="higher").metric
    return Limit(metric="snr_db", declared=declared, where=WHERE, **bounds)


def test_a_ratio_of_what_is_below_zero_is_a_margin_of_its_size():
    """Nine tenths of -5 dB is no better value than it, which an unchanged model would miss."""
    limit = snr_limit(min_ratio=0.9)
    assert limit.bound(5.0) == pytest.approx(4.5)
    assert limit.bound(-5.0) == pytest.approx(-5.5)
    assert limit.broken_by(-5.0, -5.0) is None
    assert limit.broken_by(-5.0, -5.4) is None
    assert limit.broken_by(-5.0, -5.6) is not None
    assert limit.describe(-5.0).startswith("at least dense -0.1 x |dense| = -5.5")
