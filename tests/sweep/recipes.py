"""Recipes that tests of sweeps write."""

from __future__ import annotations

from pathlib import Path

from compress.recipe import Recipe, load_recipe

ZERO = """\
[[steps]]
use = "prune_weights"
sparsity = 0.5
"""
CUT = """\
[[steps]]
use = "prune_channels"
pruning_ratio = 0.5
"""
FIT = """\
[[steps]]
use = "fit"
epochs = 1
batch_size = 16
validation_fraction = 0
autocast = "off"
"""


def write_recipe(folder: Path, name: str, *parts: str) -> Path:
    """A recipe file of these parts."""
    path = folder / f"{name}.toml"
    path.write_text("\n".join(parts), encoding="utf-8")
    return path


def recipe(folder: Path, name: str, *parts: str) -> Recipe:
    """A recipe of these parts."""
    return load_recipe(write_recipe(folder, name, *parts))
