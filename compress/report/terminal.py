"""The reference table for a terminal: as wide as it is, with colours or without, in plain ASCII."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Mapping, Sequence

import rich.table
from rich.box import Box
from rich.console import Console
from rich.text import Text

from compress.gate.checks import Status
from compress.report.table import Row, Table

_STYLES: Mapping[Status | None, str] = {
    Status.PASSED: "green",
    Status.INCONCLUSIVE: "yellow",
    Status.NOT_MEASURED: "bold yellow",
    Status.REGRESSED: "bold red",
    None: "dim",
}

# A rule under the head and nothing else; continuous-integration logs are not always UTF-8.
PLAIN_BOX = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


def render_terminal(table: Table, *, width: int = 80, color: bool = False) -> str:
    """The table and its notes, at most ``width`` columns wide; recipes that do not fit beside one another go below.

    Args:
        table: to be shown.
        width: of the terminal, in characters.
        color: whether to colour the marks with ANSI escapes.
    """
    console = text_console(width, color=color)
    with console.capture() as capture:
        if table.identity:
            console.print(Text(table.identity))
            console.print()
        for block in _blocks(table, console):
            console.print(block)
            console.print()
        for line in table.footer:
            console.print(Text(line))
    return trimmed(capture.get())


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


def rich_table(table: Table, columns: Sequence[int]) -> rich.table.Table:
    """A table of some of the recipes, for a rich console.

    Args:
        table: to be shown.
        columns: positions of the recipes in ``table.recipes``.
    """
    shown = rich.table.Table(box=PLAIN_BOX, show_edge=False, pad_edge=False)
    shown.add_column("criterion", overflow="fold")
    shown.add_column("dense", justify="right", no_wrap=True, overflow="fold")
    cells = [_column(table.rows, column) for column in columns]
    for column in columns:
        # As a Text it is not searched for markup.
        shown.add_column(Text(table.recipes[column]), overflow="fold")
    for index, row in enumerate(table.rows):
        shown.add_row(Text(row.title), Text(row.dense), *(column[index] for column in cells))
    return shown


def _blocks(table: Table, console: Console) -> Iterator[rich.table.Table]:
    """As many recipes side by side as fit, at least one."""
    unlimited = console.options.update(max_width=sys.maxsize)
    columns: list[int] = []
    for column in range(len(table.recipes)):
        wider = rich_table(table, [*columns, column])
        if columns and console.measure(wider, options=unlimited).maximum > console.width:
            yield rich_table(table, columns)
            columns = []
        columns.append(column)
    yield rich_table(table, columns)


def _column(rows: Sequence[Row], column: int) -> list[Text]:
    """One recipe's cells, their values and changes one under the other."""
    cells = [row.cells[column] for row in rows]
    value_width = max((len(cell.value) for cell in cells), default=0)
    change_width = max((len(cell.change) + 2 for cell in cells if cell.change), default=0)
    texts = []
    for cell in cells:
        change = f"({cell.change})" if cell.change else ""
        text = Text(f"{cell.value:>{value_width}} {change:<{change_width}} " if cell.value else "")
        texts.append(text.append(cell.outcome, style=_STYLES[cell.status]))
    return texts
