"""Writing a baseline: rounded so that it can be reviewed, merged so that nothing else in it is lost."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from compress.errors import BaselineError, MeasureError
from compress.gate.baseline import Baseline, Entry, as_recorded, load_baseline
from compress.gate.checks import recorded_ratio
from compress.gate.lock import locked
from compress.gate.models import merged_models
from compress.gate.rows import KeptRows, keep, write_rows
from compress.gate.schema import SCHEMA
from compress.gate.widening import widened
from compress.results import METRICS, Environment, Identity, Kind, Measurement, Metric, Unit
from compress.system.files import write_atomically


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a run measured, and where.

    Attributes:
        workload: name of the model and data.
        data_sha256: hash of the test data.
        num_examples: how many examples the errors count.
        environment: the machine and versions.
    """

    workload: str
    data_sha256: str
    num_examples: int
    environment: Environment


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a recording did.

    Attributes:
        path: the baseline file.
        changed: whether its bytes changed.
        replaced: why all that stood in it was dropped; None if it was kept.
        skipped: (recipe, metric, reason) of what was not recorded because it was not measured.
    """

    path: Path
    changed: bool
    replaced: str | None = None
    skipped: tuple[tuple[str, str, str], ...] = ()


def record(
    path: Path,
    runs: Mapping[str, Sequence[Measurement]],
    *,
    provenance: Provenance,
    models: Mapping[str, Identity] = MappingProxyType({}),
    widen: bool = False,
) -> Recorded:
    """Merge measurements into a baseline file, or begin one.

    Other recipes, other metrics and other classes of device stay as they are. If the file was recorded on other test
    data, none of it compares any more, so it is replaced whole, and the result says why. Two recordings at once wait
    for one another. The file is replaced in one step or stays as it was.

    Args:
        path: of the baseline file; its folder is made if it is missing.
        runs: recipe to what was measured of it.
        provenance: what was measured, and where.
        models: recipe to the models that were measured, of recipes where that is known.
        widen: whether the interval of a time is to reach over the one that was recorded of the same before.

    Raises:
        BaselineError: if counts or errors of two builds would stand side by side, a value cannot be recorded, the file
            is damaged or of another workload, or writing fails.
    """
    entries, skipped = _entries(path, runs, provenance.num_examples)
    if not entries:
        raise BaselineError(f"a baseline needs at least one measured metric, got none ({path})")
    # A link stays a link: what it points to is replaced.
    target = path.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target):
            old = load_baseline(path) if target.exists() else None
            replaced = _why_replaced(old, path, provenance)
            kept = None if replaced else old
            if widen:
                entries = widened(entries, kept, models, provenance.environment)
            merged = replace(_merge(kept, path, entries, provenance), models=merged_models(kept, path, entries, models))
            content = _to_json(merged).encode()
            changed = old is None or target.read_bytes() != content
            # The rows first: without them the file that names their hashes could not be read.
            _write_rows(target.with_suffix(".npz"), merged)
            if changed:
                write_atomically(target, content, BaselineError)
    except OSError as error:
        raise BaselineError(f"cannot record a baseline: {error.strerror or error} ({path})") from error
    return Recorded(path=path, changed=changed, replaced=replaced, skipped=skipped)


def _entries(
    path: Path, runs: Mapping[str, Sequence[Measurement]], num_examples: int
) -> tuple[list[tuple[str, Entry]], tuple[tuple[str, str, str], ...]]:
    """(recipe, entry) of what was measured; (recipe, metric, reason) of what was not."""
    entries, skipped = [], []
    for recipe, measurements in runs.items():
        for measurement in measurements:
            if measurement.unmeasured is not None:
                skipped.append((recipe, measurement.metric, measurement.unmeasured))
            else:
                place = f"{path}, recipes.{recipe}.{measurement.metric}"
                entries.append((recipe, _entry(measurement, num_examples, place)))
    return entries, tuple(skipped)


def _entry(measurement: Measurement, num_examples: int, place: str) -> Entry:
    metric = measurement.declared or METRICS.get(measurement.metric)
    if metric is None:
        raise BaselineError(f"metric {measurement.metric!r} is unknown, known are {', '.join(METRICS)} ({place})")
    if bool(metric.device) != bool(measurement.device):
        rule = "must state its class of device" if metric.device else "holds on every device"
        raise BaselineError(f"{metric.name} {rule}, got {measurement.device!r} ({place})")
    if metric.kind is Kind.TIME and not measurement.pairs:
        raise BaselineError(f"{metric.name} is recorded from pairs of times, got none ({place})")
    dense, compressed = measurement.dense, measurement.compressed
    ratio = _ratio(measurement, place) if metric.kind is Kind.TIME else None
    dense_correct, correct = _canonical(measurement, num_examples, place)
    kept = _kept(measurement, num_examples, place)
    return Entry(
        metric=metric.name,
        declared=None if metric.name in METRICS else metric,
        rows_sha256=kept.sha256 if kept is not None else "",
        quantiles=kept.quantiles if kept is not None and not kept.is_small else None,
        rows=kept if kept is not None and kept.is_small else None,
        dense=_rounded(metric, dense, place),
        compressed=_rounded(metric, compressed, place),
        device=measurement.device,
        ratio=ratio,
        ratio_interval=_interval(measurement, ratio) if ratio is not None else None,
        correct=correct,
        dense_correct=dense_correct,
    )


def _rounded(metric: Metric, value: float | None, place: str) -> float:
    if metric.kind is Kind.SCORE and value is not None and math.isfinite(value):
        return as_recorded(metric, value)
    if value is None or not 0 <= value < math.inf:
        raise BaselineError(f"a value must be a number of 0 or more to be recorded, got {value} ({place})")
    if metric.kind is Kind.ERROR and value > 1:
        raise BaselineError(f"an error must be in [0, 1] to be recorded, got {value} ({place})")
    return as_recorded(metric, value)


def _kept(measurement: Measurement, num_examples: int, place: str) -> KeptRows | None:
    scores = measurement.scores
    if scores is None:
        return None
    if measurement.num_examples != num_examples or {len(scores.dense), len(scores.compressed)} != {num_examples}:
        raise BaselineError(
            f"the scores of {len(scores.compressed):,} examples are not those of {num_examples:,} ({place})"
        )
    return keep(scores.dense, scores.compressed)


def _write_rows(target: Path, baseline: Baseline) -> None:
    kept = {
        (recipe, metric): entry.rows
        for recipe, metrics in baseline.recipes.items()
        for metric, entries in metrics.items()
        for entry in entries.values()
        if entry.rows is not None
    }
    content = write_rows(kept) if kept else b""
    if not kept:
        target.unlink(missing_ok=True)
    elif not target.exists() or target.read_bytes() != content:
        write_atomically(target, content, BaselineError)


def _ratio(measurement: Measurement, place: str) -> float:
    if any(not 0 < time < math.inf for pair in measurement.pairs for time in pair):
        raise BaselineError(f"a time must be a positive number to be recorded ({place})")
    # Not None: there are pairs.
    return _to_digits(measurement.ratio or 0.0)


def _interval(measurement: Measurement, ratio: float) -> tuple[float, float] | None:
    """The 99 % interval; None where the pairs are too few for one."""
    try:
        interval = recorded_ratio(measurement)
    except MeasureError:
        return None
    return min(ratio, _to_digits(interval.low)), max(ratio, _to_digits(interval.high))


def _to_digits(ratio: float) -> float:
    """To three decimals, of small ones to three significant digits: none may become zero."""
    return round(ratio, 3) if ratio >= 0.1 else float(f"{ratio:.3g}")  # noqa: PLR2004 - where the two agree


def _canonical(measurement: Measurement, num_examples: int, place: str) -> tuple[bytes, bytes] | tuple[None, None]:
    """Both models' bits with zeros in the padding, so that the same results give the same text."""
    if measurement.correct is None:
        return None, None
    for bits in measurement.correct:
        if measurement.num_examples != num_examples or len(bits) != math.ceil(num_examples / 8):
            raise BaselineError(
                f"the results of {measurement.num_examples:,} examples in {len(bits):,} bytes are not those of "
                f"{num_examples:,} ({place})"
            )
    dense, compressed = (
        np.packbits(np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=num_examples)).tobytes()
        for bits in measurement.correct
    )
    return dense, compressed


