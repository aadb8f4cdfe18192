"""The page's part about layers: a picture for each recipe, and the same as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compress.report.layer_picture import draw_layers, shape, shares, visible
from compress.results import LayerChange


def layer_section(recipe: str, layers: Sequence[LayerChange]) -> dict[str, Any]:
    """What the template shows of one recipe."""
    return {
        "recipe": recipe,
        "picture": draw_layers(layers, title=f"Layers of {recipe}"),
        "shares": shares(layers),
        "hidden": len(layers) - len(visible(layers)),
        "rows": [_row(layer) for layer in layers],
    }


def _row(layer: LayerChange) -> dict[str, str]:
    changed = layer.dtype != layer.dense_dtype
    return {
        "name": layer.name or "elsewhere",
        "kind": layer.kind,
        "before": shape(layer.dense_shape),
        "now": " + ".join(map(shape, layer.shapes)) or "-",
        "elements": _share(layer.elements, layer.dense_elements),
        "zeros": _share(layer.zeros, layer.elements) if layer.zeros else "",
        "bytes": _share(layer.num_bytes, layer.dense_bytes),
        "dtype": f"{layer.dense_dtype} to {layer.dtype}" if changed and layer.dtype else layer.dense_dtype,
    }


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else f"{part:,}"
