"""All that a run found out as one page: a file of its own that asks no network for anything and runs no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jinja2
from markupsafe import Markup

from compress.gate.checks import Status
from compress.gate.figures import write_change
from compress.gate.history import Version
from compress.gate.verdict import Verdict
from compress.report.gauges import draw_gauge, gauges_of
from compress.report.history_chart import SERIES, draw_history, histories
from compress.report.html_layers import layer_section
from compress.report.html_tradeoffs import tradeoff_section
from compress.report.pareto import Sweep
from compress.report.svg import asset
from compress.report.table import Table, build_table
from compress.results import Environment, LayerChange, in_order

# Beside the words: shapes are told apart faster, and colour alone tells some readers nothing.
_GLYPHS: Mapping[Status | None, str] = {
    Status.PASSED: "\N{CHECK MARK}",
    Status.INCONCLUSIVE: "?",
    Status.NOT_MEASURED: "\N{EN DASH}",
    Status.REGRESSED: "\N{MULTIPLICATION X}",
    None: "\N{MIDDLE DOT}",
}


_CARD_FIGURES = ("file_bytes", "cpu_latency_ms")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a page shows.

    Attributes:
        workload: name of the model and data.
        data_sha256: hash of the test data.
        environment: where it was measured; None if nobody knows.
        verdicts: in the order in which they came.
        title: what the run came to: "held", "regressed" or "could not measure"; "" if that is not known.
        missing: what was not measured though no row shows it, one line each.
        layers: recipe to what became of the dense model's layers.
        versions: the stored baselines, the oldest first.
        sweep: further models to be drawn beside those of the run.
    """

    workload: str
    data_sha256: str
    environment: Environment | None
    verdicts: Sequence[Verdict]
    title: str = ""
    missing: Sequence[str] = ()
    layers: Mapping[str, Sequence[LayerChange]] = field(default_factory=dict)
    versions: Sequence[Version] = ()
    sweep: Sweep | None = None


def render_html(report: Report) -> str:
    """The page; every text in it is escaped.

    Raises:
        ConfigError: if the sweep is of another workload or other test data.
    """
    table = build_table(report.verdicts, workload=report.workload, environment=report.environment)
    return _template().render(
        style=Markup("\n").join(Markup(asset(name)) for name in ("palette.css", "chart.css", "page.css")),  # noqa: S704
        glyphs=_GLYPHS,
        workload=report.workload,
        headline=_headline(report.verdicts, report.title),
        missing=report.missing,
        about=[
            *(line for line in table.about if not line.startswith("workload:")),
            *((table.identity,) if table.identity else ()),
        ],
        table=table,
        cards=_cards(report.verdicts),
        gauges={recipe: [(one, draw_gauge(one)) for one in row] for recipe, row in gauges_of(report.verdicts).items()},
        layers=[layer_section(recipe, layers) for recipe, layers in report.layers.items() if layers],
        footer=_footer(table),
        **_history(report),
        **tradeoff_section(report.verdicts, report.sweep, workload=report.workload, data_sha256=report.data_sha256),
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(asset("page.html"))


def _headline(verdicts: Sequence[Verdict], title: str) -> dict[str, Any]:
    """The run in a sentence, and the status it is coloured by."""
    latest = {(verdict.recipe, verdict.metric.name): verdict for verdict in verdicts if verdict.gated}
    counts = {status: sum(verdict.status is status for verdict in latest.values()) for status in Status}
    words = {Status.PASSED: "held", Status.INCONCLUSIVE: "undecided", Status.NOT_MEASURED: "not measured"}
    details = ", ".join(f"{counts[status]} {word}" for status, word in words.items() if counts[status])
    if counts[Status.REGRESSED]:
        return {"status": Status.REGRESSED, "text": f"{counts[Status.REGRESSED]} regressed, {details or 'none held'}"}
    if title == "regressed":
        return {"status": Status.REGRESSED, "text": f"A test failed: {details}"}
    if title == "could not measure":
        return {"status": Status.NOT_MEASURED, "text": f"Nothing regressed, but not all was measured: {details}"}
    if not latest:
        return {"status": Status.NOT_MEASURED, "text": "Nothing was held against a limit or a baseline"}
    best = Status.PASSED if counts[Status.PASSED] else Status.NOT_MEASURED
    status = Status.INCONCLUSIVE if counts[Status.INCONCLUSIVE] else best
    return {"status": status, "text": f"Nothing regressed: {details}"}


def _cards(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Each recipe in three figures, with the worst that was said of it."""
    latest = {(verdict.recipe, verdict.metric.name): verdict for verdict in verdicts}
    # Of several qualities the first is what the model is for.
    best = [metric.name for metric in in_order(verdict.metric for verdict in verdicts) if metric.is_quality][:1]
    cards = []
    for recipe in dict.fromkeys(verdict.recipe for verdict in verdicts):
        own = [verdict for (name, _), verdict in latest.items() if name == recipe and verdict.gated]
        # What needs a device that is not there would otherwise be all that a card says.
        told = [verdict.status for verdict in own if verdict.status is not Status.NOT_MEASURED]
        figures = [
            (latest[recipe, name].metric.short, change)
            for name in (*_CARD_FIGURES, *best)
            if (recipe, name) in latest and (change := _change(latest[recipe, name]))
        ]
        cards.append({"recipe": recipe, "status": max(told, key=tuple(Status).index, default=None), "figures": figures})
    return [card for card in cards if card["figures"]]


def _change(verdict: Verdict) -> str:
    dense, compressed = verdict.measurement.dense, verdict.measurement.compressed
    if dense is None or compressed is None:
        return ""
    ratio = verdict.ratio.median if verdict.ratio is not None else None
    return write_change(verdict.metric, dense, compressed, ratio)


def _history(report: Report) -> dict[str, Any]:
    found = histories(report.versions, report.verdicts)
    recipes = dict.fromkeys(recipe for history in found for recipe in history.series)
    series = {recipe: number % SERIES for number, recipe in enumerate(recipes)}
    charts = [
        {"title": one.metric.title, "unit": one.unit, "picture": draw_history(one, series=series)} for one in found
    ]
    return {"histories": charts, "legend": series}


def _footer(table: Table) -> list[str]:
    return [f"verdicts: {table.summary}"] if table.summary else []
