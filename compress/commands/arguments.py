"""Arguments that several subcommands have, and what they mean."""

from __future__ import annotations

import argparse
import json
import math
from typing import Any


def add_json(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="print one JSON object, for a machine")


def print_json(found: object) -> None:
    """One object on standard output; numbers that JSON has no word for are null."""
    print(json.dumps(_plain(found), indent=2, allow_nan=False))


def positive_seconds(text: str) -> float:
    """A number of seconds above 0, as argparse asks for a type."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return seconds


def positive_count(text: str) -> int:
    """A whole number of 1 or more, as argparse asks for a type."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of 1 or more, got {text!r}")
    return int(text)


def _plain(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case None | str() | bool() | int() | float():
            return value
        case _:
            return str(value)
