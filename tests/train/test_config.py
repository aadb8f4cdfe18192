from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.errors import ConfigError
from compress.train import FitConfig
from compress.train.config import learning_rate


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, "epochs must be a whole number at least 1, got 0"),
        ("epochs", 2.0, "epochs must be a whole number at least 1, got 2.0"),
        ("epochs", True, "epochs must be a whole number at least 1, got True"),
        ("epochs", "ten", "epochs must be a whole number at least 1, got 'ten'"),
        ("batch_size", 0, "batch_size must be a whole number at least 1, got 0"),
        ("learning_rate", 0.0, "learning_rate must be positive, got 0.0"),
        ("learning_rate", math.inf, "learning_rate must be positive, got inf"),
        ("learning_rate", math.nan, "learning_rate must be positive, got nan"),
        ("momentum", 1.0, r"momentum must be in \[0, 1\), got 1.0"),
        ("weight_decay", -0.1, "weight_decay must be at least 0, got -0.1"),
        ("warmup_epochs", -1, "warmup_epochs must be at least 0, got -1"),
        ("warmup_epochs", 201, "warmup_epochs must be at most epochs = 200, got 201"),
        ("label_smoothing", 1.0, r"label_smoothing must be in \[0, 1\), got 1.0"),
        ("validation_fraction", 1.0, r"validation_fraction must be in \[0, 1\), got 1.0"),
        ("validation_fraction", None, r"validation_fraction must be in \[0, 1\), got None"),
        ("seed", -1, r"seed must be a whole number in \[0, 2\*\*32\), got -1"),
        ("temperature", 0, "temperature must be positive, got 0"),
        ("alpha", 1.1, r"alpha must be in \[0, 1\], got 1.1"),
        ("hint_weight", -1.0, "hint_weight must be at least 0, got -1.0"),
        ("hints", "blocks.a3", "hints must be a tuple of module names, got 'blocks.a3'"),
        ("hints", (3,), r"hints must be a tuple of module names, got \(3,\)"),
        ("autocast", "fp8", "autocast must be one of auto, bfloat16, off, got 'fp8'"),
        ("image_sizes", 8, "image_sizes must be a tuple of whole numbers, got 8"),
        ("image_sizes", (16, 0), r"image_sizes must be whole numbers of at least 1, got \(16, 0\)"),
        ("image_sizes", (8,) * 201, "image_sizes must be at most epochs = 200 of them, got 201"),
        ("channels_last", 1, "channels_last must be true or false, got 1"),
    ],
)
def test_a_value_that_breaks_its_rule_is_named(field, value, message):
    """Every field has a rule, and its error is the rule and the value."""
    with pytest.raises(ConfigError, match=f"^{message}$"):
        FitConfig(**{field: value})


def test_whole_numbers_do_for_fractions():
    """TOML writes 1 where 1.0 is meant."""
    assert FitConfig(learning_rate=1, warmup_epochs=2).learning_rate == 1


def test_each_image_size_gets_its_share_of_the_epochs():
    """The sizes come in their order, each as often as the others to within one; without any, images keep theirs."""
    config = FitConfig(epochs=7, image_sizes=(20, 24, 32))
    assert [config.image_size(epoch) for epoch in range(7)] == [20, 20, 20, 24, 24, 32, 32]
    assert FitConfig(epochs=7).image_size(3) is None


@settings(deadline=None, max_examples=100)
@given(
    st.integers(min_value=1, max_value=20),
    st.floats(min_value=0, max_value=1),
    st.integers(min_value=1, max_value=50),
    st.floats(min_value=1e-6, max_value=10),
)
def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero(epochs, warmup_share, steps_per_epoch, peak):
    """Up in even steps to the peak, then down without ever rising, never outside [0, peak]."""
    config = FitConfig(epochs=epochs, warmup_epochs=warmup_share * epochs, learning_rate=peak)
    rates = [learning_rate(config, step, steps_per_epoch) for step in range(epochs * steps_per_epoch)]
    warmup = round(config.warmup_epochs * steps_per_epoch)
    assert all(0 < rate <= peak * (1 + 1e-12) for rate in rates)
    assert rates[:warmup] == pytest.approx([peak * (step + 1) / warmup for step in range(warmup)])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert learning_rate(config, epochs * steps_per_epoch, steps_per_epoch) in (0, peak)


def test_the_learning_rate_of_the_reference_schedule():
    """Spot values in closed form: half the peak in the middle of the cosine, a quarter's cosine at a third."""
    config = FitConfig(epochs=4, warmup_epochs=1, learning_rate=0.1)
    assert learning_rate(config, 0, 10) == pytest.approx(0.01)
    assert learning_rate(config, 9, 10) == pytest.approx(0.1)
    assert learning_rate(config, 10, 10) == pytest.approx(0.1)
    assert learning_rate(config, 20, 10) == pytest.approx(0.075)
    assert learning_rate(config, 25, 10) == pytest.approx(0.05)
    assert learning_rate(config, 45, 10) == 0
