"""The reference table as plain data: a row for each criterion, the dense model, and a column for each recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compress.gate.checks import Status
from compress.gate.figures import write_change, write_value
from compress.gate.verdict import Verdict, models_compared
from compress.report.names import ALIKE, by_metric, dense_value, is_number, metric_of
from compress.results import Environment, Metric

# Words, not colours alone: logs and colour-blind readers see none.
MARKS: Mapping[Status, str] = {
    Status.PASSED: "ok",
    Status.INCONCLUSIVE: "inconclusive",
    Status.NOT_MEASURED: "NOT MEASURED",
    Status.REGRESSED: "REGRESSED",
}
NOT_GATED = "not gated"
_NOT_RUN = "not run"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One recipe's value of one metric.

    Attributes:
        value: in human units, "" if there is none.
        change: against the dense model, "" if there is none.
        mark: what the gate said, in a word.
        status: the same for a program; None where nothing was held against anything.
        note: number of the note that explains it, None if it needs none.
    """

    value: str
    change: str
    mark: str
    status: Status | None = None
    note: int | None = None

    @property
    def outcome(self) -> str:
        """The mark with the number of its note: ``REGRESSED [1]``."""
        return self.mark if self.note is None else f"{self.mark} [{self.note}]"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One metric: its title, the dense model's value, and a cell for each recipe."""

    title: str
    dense: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Everything a report shows.

    Attributes:
        recipes: heads of the columns after the dense model's.
        rows: in the order of the metrics.
        about: what was measured, and where; one line each.
        notes: what the cells' numbers stand for, from 1.
        summary: how many of each mark there are.
        identity: what the models were compared with, "" if they were not.
        title: what the run came to, "" for none.
        missing: what was not measured though no row shows it.
    """

    recipes: tuple[str, ...]
    rows: tuple[Row, ...]
    about: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    summary: str = ""
    identity: str = ""
    title: str = ""
    missing: tuple[str, ...] = ()

    @property
    def footer(self) -> tuple[str, ...]:
        """The lines below the table: what it is about, the summary, what is missing, the numbered notes."""
        summary = (f"verdicts: {self.summary}",) if self.summary else ()
        return (
            *self.about,
            *summary,
            *self.missing,
            *(f"[{number}] {note}" for number, note in enumerate(self.notes, start=1)),
        )


def build_table(verdicts: Sequence[Verdict], *, workload: str = "", environment: Environment | None = None) -> Table:
    """Arrange verdicts of one workload as the reference table.

    Recipes stand in the order in which they first come; of two verdicts about the same metric of the same recipe the
    later counts, as after measuring once more. Metrics that nobody measured have no row.

    Args:
        verdicts: in any order.
        workload: what was measured.
        environment: where it was measured.
    """
    known = by_metric(verdicts)
    recipes = tuple(dict.fromkeys(verdict.recipe for verdict in verdicts))
    ordered = [row[recipe] for row in known.values() for recipe in recipes if recipe in row]
    notes = _number_notes(ordered)
    rows = tuple(_row(metric_of(row), {recipe: row.get(recipe) for recipe in recipes}, notes) for row in known.values())
    return Table(
        recipes=recipes,
        rows=rows,
        about=_about(workload, environment),
        notes=tuple(_write_note(key, ordered) for key in notes),
        summary=_summary([cell for row in rows for cell in row.cells]),
        identity=models_compared(verdicts),
    )


def _number_notes(ordered: Sequence[Verdict]) -> dict[tuple[str, str], int]:
    """(mark, text) of each note to its number: what is said of several cells is said once."""
    keys = dict.fromkeys(key for verdict in ordered if (key := _note_key(verdict)) is not None)
    return {key: number for number, key in enumerate(keys, start=1)}


def _note_key(verdict: Verdict) -> tuple[str, str] | None:
    text = "; ".join((*verdict.reasons, *verdict.notes))
    return (_mark(verdict), text) if text else None


def _write_note(key: tuple[str, str], ordered: Sequence[Verdict]) -> str:
    mark, text = key
    about = [verdict for verdict in ordered if _note_key(verdict) == key]
    titles = ", ".join(dict.fromkeys(verdict.metric.title for verdict in about))
    recipes = ", ".join(dict.fromkeys(verdict.recipe for verdict in about))
    return f"{mark}: {titles} ({recipes}): {text}"


def _mark(verdict: Verdict) -> str:
    return MARKS[verdict.status] if verdict.gated else NOT_GATED


def _row(metric: Metric, verdicts: Mapping[str, Verdict | None], notes: Mapping[tuple[str, str], int]) -> Row:
    dense = dense_value(verdict for verdict in verdicts.values() if verdict is not None)
    return Row(
        title=metric.title,
        dense="" if dense is None else write_value(metric, dense),
        cells=tuple(_cell(verdict, dense, notes) for verdict in verdicts.values()),
    )


def _cell(verdict: Verdict | None, dense: float | None, notes: Mapping[tuple[str, str], int]) -> Cell:
    """Where its own dense model is not the one that the row shows, the cell names both."""
    if verdict is None:
        return Cell(value="", change="", mark=_NOT_RUN)
    metric, own, compressed = verdict.metric, verdict.measurement.dense, verdict.measurement.compressed
    value = change = ""
    if is_number(compressed):
        value = write_value(metric, compressed)
        if is_number(own):
            change = write_change(metric, own, compressed, verdict.measurement.ratio)
            if dense is not None and 0 < own < ALIKE * dense:
                value = f"{value} of {write_value(metric, own)}"
    key = _note_key(verdict)
    return Cell(
        value=value,
        change=change,
        mark=_mark(verdict),
        status=verdict.status if verdict.gated else None,
        note=notes[key] if key is not None else None,
    )


def _about(workload: str, environment: Environment | None) -> tuple[str, ...]:
    lines = [f"workload: {workload}"] if workload else []
    if environment is not None:
        devices = [f"{environment.cpu} ({environment.cpu_class})"]
        if environment.gpu is not None:
            devices.append(f"{environment.gpu} ({environment.cuda_class})")
        lines.append(f"environment: Python {environment.python}, torch {environment.torch}, {', '.join(devices)}")
    return tuple(lines)


def _summary(cells: Sequence[Cell]) -> str:
    marks = (MARKS[Status.REGRESSED], MARKS[Status.NOT_MEASURED], MARKS[Status.INCONCLUSIVE], MARKS[Status.PASSED])
    counts = {mark: sum(cell.mark == mark for cell in cells) for mark in (*marks, NOT_GATED, _NOT_RUN)}
    return ", ".join(f"{count} {mark}" for mark, count in counts.items() if count)
