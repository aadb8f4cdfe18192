"""A sweep's results as files: JSON that can be read again, CSV for a spreadsheet, a Markdown table, a picture.

The JSON reads::

    {
      "schema": 1,
      "workload": "digits",
      "data_sha256": "5f2315...",
      "num_examples": 500,
      "device": "cpu-avx2-1t",
      "dense": {"recipe": "dense", "top1_error": 0.016, "file_bytes": 25392280, "num_params": 6310314, ...},
      "candidates": [
        {"recipe": "structured", "settings": {"prune_channels.pruning_ratio": 0.3}, "top1_error": 0.024, ...}
      ],
      "failures": [{"recipe": "structured", "settings": {...}, "reason": "..."}]
    }

Where models are judged by something else, it stands in place of top1_error and is described under "metric".
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compress.errors import CompressError, ConfigError
from compress.report.pareto import Candidate, Failure, Sweep, on_front
from compress.report.scatter import TITLES, Cost, draw_scatter, marks_of
from compress.report.svg import as_file, element
from compress.report.sweep_table import render_sweep_markdown
from compress.results import METRICS, Kind, Metric, metric_of
from compress.system.files import write_atomically

SCHEMA = 1
ENDINGS = (".json", ".csv", ".md", ".svg")
# What the models of a sweep are judged by, where the file says nothing.
_USUAL = "top1_error"
_COSTS = ("latency_ratio", "latency_low", "latency_high", "file_bytes", "num_params")
_WIDTH = 560
_MARGIN = 28


def check_output(path: Path) -> None:
    """Refuse a file that could not be written after the sweep.

    Raises:
        ConfigError: if its ending is none of :data:`ENDINGS`, or its folder is not there.
    """
    if path.suffix not in ENDINGS:
        raise ConfigError(f"a sweep's results are written to a file that ends in {', '.join(ENDINGS)}, got {path}")
    if not path.parent.is_dir():
        raise ConfigError(f"a sweep's results need a folder that exists, got {path}")


def write_sweep(sweep: Sweep, path: Path) -> None:
    """Write the results in the format that the file's ending says.

    Raises:
        CompressError: if the file cannot be written.
    """
    check_output(path)
    render = {".json": sweep_json, ".csv": _to_csv, ".md": render_sweep_markdown, ".svg": draw_sweep}[path.suffix]
    write_atomically(path, render(sweep).encode(), CompressError)


def read_sweep(path: Path) -> Sweep:
    """The results that :func:`write_sweep` wrote as JSON.

    Raises:
        ConfigError: if the file is missing, or holds something else.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        schema = document["schema"]
        if schema != SCHEMA:
            raise ConfigError(f"a sweep's results must have schema {SCHEMA}, got {schema!r} ({path})")
        metric = metric_of(document["metric"]) if "metric" in document else METRICS[_USUAL]
        return Sweep(
            workload=str(document["workload"]),
            data_sha256=str(document["data_sha256"]),
            device=str(document["device"]),
            num_examples=int(document["num_examples"]),
            dense=_candidate(document["dense"], metric),
            candidates=tuple(_candidate(entry, metric) for entry in document["candidates"]),
            failures=tuple(_failure(entry) for entry in document["failures"]),
        )
    except OSError as cause:
        raise ConfigError(f"cannot read a sweep's results: {cause.strerror or cause} ({path})") from cause
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as cause:
        if isinstance(cause, ConfigError):
            raise
        reason = f"no {cause}" if isinstance(cause, KeyError) else str(cause)
        raise ConfigError(f"not the JSON that sweep --output writes: {reason} ({path})") from cause


def draw_sweep(sweep: Sweep) -> str:
    """Error against time and against size, side by side, as an SVG file."""
    parts, bottom = [], 0.0
    for number, cost in enumerate(Cost):
        left = _MARGIN + number * (_WIDTH + _MARGIN)
        picture = draw_scatter(
            marks_of(sweep.dense, sweep.candidates, cost), cost, title=TITLES[cost], metric=sweep.dense.metric
        )
        parts.append(element("text", {"x": left, "y": _MARGIN, "class": "name"}, f"{sweep.workload}: {TITLES[cost]}"))
        parts.append(picture.placed(x=left, y=1.5 * _MARGIN, width=_WIDTH))
        bottom = 1.5 * _MARGIN + picture.top + picture.height + picture.bottom
    return as_file(parts, width=2 * _WIDTH + 3 * _MARGIN, height=round(bottom + _MARGIN / 2))


def sweep_json(sweep: Sweep) -> str:
    """The results as JSON, which :func:`read_sweep` reads."""
    metric = sweep.dense.metric
    document = {key: value for key, value in asdict(sweep).items() if key != "running"}
    for entry in (document["dense"], *document["candidates"]):
        del entry["metric"]
        entry[metric.name] = entry.pop("quality")
    if metric.name != _USUAL:
        document["metric"] = asdict(metric)
    return json.dumps({"schema": SCHEMA, **document}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _to_csv(sweep: Sweep) -> str:
    names = list(dict.fromkeys(name for one in sweep.candidates for name in one.settings))
    heads = ["recipe", *names, sweep.dense.metric.name, *_COSTS]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*heads, "on_front"])
    everyone = [sweep.dense, *sweep.candidates]
    for one, best in zip(everyone, on_front(everyone), strict=True):
        settings = [one.settings.get(name, "") for name in names]
        low, high = one.latency_interval or ("", "")
        ratio = "" if one.latency_ratio is None else one.latency_ratio
        writer.writerow(
            [one.recipe, *settings, one.quality, ratio, low, high, one.file_bytes, one.num_params, int(best)]
        )
    return text.getvalue()


def _candidate(entry: Mapping[str, Any], metric: Metric) -> Candidate:
    interval: Sequence[Any] | None = entry.get("latency_interval")
    ratio = entry.get("latency_ratio")
    return Candidate(
        recipe=str(entry["recipe"]),
        quality=_finite(entry[metric.name]) if metric.kind is Kind.SCORE else _number(entry[metric.name]),
        metric=metric,
        file_bytes=_number(entry["file_bytes"]),
        num_params=_number(entry["num_params"]),
        latency_ratio=None if ratio is None else _number(ratio),
        latency_interval=None if interval is None else (_number(interval[0]), _number(interval[1])),
        settings=_settings(entry.get("settings", {})),
    )


def _failure(entry: Mapping[str, Any]) -> Failure:
    return Failure(recipe=str(entry["recipe"]), settings=_settings(entry["settings"]), reason=str(entry["reason"]))


def _settings(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"settings must be a table, got {value!r}")
    return value


def _finite(value: object) -> float:
    # A score may lie below 0.
    return _number(abs(value)) * (1 if value >= 0 else -1) if isinstance(value, int | float) else _number(value)


def _number(value: object) -> float:
    # Infinity would make an axis without end; to Python, true is a number.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError(f"a number of 0 or more must stand in place of {value!r}")
    return value
