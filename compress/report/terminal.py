"""A run on a terminal: what it came to and what to do, one table, and a few lines of notes, in plain ASCII."""

from __future__ import annotations

from rich.text import Text

from compress.report.console import fitted, text_console, trimmed, wrapped
from compress.report.grid import grid_parts
from compress.report.headline import about, headline
from compress.report.remarks import remarks
from compress.report.screen import Screen
from compress.report.table import build_table

MOST_REMARK_LINES = 8
_MORE = "all values and reasons: -v, --compress-report=FILE, --compress-html=FILE"


def render_terminal(screen: Screen, *, width: int = 80, color: bool = False, verbose: bool = False) -> str:
    """What a run shows, at most ``width`` columns wide; recipes that do not fit beside one another go below.

    Args:
        screen: to be shown.
        width: of the terminal, in characters.
        color: whether to colour it with ANSI escapes.
        verbose: whether to say of each value why it did not hold and what was noted, in place of the summary of it.
    """
    console = text_console(width, color=color)
    with console.capture() as capture:
        for line, style in headline(screen, width=width):
            console.print(Text(line, style=style))
        if screen.verdicts:
            console.print()
            for line, style in about(screen, width=width):
                console.print(Text(line, style=style))
            console.print()
            for part in grid_parts(screen.verdicts, console):
                console.print(part)
            console.print()
        for line in _full(screen, width) if verbose else _brief(screen, width):
            console.print(Text(line))
    return trimmed(capture.get())


def _brief(screen: Screen, width: int) -> list[str]:
    last = _MORE if screen.verdicts else ""
    paragraphs = fitted(remarks(screen), width=width, lines=MOST_REMARK_LINES, last=last)
    return [line for paragraph in paragraphs for line in paragraph]


def _full(screen: Screen, width: int) -> list[str]:
    table = build_table(screen.verdicts, environment=screen.environment)
    excused = [f"excused by {excuse.text}: {gap.what}: {gap.why}" for excuse, gap in screen.excused]
    texts = [*table.about, *excused, *screen.notes, *table.notes]
    return [line for text in texts for line in wrapped(text, width=width, lines=100)]