def _why_replaced(old: Baseline | None, path: Path, provenance: Provenance) -> str | None:
    if old is None:
        return None
    if old.workload != provenance.workload:
        raise BaselineError(
            f"a baseline holds one workload, got {provenance.workload!r} for that of {old.workload!r} ({path})"
        )
    if old.data_sha256 != provenance.data_sha256:
        return (
            f"{path} was recorded on other test data (sha256 {old.data_sha256[:12]}, now "
            f"{provenance.data_sha256[:12]}), so everything in it was replaced"
        )
    if old.num_examples != provenance.num_examples:
        return (
            f"{path} was recorded on {old.num_examples:,} test examples, now {provenance.num_examples:,}, "
            f"so everything in it was replaced"
        )
    return None


def _merge(old: Baseline | None, path: Path, entries: Sequence[tuple[str, Entry]], provenance: Provenance) -> Baseline:
    recipes: dict[str, dict[str, dict[str, Entry]]] = {}
    environments = dict(old.environments) if old else {}
    for recipe, metrics in (old.recipes if old else {}).items():
        recipes[recipe] = {metric: dict(by_device) for metric, by_device in metrics.items()}
    for recipe, entry in entries:
        recipes.setdefault(recipe, {}).setdefault(entry.metric, {})[entry.device] = entry
    environments[provenance.environment.cpu_class] = provenance.environment
    return Baseline(
        path=path,
        workload=provenance.workload,
        data_sha256=provenance.data_sha256,
        num_examples=provenance.num_examples,
        environments=environments,
        recipes=recipes,
    )


