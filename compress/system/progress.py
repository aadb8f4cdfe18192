"""How far anything is that takes long, on stderr: bars on a terminal, nothing elsewhere."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterable, Iterator, Sized
from typing import TextIO, TypeVar

from rich.console import Console
from rich.progress import track as rich_track

T = TypeVar("T")


def stderr_console() -> Console:
    """The one console of all bars: one within another shows below it only if both are on the same."""
    # While a bar is shown rich stands before stderr.
    return _console(getattr(sys.stderr, "rich_proxied_file", sys.stderr))


@functools.lru_cache(maxsize=1)
def _console(_stream: TextIO) -> Console:
    # Anew where stderr has become another stream, as in a test.
    return Console(stderr=True)


def track(items: Iterable[T], description: str, *, shown: bool, total: int | None = None) -> Iterable[T]:
    """``items``, counted by a bar on a terminal.

    Args:
        items: to be counted as they are taken.
        description: what is done with them.
        shown: whether to show it at all.
        total: how many there are, for what does not know its own length.
    """
    console = stderr_console()
    hidden = not (shown and console.is_terminal)
    if total is None and isinstance(items, Sized):
        total = len(items)
    return rich_track(items, description, total, console=console, transient=True, disable=hidden)


@contextlib.contextmanager
def working(description: str, *, shown: bool) -> Iterator[None]:
    """A sign of life on a terminal, for work that cannot say how far it is."""
    console = stderr_console()
    with console.status(description) if shown and console.is_terminal else contextlib.nullcontext():
        yield
