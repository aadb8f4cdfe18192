"""A sweep's models as a table, best first, in the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import rich.table
from rich.box import SIMPLE_HEAD
from rich.text import Text

from compress.gate.figures import write_difference, write_value
from compress.report.console import text_console, trimmed
from compress.report.markdown import escape, pipe_table
from compress.report.pareto import Candidate, Sweep, on_front
from compress.results import METRICS, Kind

_PLACES = 6  # of a line: model, quality, time, file size, parameters, remarks


@dataclass(frozen=True, kw_only=True)
class Line:
    """One model: its cells in the order of the heads, and whether another one beats it."""

    cells: tuple[str, ...]
    beaten: bool


def sweep_lines(sweep: Sweep) -> list[Line]:
    """The dense model, then those that none beats in quality, time and size together, then the others; best first."""
    everyone = [sweep.dense, *sweep.candidates]
    front = dict(zip(map(id, everyone), on_front(everyone), strict=True))
    ordered = sorted(sweep.candidates, key=lambda one: (not front[id(one)], one.badness, one.file_bytes))
    return [_line(one, sweep.dense, best=front[id(one)]) for one in (sweep.dense, *ordered)]


def render_sweep_terminal(sweep: Sweep, *, width: int, color: bool) -> str:
    """The table for a terminal ``width`` columns wide."""
    table = rich.table.Table(box=SIMPLE_HEAD if color else None, show_edge=False, pad_edge=False)
    for number, head in enumerate(_heads(sweep)):
        table.add_column(head, justify="left" if number in (0, _PLACES - 1) else "right", overflow="fold")
    for line in sweep_lines(sweep):
        table.add_row(*map(Text, line.cells), style="dim" if line.beaten else None)
    console = text_console(width, color=color)
    with console.capture() as capture:
        console.print(table)
        for text in _footer(sweep):
            console.print(Text(text))
    return trimmed(capture.get())


def render_sweep_markdown(sweep: Sweep) -> str:
    """A pipe table with its notes below; ends with a newline."""
    rows = [line.cells for line in sweep_lines(sweep)]
    table = pipe_table(_heads(sweep), rows, right=range(1, _PLACES - 1))
    return "\n".join([*table, "", *(f"- {escape(line)}" for line in _footer(sweep))]) + "\n"


def _heads(sweep: Sweep) -> tuple[str, ...]:
    return ("model", sweep.dense.metric.title, "time", "file size", "parameters", "")


def _line(one: Candidate, dense: Candidate, *, best: bool) -> Line:
    quality = write_value(one.metric, one.quality)
    change = write_difference(one.metric, one.quality - dense.quality)
    role = "dense" if one is dense else "recipe" if one.is_seed else ""
    beaten = one.latency_ratio is not None and not best
    return Line(
        cells=(
            one.label,
            quality if one is dense else f"{quality} ({change})",
            "" if one.latency_ratio is None else f"x{one.latency_ratio:.3f}",
            write_value(METRICS["file_bytes"], one.file_bytes),
            write_value(METRICS["num_params"], one.num_params),
            ", ".join(word for word in (role, "beaten" if beaten else "") if word),
        ),
        beaten=beaten,
    )


def _word(dense: Candidate) -> str:
    return "error" if dense.metric.kind is Kind.ERROR else dense.metric.title


def _footer(sweep: Sweep) -> Sequence[str]:
    lines = [
        f"workload: {sweep.workload}, {sweep.num_examples:,} test examples",
        f"time: compressed / dense, called in turn, on {sweep.device}",
        f"beaten: another model is no worse in {_word(sweep.dense)}, time and size, and better in one of them",
    ]
    lines += [f"failed: {failure.label}: {failure.reason}" for failure in sweep.failures]
    lines += [f"still being tried: one by {worker}" for worker in sweep.running]
    return lines
