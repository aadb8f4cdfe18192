"""The reference table for a screen: a row a criterion, all in one unit, a column a recipe, a letter for a mark."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import rich.table
from rich.console import Console, RenderableType
from rich.text import Text

from compress.gate.checks import Status
from compress.gate.figures import join_some, write_change
from compress.gate.verdict import Verdict
from compress.report.console import PLAIN_BOX, STYLES
from compress.report.names import by_metric, dense_value, is_number, metric_of
from compress.report.units import Scale, scale_of, write_scaled
from compress.results import Metric, Unit

# A letter for what did not hold: what held needs none, and the eye finds the others.
_LETTERS: Mapping[Status | None, str] = {
    Status.PASSED: "",
    Status.INCONCLUSIVE: "?",
    Status.NOT_MEASURED: "#",
    Status.REGRESSED: "!",
    None: "~",
}
_WORDS: Mapping[Status | None, str] = {
    Status.REGRESSED: "regressed",
    Status.NOT_MEASURED: "could not be held",
    Status.INCONCLUSIVE: "undecided",
    None: "held against nothing",
}
_NAME_WIDTH = 16


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """One recipe's value of one metric and its change against the dense model; without a value, why there is none."""

    value: str = ""
    change: str = ""
    instead: str = ""
    status: Status | None = Status.PASSED


def grid_parts(verdicts: Sequence[Verdict], console: Console) -> Iterator[RenderableType]:
    """The blocks of the table, what nobody could measure, and what the marks mean.

    As many recipes stand side by side as fit, at least one; where they take several blocks, those are of like size.

    Args:
        verdicts: in any order; of two about the same metric of the same recipe the later counts.
        console: what it is to fit.
    """
    rows = by_metric(verdicts)
    recipes = tuple(dict.fromkeys(verdict.recipe for verdict in verdicts))
    absent = {name: why for name, row in rows.items() if (why := _why_absent(row)) is not None}
    shown = {name: row for name, row in rows.items() if name not in absent}
    if shown:
        for number, block in enumerate(_blocks(shown, recipes, console)):
            if number:
                yield Text("")
            yield block
    for why in dict.fromkeys(absent.values()):
        names = [metric_of(rows[name]).short for name, reason in absent.items() if reason == why]
        yield Text(f"NOT MEASURED: {join_some(names, 2)}: {why}", style="dim")
    if shown:
        yield _legend(shown)


def _why_absent(row: Mapping[str, Verdict]) -> str | None:
    """Why a criterion has no value of any recipe, if it is one reason for all of them."""
    reasons = {verdict.measurement.unmeasured for verdict in row.values()}
    return next(iter(reasons)) if len(reasons) == 1 else None


def _blocks(
    rows: Mapping[str, Mapping[str, Verdict]], recipes: Sequence[str], console: Console
) -> list[rich.table.Table]:
    unlimited = console.options.update(max_width=sys.maxsize)
    for number in range(1, len(recipes) + 1):
        size = -(-len(recipes) // number)
        parts = [recipes[start : start + size] for start in range(0, len(recipes), size)]
        blocks = [_block(rows, part) for part in parts]
        if all(console.measure(block, options=unlimited).maximum <= console.width for block in blocks):
            return blocks
    return blocks


def _block(rows: Mapping[str, Mapping[str, Verdict]], recipes: Sequence[str]) -> rich.table.Table:
    scales = {name: _scale(metric_of(row), row) for name, row in rows.items()}
    table = rich.table.Table(box=PLAIN_BOX, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("criterion", no_wrap=True)
    table.add_column("dense", justify="right", no_wrap=True)
    columns = []
    for recipe in recipes:
        cells = [_cell(row.get(recipe), scales[name]) for name, row in rows.items()]
        columns.append(_texts(cells, least=min(len(recipe), _NAME_WIDTH)))
        # As a Text it is not searched for markup; a long name is folded, for its figures are what takes room.
        head = Text(recipe, justify="right")
        table.add_column(head, max_width=max(text.cell_len for text in columns[-1]), overflow="fold")
    for number, (name, row) in enumerate(rows.items()):
        metric, scale = metric_of(row), scales[name]
        title = f"{metric.short}, {scale.unit}" if scale.unit else metric.short
        dense = dense_value(row.values())
        written = "" if dense is None else write_scaled(metric, dense, scale)
        table.add_row(Text(title), Text(written), *(column[number] for column in columns))
    return table


def _scale(metric: Metric, row: Mapping[str, Verdict]) -> Scale:
    values = [
        value for verdict in row.values() for value in (verdict.measurement.dense, verdict.measurement.compressed)
    ]
    return scale_of(metric, [value for value in values if is_number(value)])


def _cell(verdict: Verdict | None, scale: Scale) -> _Cell:
    if verdict is None:
        return _Cell(instead="not run")
    status = verdict.status if verdict.gated else None
    metric, dense, compressed = verdict.metric, verdict.measurement.dense, verdict.measurement.compressed
    if not is_number(compressed):
        return _Cell(instead="not measured", status=status)
    change = write_change(metric, dense, compressed, verdict.measurement.ratio) if is_number(dense) else ""
    if metric.unit is Unit.FRACTION:
        # Its row is in percent, so that a change in it is one in points.
        change = change.removesuffix(" pt")
    return _Cell(value=write_scaled(metric, compressed, scale), change=change, status=status)


def _texts(cells: Sequence[_Cell], *, least: int) -> list[Text]:
    """A recipe's cells, at least so wide, their values, changes and marks one under the other."""
    change = max(len(cell.change) for cell in cells)
    figures = [cell.instead or f"{cell.value} {cell.change:>{change}}" for cell in cells]
    width = max(least - 1, *map(len, figures))
    return [
        Text(
            f"{text:>{width}}{_LETTERS[cell.status] or ' '}", style=STYLES[cell.status] if _LETTERS[cell.status] else ""
        )
        for text, cell in zip(figures, cells, strict=True)
    ]


def _legend(rows: Mapping[str, Mapping[str, Verdict]]) -> Text:
    verdicts = [verdict for row in rows.values() for verdict in row.values()]
    statuses = {verdict.status if verdict.gated else None for verdict in verdicts}
    marks = [f"{_LETTERS[status]} {word}" for status, word in _WORDS.items() if status in statuses]
    return Text("value and change from dense; " + ", ".join([*marks, "no mark: held"]), style="dim")
