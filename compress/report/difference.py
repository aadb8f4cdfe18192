"""The difference of two baselines as a table, for a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Mapping

import rich.table
from rich.text import Text

from compress.gate.baseline import Entry
from compress.gate.difference import Change, Difference, Trend, held_value
from compress.gate.figures import write_exact, write_points
from compress.report.console import PLAIN_BOX, text_console, trimmed
from compress.report.markdown import escape, pipe_table
from compress.results import Kind, Metric

_HEADS = ("recipe", "criterion", "device", "before", "after", "change", "")
_RIGHT = (3, 4)

# Words, not colours alone: logs and colour-blind readers see none.
_MARKS: Mapping[Trend, str] = {
    Trend.WORSE: "WORSE",
    Trend.GONE: "GONE",
    Trend.BETTER: "better",
    Trend.NEW: "new",
    Trend.CHANGED: "within tolerance",
    Trend.SAME: "same",
}
_STYLES: Mapping[Trend, str] = {
    Trend.WORSE: "bold red",
    Trend.GONE: "bold red",
    Trend.BETTER: "green",
    Trend.NEW: "yellow",
    Trend.CHANGED: "",
    Trend.SAME: "dim",
}


def diff_terminal(difference: Difference, *, everything: bool = False, width: int = 80, color: bool = False) -> str:
    """The difference for a terminal.

    Args:
        difference: to be shown.
        everything: whether to show what is the same too.
        width: of the terminal, in characters.
        color: whether to colour the marks with ANSI escapes.
    """
    console = text_console(width, color=color)
    shown = rich.table.Table(box=PLAIN_BOX, show_edge=False, pad_edge=False)
    for column, head in enumerate(_HEADS):
        shown.add_column(head, justify="right" if column in _RIGHT else "left", overflow="fold")
    changes = _chosen(difference, everything=everything)
    for change in changes:
        *texts, mark = _row(change)
        shown.add_row(*map(Text, texts), Text(mark, style=_STYLES[change.trend]))
    with console.capture() as capture:
        if changes:
            console.print(shown)
            console.print()
        for line in _footer(difference):
            console.print(Text(line))
    return trimmed(capture.get())


def diff_markdown(difference: Difference, *, everything: bool = False) -> str:
    """The difference as GitHub Markdown; ends with a newline.

    Args:
        difference: to be shown.
        everything: whether to show what is the same too.
    """
    changes = _chosen(difference, everything=everything)
    text = [*pipe_table(_HEADS, [_row(change) for change in changes], right=_RIGHT), ""] if changes else []
    return "\n".join([*text, *(f"- {escape(line)}" for line in _footer(difference))]) + "\n"


def _chosen(difference: Difference, *, everything: bool) -> list[Change]:
    return [change for change in difference.changes if everything or change.trend is not Trend.SAME]


def _footer(difference: Difference) -> tuple[str, ...]:
    counts = {trend: sum(change.trend is trend for change in difference.changes) for trend in Trend}
    summary = ", ".join(f"{count} {_MARKS[trend]}" for trend, count in counts.items() if count)
    files = f"{difference.before.path} -> {difference.after.path}"
    return (f"{files}: {summary or 'no entries'}", *difference.about)


def _row(change: Change) -> tuple[str, ...]:
    metric = change.metric
    return (
        change.recipe,
        metric.title,
        change.device,
        _value(metric, change.before),
        _value(metric, change.after),
        _change(change),
        _MARKS[change.trend],
    )


def _value(metric: Metric, entry: Entry | None) -> str:
    if entry is None:
        return ""
    value = write_exact(metric, entry.compressed)
    return value if entry.ratio is None else f"x{entry.ratio:.3f} ({value})"


def _change(change: Change) -> str:
    """From the value that the gate compares; of errors with the examples that changed sides."""
    if change.before is None or change.after is None or change.trend is Trend.SAME:
        return ""
    old, new = held_value(change.before), held_value(change.after)
    if change.metric.kind is Kind.ERROR:
        lost_gained = f", {change.flips[0]:,} lost, {change.flips[1]:,} gained" if change.flips is not None else ""
        return f"{write_points(new - old)}{lost_gained}"
    if old == new:
        return "dense model only" if change.before.dense != change.after.dense else "no change of the ratio"
    return f"{100 * (new / old - 1):+.1f} %" if old else "from 0"
