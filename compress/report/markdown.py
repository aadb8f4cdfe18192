"""The reference table as GitHub Markdown, for a job's summary or a pull request's comment."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence

from compress.report.table import Cell, Table


def render_markdown(table: Table) -> str:
    """A pipe table, aligned in its source too, with its notes below; ends with a newline."""
    heads = ("criterion", "dense", *table.recipes)
    rows = [heads, *((row.title, row.dense, *map(_write, row.cells)) for row in table.rows)]
    # The dense model's values stand to the right, so that their digits line up.
    title = f"### {_escape(table.title)}\n\n" if table.title else ""
    return title + join_rows(rows, right=(1,), footer=table.footer)


def join_rows(rows: Sequence[Sequence[str]], *, right: Container[int], footer: Sequence[str] = ()) -> str:
    """A pipe table of texts, the first row its head, and a list of notes below it; nothing in them is taken for markup.

    Args:
        rows: of equally many cells.
        right: columns whose cells stand to the right.
        footer: one note each.
    """
    lines = [[_escape(text) for text in row] for row in rows]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(lines[0]))]
    rule = [f"{'-' * (width - 1)}:" if column in right else "-" * width for column, width in enumerate(widths)]
    text = [_join(lines[0], widths, right), f"| {' | '.join(rule)} |"]
    text += [_join(line, widths, right) for line in lines[1:]]
    if footer:
        text += ["", *(f"- {_escape(line)}" for line in footer)]
    return "\n".join(text) + "\n"


def _write(cell: Cell) -> str:
    change = f"({cell.change})" if cell.change else ""
    return " ".join(part for part in (cell.value, change, cell.outcome) if part)


def _join(texts: Sequence[str], widths: Sequence[int], right: Container[int]) -> str:
    padded = [
        text.rjust(width) if column in right else text.ljust(width)
        for column, (text, width) in enumerate(zip(texts, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"


def _escape(text: str) -> str:
    """A text that stays in its cell and is no markup."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\|`*])", r"\\\1", plain)
