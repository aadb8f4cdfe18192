from __future__ import annotations

import re

import pytest

from compress.report.html_layers import layer_section
from compress.report.layer_picture import Fate, describe, draw_layers, fate_of, shares, visible
from compress.results import LayerChange
from tests.report.page_samples import layers


def layer(name="conv", *, left=1.0, zeros=0, dtype="float32", shapes=((8, 8, 3, 3),)):
    """A convolution of 576 weights, ``left`` of them there still."""
    size = 4 if dtype == "float32" else 1
    elements = round(576 * left)
    return LayerChange(
        name=name,
        kind="Conv2d",
        dense_shape=(8, 8, 3, 3),
        shapes=shapes,
        dense_elements=576,
        elements=elements,
        dense_bytes=2304,
        num_bytes=elements * size,
        zeros=zeros,
        dense_dtype="float32",
        dtype=dtype,
    )


FACTORS = ((4, 8, 3, 1), (8, 4, 1, 3))


@pytest.mark.parametrize(
    ("one", "fate"),
    [
        (layer(), Fate.KEPT),
        (layer(shapes=FACTORS), Fate.FACTORIZED),
        (layer(dtype="int8"), Fate.QUANTIZED),
        (layer(dtype="int8", shapes=FACTORS), Fate.QUANTIZED),
    ],
)
def test_how_a_layer_is_filled(one, fate):
    """By what was done to its numbers."""
    assert fate_of(one) is fate


def test_areas_are_bytes():
    """Two equal layers share the width; what is left fills the column from below, zeros at its top."""
    text = "".join(draw_layers([layer(left=0.5), layer("b", zeros=144)], title="t").content)
    widths = [float(width) for width in re.findall(r'width="([\d.]+)%" y="0" height="180" class="gone"', text)]
    assert widths == [pytest.approx(49.9), pytest.approx(49.9)]
    assert 'y="90" height="90" class="kept"' in text
    assert 'y="0" height="45" class="zeros"' in text


def test_shares_add_up():
    """What is kept, quantized and saved makes the whole; zeros and bands are parts of what is left."""
    whole = [layer(left=0.5), layer("b", dtype="int8", shapes=FACTORS), layer("c", zeros=288)]
    parts = {share.name: share.share for share in shares(whole)}
    assert parts == pytest.approx(
        {"kept": 1.5 / 3, "quantized": 0.25 / 3, "band": 0.25 / 3, "zeros": 0.5 / 3, "gone": 1.25 / 3}
    )


def test_a_layer_in_one_line():
    """Shapes and types before and now, and how much is left; a layer that is gone says so."""
    text = describe(layer("a.conv", left=0.5, dtype="int8", shapes=FACTORS, zeros=72))
    assert text == "a.conv: 8x8x3x3 float32 to 4x8x3x1 and 8x4x1x3 int8, 12.5% of its bytes, 25.0% zeros"
    assert describe(layer(left=0.0)) == "conv: gone"


def test_the_narrowest_are_only_in_the_table():
    """A normalization of a few bytes cannot be seen; the page says how many those are, and lists all."""
    whole = layers()
    section = layer_section("structured", whole)
    assert section["hidden"] == len(whole) - len(visible(whole)) == 17
    assert len(section["rows"]) == len(whole)
    assert section["rows"][-2] == {
        "name": "blocks.15.conv",
        "kind": "Conv2d",
        "before": "512x512x3x3",
        "now": "512x512x3x3",
        "elements": "100.0 %",
        "zeros": "",
        "bytes": "100.0 %",
        "dtype": "float32",
    }


def test_no_layers_at_all_are_no_picture():
    """A model without parameters has nothing to divide by."""
    assert draw_layers([], title="t").content == []
    assert shares([]) == []
