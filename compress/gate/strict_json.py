"""JSON read strictly: what the file must hold is what its schema says, or the message names the place."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, ValidationError

from compress.errors import BaselineError

_MESSAGE_WIDTH = 40
_TYPES = {
    "object": "a table",
    "array": "a list",
    "string": "a text",
    "integer": "a whole number of 0 or more",
    "number": "a number of 0 or more",
}


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


def check(content: object, schema: Mapping[str, object], path: Path) -> None:
    """Hold a file's content against a JSON Schema.

    Args:
        content: as JSON gives it.
        schema: of draft 2020-12; its types, required and known keys, bounds and lengths are said in words.
        path: the file, for the message.

    Raises:
        BaselineError: for the first value that breaks a rule, with the keys that lead to it.
    """
    broken = min(Draft202012Validator(schema).iter_errors(content), key=_order, default=None)
    if broken is not None:
        place = Place(path=path).at(*map(str, broken.absolute_path))
        raise place.error(f"the baseline {_rule(broken)}")


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


def _order(error: ValidationError) -> tuple[int, list[str], str]:
    """The outermost first: what lies within a wrong table need not be looked at."""
    keys = [str(key) for key in error.absolute_path]
    return len(keys), keys, str(error.validator)


def _rule(error: ValidationError) -> str:
    """The broken rule, and what stands there instead."""
    value: Any = error.instance
    table: Any = error.schema
    bound: Any = error.validator_value
    if error.validator == "required":
        missing = sorted(set(bound) - value.keys())
        return f"lacks {', '.join(map(repr, missing))}"
    if error.validator == "additionalProperties":
        known = sorted(table["properties"])
        return f"holds {min(value.keys() - set(known))!r}, known here are {', '.join(known)}"
    if error.validator in ("minItems", "maxItems"):
        return f"must hold {bound} values here, got {len(value)}"
    if error.validator == "pattern":
        # There is one: a hash.
        return f"must hold a SHA-256 of 64 hexadecimal digits here, got {_brief(value)}"
    if error.validator == "enum":
        return f"must hold one of {', '.join(bound)} here, got {_brief(value)}"
    wanted = _TYPES[table["type"]]
    if table.get("minimum", 0) < 0:
        wanted = "a number"
    if error.validator == "maximum" and bound == 1:
        wanted = "a number in [0, 1]"
    return f"must hold {wanted} here, got {_brief(value)}"


def _brief(value: object) -> str:
    """A wrong value in a few characters."""
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    text = json.dumps(value)
    return text if len(text) <= _MESSAGE_WIDTH else f"{text[:_MESSAGE_WIDTH]}..."
