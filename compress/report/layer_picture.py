"""What became of each layer, as one picture: a layer is a column, and its area is its bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from markupsafe import Markup

from compress.report.svg import Picture, element, percent
from compress.results import LayerChange

HEIGHT = 180
_NARROWEST = 0.001  # of the whole width
_GAP = 0.001
_BAND = 5.0  # pixels


class Fate(StrEnum):
    """What was done to a layer, beside removing parts of it; also its class in the style sheet."""

    KEPT = "kept"
    FACTORIZED = "factorized"
    QUANTIZED = "quantized"


@dataclass(frozen=True, kw_only=True)
class Share:
    """A sum over all layers, as a share of the dense model's bytes."""

    title: str
    name: str
    share: float


def fate_of(layer: LayerChange) -> Fate:
    """How a layer is filled; of one that is quantized and factorized too a band says so."""
    if layer.is_quantized:
        return Fate.QUANTIZED
    return Fate.FACTORIZED if layer.is_factorized else Fate.KEPT


def draw_layers(layers: Sequence[LayerChange], *, title: str) -> Picture:
    """Columns from input to output: as wide as a dense layer's share of the bytes, filled as high as is left of it."""
    shown = visible(layers)
    total = sum(layer.dense_bytes for layer in shown) or 1
    parts, left = [], 0.0
    for layer in shown:
        width = layer.dense_bytes / total
        parts.append(_column(layer, left, max(width - _GAP, width / 2)))
        left += width
    words = f"{title}: {', '.join(f'{share.title} {100 * share.share:.1f} %' for share in shares(layers))}"
    return Picture(content=parts, height=HEIGHT, words=words, kind="layers")


def visible(layers: Sequence[LayerChange]) -> list[LayerChange]:
    """Those that are wide enough to be seen; what a normalization holds, for instance, is not."""
    total = sum(layer.dense_bytes for layer in layers)
    return [layer for layer in layers if layer.dense_bytes and layer.dense_bytes >= _NARROWEST * total]


def shares(layers: Sequence[LayerChange]) -> list[Share]:
    """What the dense model's bytes have become, those that came to nothing left out."""
    total = sum(layer.dense_bytes for layer in layers)
    if not total:
        return []
    left = {fate: sum(layer.num_bytes for layer in layers if fate_of(layer) is fate) for fate in Fate}
    zeros = sum(_zero_bytes(layer) for layer in layers)
    sums = (
        ("kept", "kept", left[Fate.KEPT]),
        ("in factorized layers", "factorized", left[Fate.FACTORIZED]),
        ("in quantized layers", "quantized", left[Fate.QUANTIZED]),
        ("of these factorized too", "band", sum(layer.num_bytes for layer in layers if _is_both(layer))),
        ("of what is left exactly zero", "zeros", zeros),
        ("saved", "gone", total - sum(left.values())),
    )
    return [Share(title=title, name=name, share=part / total) for title, name, part in sums if part > 0]


def describe(layer: LayerChange) -> str:
    """A layer in one line."""
    if not layer.elements:
        return f"{layer.name or 'elsewhere'}: gone"
    what = f"{shape(layer.dense_shape)} {layer.dense_dtype} to {' and '.join(map(shape, layer.shapes))} {layer.dtype}"
    zeros = f", {layer.zeros / layer.elements:.1%} zeros" if layer.zeros else ""
    left = f", {layer.num_bytes / layer.dense_bytes:.1%} of its bytes" if layer.dense_bytes else ""
    return f"{layer.name or 'elsewhere'}: {what}{left}{zeros}"


def shape(sizes: Sequence[int]) -> str:
    """``64x32x3x3``."""
    return "x".join(map(str, sizes)) or "-"


def _column(layer: LayerChange, left: float, width: float) -> Markup:
    # A layer can also have grown, by a scale of its own for instance; it is then full.
    filled = min(1.0, layer.num_bytes / layer.dense_bytes)
    place = {"x": percent(left), "width": percent(width)}
    height = HEIGHT * filled
    parts = [
        element("title", None, describe(layer)),
        element("rect", {**place, "y": 0, "height": HEIGHT, "class": "gone"}),
        element("rect", {**place, "y": HEIGHT - height, "height": height, "class": fate_of(layer)}),
    ]
    if layer.zeros and layer.elements:
        zeros = height * layer.zeros / layer.elements
        parts.append(element("rect", {**place, "y": HEIGHT - height, "height": zeros, "class": "zeros"}))
    if _is_both(layer):
        band = min(_BAND, height)
        parts.append(element("rect", {**place, "y": HEIGHT - height, "height": band, "class": Fate.FACTORIZED}))
    return element("g", None, *parts)


def _is_both(layer: LayerChange) -> bool:
    return layer.is_quantized and layer.is_factorized


def _zero_bytes(layer: LayerChange) -> float:
    return layer.num_bytes * layer.zeros / layer.elements if layer.elements else 0.0
