"""What SECURITY.md says is held by the tests that it names."""

from __future__ import annotations

import re
from pathlib import Path

import compress

ROOT = Path(compress.__file__).parents[1]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def test_every_test_that_is_named_exists():
    """A promise without a test is none."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)
    assert len(named) >= 6
    for path, name in named:
        assert f"\ndef {name}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{name}"


def test_nothing_is_unpickled():
    """No module imports pickle, or loads by torch's own loaders, which do."""
    for path in (ROOT / "compress").rglob("*.py"):
        code = path.read_text(encoding="utf-8")
        assert not re.search(
            r"^\s*(import|from) (pickle|cPickle|dill|cloudpickle|joblib|shelve)\b", code, re.MULTILINE
        ), path
        # In a docstring or a comment they are named to say that they are not called.
        calls = re.findall(
            r"^(?!.*``).*\b(?:torch(?:\.export)?\.load|pickle\.loads?)\(|allow_pickle=True", code, re.MULTILINE
        )
        assert not calls, f"{path}: {calls}"
