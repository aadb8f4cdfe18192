"""The reference table as GitHub Markdown, for a job's summary or a pull request's comment."""

from __future__ import annotations

import re
from collections.abc import Sequence

from compress.report.table import Cell, Table


def render_markdown(table: Table) -> str:
    """A pipe table, aligned in its source too, with its notes below; ends with a newline."""
    heads = ("criterion", "dense", *table.recipes)
    lines = [_cells(heads), *(_cells((row.title, row.dense, *map(_write, row.cells))) for row in table.rows)]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(heads))]
    # The dense model's values stand to the right, so that their digits line up.
    rule = [f"{'-' * (width - 1)}:" if column == 1 else "-" * width for column, width in enumerate(widths)]
    text = [_join(lines[0], widths), f"| {' | '.join(rule)} |", *(_join(line, widths) for line in lines[1:])]
    if table.title:
        text = [f"### {_escape(table.title)}", "", *text]
    if table.footer:
        text += ["", *(f"- {_escape(line)}" for line in table.footer)]
    return "\n".join(text) + "\n"


def _write(cell: Cell) -> str:
    change = f"({cell.change})" if cell.change else ""
    return " ".join(part for part in (cell.value, change, cell.outcome) if part)


def _cells(texts: Sequence[str]) -> list[str]:
    return [_escape(text) for text in texts]


def _join(texts: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        text.rjust(width) if column == 1 else text.ljust(width)
        for column, (text, width) in enumerate(zip(texts, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"


def _escape(text: str) -> str:
    """A text that stays in its cell and is no markup."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\|`*])", r"\\\1", plain)
