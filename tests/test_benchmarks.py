"""The scripts beside the gate: what a page of the documentation tells its reader to run must at least begin."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import benchmarks

SCRIPTS = sorted(path.stem for path in Path(benchmarks.__path__[0]).glob("*.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_finds_what_it_takes_from_the_package(name):
    """None is left behind where a function moves."""
    importlib.import_module(f"benchmarks.{name}")
