"""Text for a terminal: its console, its colours, and paragraphs that take no more lines than they are given."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence

from rich.box import Box
from rich.console import Console

from compress.gate.checks import Status

STYLES: Mapping[Status | None, str] = {
    Status.PASSED: "green",
    Status.INCONCLUSIVE: "yellow",
    Status.NOT_MEASURED: "bold yellow",
    Status.REGRESSED: "bold red",
    None: "dim",
}

# A rule under the head and nothing else; continuous-integration logs are not always UTF-8.
PLAIN_BOX = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)

# A paragraph is given as many lines as it needs, up to these; fewer where there are many of them.
_ROOMY, _TIGHT = 4, 2


def text_console(width: int, *, color: bool) -> Console:
    """A console whose output is captured, ``width`` columns wide, with ANSI escapes if ``color``."""
    return Console(
        file=io.StringIO(),
        width=width,
        color_system="standard" if color else None,
        force_terminal=color,
        no_color=not color,
        legacy_windows=False,
        highlight=False,
    )


def trimmed(text: str) -> str:
    """``text`` without blanks at its lines' ends, and with one line break at its own."""
    return "\n".join(line.rstrip() for line in text.splitlines()).rstrip() + "\n"


def wrapped(text: str, *, width: int, lines: int = _TIGHT) -> list[str]:
    """A paragraph with a hanging indent, cut where it would take more than ``lines``."""
    return textwrap.wrap(
        text,
        width=width,
        subsequent_indent="  ",
        max_lines=lines,
        placeholder=" ...",
        break_on_hyphens=False,
    )


def fitted(texts: Sequence[str], *, width: int, lines: int, last: str = "") -> list[list[str]]:
    """Paragraphs, as many of the first as fit in ``lines``, and a last one.

    Args:
        texts: the most important first.
        width: in characters.
        lines: that all may take together.
        last: what always comes at the end; before it stands how many were left out.
    """
    end = wrapped(last, width=width) if last else []
    room = lines - len(end)
    for most in (_ROOMY, _TIGHT):
        paragraphs = [wrapped(text, width=width, lines=most) for text in texts]
        if sum(map(len, paragraphs)) <= room:
            return [*paragraphs, *([end] if end else [])]
    shown: list[list[str]] = []
    while len(shown) < len(paragraphs) and sum(map(len, shown)) + len(paragraphs[len(shown)]) <= room - 1:
        shown.append(paragraphs[len(shown)])
    return [*shown, [f"... and {len(paragraphs) - len(shown)} more"], *([end] if end else [])]