def _to_json(baseline: Baseline) -> str:
    document = {
        "schema": SCHEMA,
        "workload": baseline.workload,
        "data_sha256": baseline.data_sha256,
        "num_examples": baseline.num_examples,
        "environments": {name: _environment(value) for name, value in baseline.environments.items()},
        "models": {recipe: _identity(identity) for recipe, identity in baseline.models.items()},
        "recipes": {
            recipe: {metric: _by_device(entries) for metric, entries in metrics.items() if entries}
            for recipe, metrics in baseline.recipes.items()
        },
    }
    declared = {entry.metric: _description(entry.declared) for entry in baseline.everything if entry.declared}
    if declared:
        document["metrics"] = declared
    if not baseline.models:
        del document["models"]
    return json.dumps(document, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def _identity(identity: Identity) -> dict[str, str]:
    return {key: value for key, value in asdict(identity).items() if value}


def _environment(environment: Environment) -> dict[str, str]:
    known = {key: value for key, value in asdict(environment).items() if value is not None}
    # It is the key under which this table stands.
    del known["cpu_class"]
    return known


def _description(metric: Metric) -> dict[str, object]:
    """What a reader of the file must know of a metric that is not the package's own."""
    known: dict[str, object] = {
        "title": metric.title,
        "short": metric.short,
        "unit": str(metric.unit),
        "kind": str(metric.kind),
        "direction": "higher" if metric.higher_is_better else "lower",
        "tolerance": metric.tolerance,
    }
    return {**known, "device": metric.device} if metric.device else known


def _by_device(entries: Mapping[str, Entry]) -> dict[str, object]:
    tables = {device: _table(entry.about, entry) for device, entry in entries.items()}
    return tables[""] if "" in tables else dict(tables)


def _table(metric: Metric, entry: Entry) -> dict[str, object]:
    whole = metric.unit in (Unit.COUNT, Unit.BYTES)
    table: dict[str, object] = {
        "dense": int(entry.dense) if whole else entry.dense,
        "compressed": int(entry.compressed) if whole else entry.compressed,
    }
    if entry.ratio is not None:
        table["ratio"] = entry.ratio
    if entry.ratio_interval is not None:
        table["ratio_interval"] = list(entry.ratio_interval)
    if entry.rows_sha256:
        table["rows"] = entry.rows_sha256
    if entry.quantiles is not None:
        table["quantiles"] = dict(zip(("dense", "compressed"), map(list, entry.quantiles), strict=True))
    for key, bits in (("correct", entry.correct), ("dense_correct", entry.dense_correct)):
        if bits is not None:
            table[key] = base64.b64encode(bits).decode("ascii")
    return table
