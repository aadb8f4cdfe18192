"""JSON read strictly: every value has the type it must have, or the message names its place."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from compress.errors import BaselineError

_MESSAGE_WIDTH = 40


@dataclass(frozen=True, kw_only=True)
class Place:
    """A value's place in the file, for messages."""

    path: Path
    keys: tuple[str, ...] = ()

    def at(self, *keys: str) -> Place:
        """The place some keys further in."""
        return Place(path=self.path, keys=(*self.keys, *keys))

    def error(self, rule: str) -> BaselineError:
        """The error that says which rule is broken here."""
        # A key is the file's own text: one with a line break in it would break the message too.
        keys = ".".join(key if key.isprintable() else repr(key) for key in self.keys)
        where = f"{self.path}, {keys}" if keys else str(self.path)
        return BaselineError(f"{rule} ({where})")


def parse_file(path: Path) -> object:
    """The file's JSON, stricter than the standard library reads it: no NaN, and no key twice.

    Raises:
        BaselineError: if the file is missing or cannot be read as that.
    """
    place = Place(path=path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise place.error("the baseline does not exist; record it with --benchmark-save") from None
    except OSError as error:
        raise place.error(f"the baseline cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise place.error(f"the baseline is not UTF-8 text: {error.reason} at byte {error.start}") from error
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise place.error(f"the baseline is not valid JSON: {error}") from error


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON number")


def _unique(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    # A merge of two branches that each recorded may leave a key twice, of which Python would keep the last.
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {twice!r} stands twice in one table")
    return table


def check_keys(table: Mapping[str, object], required: AbstractSet[str], known: AbstractSet[str], place: Place) -> None:
    """Refuse a table that lacks a required key or holds one that is not known."""
    missing = sorted(required - table.keys())
    if missing:
        raise place.error(f"the baseline lacks {', '.join(map(repr, missing))}")
    unknown = sorted(table.keys() - known)
    if unknown:
        raise place.error(f"the baseline holds {unknown[0]!r}, known here are {', '.join(sorted(known))}")


def to_table(value: object, place: Place) -> Mapping[str, object]:
    """The value, which must be a table."""
    if not isinstance(value, dict):
        raise place.error(f"the baseline must hold a table here, got {_brief(value)}")
    return value


def to_text(value: object, place: Place) -> str:
    """The value, which must be a text."""
    if not isinstance(value, str):
        raise place.error(f"the baseline must hold a text here, got {_brief(value)}")
    return value


def to_whole(value: object, place: Place) -> int:
    """The value, which must be a whole number of 0 or more."""
    # To Python, true is a number.
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise place.error(f"the baseline must hold a whole number of 0 or more here, got {_brief(value)}")
    return value


def to_number(value: object, place: Place) -> float:
    """The value, which must be a finite number of 0 or more."""
    if not isinstance(value, bool) and isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if 0 <= number < math.inf:
            return number
    raise place.error(f"the baseline must hold a number of 0 or more here, got {_brief(value)}")


def _brief(value: object) -> str:
    """A wrong value in a few characters."""
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    text = json.dumps(value)
    return text if len(text) <= _MESSAGE_WIDTH else f"{text[:_MESSAGE_WIDTH]}..."
