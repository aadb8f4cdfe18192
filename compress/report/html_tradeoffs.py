"""The page's part about error against cost: the run's recipes and a sweep's trials in one picture for each cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from compress.errors import ConfigError
from compress.gate.figures import write_value
from compress.gate.verdict import Verdict
from compress.report.pareto import Candidate, Sweep, on_front
from compress.report.scatter import TITLES, Cost, draw_scatter, marks_of
from compress.results import METRICS, Measurement

# The first of them that was measured is the time that is drawn.
_TIMES = ("cpu_latency_ms", "cuda_latency_ms")


def tradeoff_section(
    verdicts: Sequence[Verdict], sweep: Sweep | None, *, workload: str, data_sha256: str
) -> dict[str, Any]:
    """What the template shows; no pictures where neither the run nor a sweep measured both error and size.

    Raises:
        ConfigError: if the sweep is of another workload or other test data.
    """
    dense, candidates, device = models_of(verdicts, _judged_by(verdicts) if sweep is None else sweep.dense.metric.name)
    notes: list[str] = []
    if sweep is not None:
        if sweep.workload != workload:
            raise ConfigError(
                f"a page shows one workload, got the sweep of {sweep.workload!r} for a run of {workload!r}"
            )
        if sweep.data_sha256 != data_sha256:
            raise ConfigError(
                f"a page shows one data set, got a sweep on other test data (sha256 {sweep.data_sha256[:12]},"
                f" the run's {data_sha256[:12]})"
            )
        dense, candidates = _with_sweep(dense, candidates, sweep, device, notes)
    if dense is None:
        return {"scatters": [], "models": [], "judged_by": "", "has_trials": False, "scatter_notes": notes}
    scatters = []
    for cost in Cost:
        marks = marks_of(dense, candidates, cost)
        if len(marks) > 1:
            title = TITLES[cost].capitalize()
            scatters.append({"title": title, "picture": draw_scatter(marks, cost, title=title, metric=dense.metric)})
    everyone = [dense, *candidates]
    return {
        "scatters": scatters,
        "judged_by": dense.metric.title,
        "models": [_row(one, best=best) for one, best in zip(everyone, on_front(everyone), strict=True)],
        "has_trials": any(not one.is_seed for one in candidates),
        "scatter_notes": notes,
    }


def models_of(verdicts: Sequence[Verdict], judged_by: str) -> tuple[Candidate | None, list[Candidate], str]:
    """The dense model, each recipe's, and the class of device of their times; None and none if too little is known."""
    latest = {(verdict.recipe, verdict.metric.name): verdict for verdict in verdicts}
    recipes = dict.fromkeys(verdict.recipe for verdict in verdicts)
    dense, candidates, device = None, [], ""
    for recipe in recipes:
        error, size, params = (
            _measured(latest.get((recipe, name))) for name in (judged_by, "file_bytes", "num_params")
        )
        if error is None or size is None or params is None:
            continue
        time = next((one for name in _TIMES if (one := latest.get((recipe, name))) and one.ratio), None)
        candidate = Candidate(
            recipe=recipe,
            quality=error.compressed or 0.0,
            metric=error.about,
            file_bytes=size.compressed or 0.0,
            num_params=params.compressed or 0.0,
        )
        if time is not None and (ratio := time.ratio) is not None:
            device = time.measurement.device
            candidate = replace(candidate, latency_ratio=ratio.median, latency_interval=(ratio.low, ratio.high))
        candidates.append(candidate)
        dense = dense or Candidate(
            recipe="dense",
            quality=error.dense or 0.0,
            metric=error.about,
            file_bytes=size.dense or 0.0,
            num_params=params.dense or 0.0,
            latency_ratio=1.0,
        )
    return dense, candidates, device


def _judged_by(verdicts: Sequence[Verdict]) -> str:
    """The first quality of the models themselves, and not of their files, that was measured; "" without any."""
    names = [verdict.metric.name for verdict in verdicts if verdict.metric.is_quality]
    return next((name for name in names if not name.startswith("artifact_")), "")


def _with_sweep(
    dense: Candidate | None, candidates: list[Candidate], sweep: Sweep, device: str, notes: list[str]
) -> tuple[Candidate, list[Candidate]]:
    """The run's models and the sweep's; of a recipe in both the run's counts."""
    added = [one for one in sweep.candidates if not one.is_seed or one.recipe not in {run.recipe for run in candidates}]
    if device and sweep.device != device:
        notes.append(
            f"The sweep's times were measured on {sweep.device}, this run's on {device}: they do not compare, and only"
            " this run's are drawn."
        )
        added = [replace(one, latency_ratio=None, latency_interval=None) for one in added]
    return dense or sweep.dense, [*candidates, *added]


def _measured(verdict: Verdict | None) -> Measurement | None:
    """The measurement, if both models have a value."""
    if verdict is None or verdict.measurement.dense is None or verdict.measurement.compressed is None:
        return None
    return verdict.measurement


def _row(one: Candidate, *, best: bool) -> dict[str, str]:
    return {
        "label": one.label,
        "error": write_value(one.metric, one.quality),
        "time": "" if one.latency_ratio is None else f"x{one.latency_ratio:.3f}",
        "size": write_value(METRICS["file_bytes"], one.file_bytes),
        "params": write_value(METRICS["num_params"], one.num_params),
        "front": "" if one.latency_ratio is None else "no" if best else "yes",
    }
