"""The reference table as GitHub Markdown, for a job's summary or a pull request's comment."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from compress.report.table import Cell, Table


def render_markdown(table: Table) -> str:
    """A pipe table, aligned in its source too, with its notes below; ends with a newline."""
    heads = ("criterion", "dense", *table.recipes)
    rows = [(row.title, row.dense, *map(_write, row.cells)) for row in table.rows]
    # The dense model's values stand to the right, so that their digits line up.
    text = pipe_table(heads, rows, right=(1,))
    if table.identity:
        text = [escape(table.identity), "", *text]
    if table.title:
        text = [f"### {escape(table.title)}", "", *text]
    if table.footer:
        text += ["", *(f"- {escape(line)}" for line in table.footer)]
    return "\n".join(text) + "\n"


def pipe_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> list[str]:
    """The lines of a pipe table, aligned in its source too.

    Args:
        heads: of the columns.
        rows: of the table; no text of theirs is markup.
        right: positions of the columns whose texts stand to the right.
    """
    lines = [[escape(text) for text in row] for row in (heads, *rows)]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(heads))]
    rule = [f"{'-' * (width - 1)}:" if column in right else "-" * width for column, width in enumerate(widths)]
    padded = [
        [text.rjust(width) if column in right else text.ljust(width) for column, (text, width) in enumerate(pairs)]
        for pairs in (zip(line, widths, strict=True) for line in lines)
    ]
    return [f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:])]


def escape(text: str) -> str:
    """A text that stays in its cell and is no markup."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\|`*])", r"\\\1", plain)


def _write(cell: Cell) -> str:
    change = f"({cell.change})" if cell.change else ""
    return " ".join(part for part in (cell.value, change, cell.outcome) if part)
