"""How far a search or a pass over calibration data is, on stderr."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def counted(items: Iterable[T], description: str, *, shown: bool) -> Iterable[T]:
    """``items``, counted by a bar on a terminal if ``shown``."""
    console = Console(stderr=True)
    total = len(items) if isinstance(items, Sized) else None
    hidden = not (shown and console.is_terminal)
    return track(items, description, total, console=console, transient=True, disable=hidden)
