"""The reviewed file of what was measured before, ``baselines/<name>.json``, and how it is read.

Its numbers are small, sorted and rounded so that a change of it can be read in a pull request. Metrics that depend on
a device stand one level deeper, under the class of device they were measured on::

    {
      "data_sha256": "9f86d0...",
      "environments": {"cpu-avx2-1t": {"cpu": "...", "python": "3.11.9", "torch": "2.15.0"}},
      "models": {
        "structured": {"built_on": "cpu-avx2-1t", "compressed": "3fe1...", "dense": "77ab...", "recipe": "e01c..."}
      },
      "num_examples": 500,
      "recipes": {
        "structured": {
          "cpu_latency_ms": {
            "cpu-avx2-1t": {"compressed": 4.1, "dense": 5.25, "ratio": 0.781, "ratio_interval": [0.776, 0.786]}
          },
          "num_params": {"compressed": 4089523, "dense": 6402564},
          "top1_error": {"compressed": 0.024, "correct": "3+/v...", "dense": 0.022, "dense_correct": "7+/v..."}
        }
      },
      "schema": 4,
      "workload": "digits"
    }

A recipe's models are those that its counts and errors are of, and whoever compares with them first asks whether they
are the ones measured now, see :mod:`compress.gate.identity`. Times and memory may have been taken of another build on
each class of device: they are held with a tolerance everywhere.

Metrics that a workload declares are described under ``metrics``; what single examples gave of them lies beside the
file, see :mod:`compress.gate.rows`. What may stand in it says :mod:`compress.gate.schema`.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.gate.rows import KeptRows, Quantiles, read_rows
from compress.gate.schema import OLDEST_SCHEMA, SCHEMA, baseline_schema
from compress.gate.strict_json import Place, check, parse_file
from compress.results import METRICS, Environment, Identity, Kind, Metric, Unit

_KIBIBYTE = 1024


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What was recorded of one metric of one recipe, on one class of device.

    Attributes:
        metric: its name.
        declared: what it is, where it is none of :data:`compress.results.METRICS`.
        dense: the dense model's value, rounded.
        compressed: the compressed model's value, rounded.
        device: class of device, "" where it makes no difference.
        ratio: times only: ``compressed / dense``, called in turn.
        ratio_interval: times only: the 99 % interval that it lies in; None if it was not recorded.
        correct: errors only: for the compressed model, one bit for each test example; None if it was not recorded.
        dense_correct: errors only: the same for the dense model.
        rows_sha256: scores only: hash of what single examples gave; "" if it was not recorded.
        quantiles: scores only: of rows too many to be kept, for a reader; None where they are kept.
        rows: scores only: those rows, if they were kept and read.
    """

    metric: str
    declared: Metric | None = None
    dense: float
    compressed: float
    device: str = ""
    ratio: float | None = None
    ratio_interval: tuple[float, float] | None = None
    correct: bytes | None = None
    dense_correct: bytes | None = None
    rows_sha256: str = ""
    quantiles: Quantiles | None = None
    rows: KeptRows | None = field(default=None, compare=False)

    @property
    def about(self) -> Metric:
        """What was recorded."""
        return self.declared or METRICS[self.metric]

    @property
    def scores(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """What single examples gave, of the dense and the compressed model; None if that is not known."""
        return None if self.rows is None else self.rows.rows

    def as_kept(self, rows: NDArray[np.float64], model: int) -> NDArray[np.float64]:
        """Rows of the dense (0) or compressed (1) model of this run, as rough as the recorded ones."""
        return rows if self.rows is None else self.rows.as_kept(rows, model)


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A baseline file.

    Attributes:
        path: where it was read, as the user gave it.
        workload: name of the model and data that were measured.
        data_sha256: hash of the test data.
        num_examples: how many examples the errors count.
        environments: where it was recorded, by class of CPU.
        recipes: recipe, metric and class of device ("" where it makes no difference) to what was recorded.
        models: recipe to the models that its counts and errors are of; none where that is not known, as in files of a
            format before the third.
    """

    path: Path
    workload: str
    data_sha256: str
    num_examples: int
    environments: Mapping[str, Environment]
    recipes: Mapping[str, Mapping[str, Mapping[str, Entry]]]
    models: Mapping[str, Identity] = field(default_factory=dict)

    def entries(self, recipe: str, metric: str) -> Mapping[str, Entry]:
        """What was recorded of a recipe's metric, by class of device; empty if nothing was."""
        return self.recipes.get(recipe, {}).get(metric, {})

    @property
    def everything(self) -> Iterator[Entry]:
        """All entries."""
        for metrics in self.recipes.values():
            for entries in metrics.values():
                yield from entries.values()


def load_baseline(path: Path, *, rows: bool = True) -> Baseline:
    """Read a baseline file and check every value in it.

    Args:
        path: of the file.
        rows: whether to read what single examples gave, too, from the file beside it.

    Raises:
        BaselineError: if a file is missing, damaged, of another schema, or breaks a rule of the format.
    """
    place = Place(path=path)
    content: Any = parse_file(path)
    _check_version(content, place)
    declared: dict[str, Metric] = {}
    if isinstance(content, dict) and "metrics" in content:
        # What describes them must be good before they can be held against it.
        check(content, baseline_schema(), path)
        declared = {name: Metric(name=name, **_typed(table)) for name, table in content["metrics"].items()}
    check(content, baseline_schema(declared.values()), path)
    known = {**METRICS, **declared}
    num_examples = int(content["num_examples"])
    wanted = {
        (recipe, name): str(value["rows"])
        for recipe, metrics in content["recipes"].items()
        for name, value in metrics.items()
        if known[name].kind is Kind.SCORE and "rows" in value and "quantiles" not in value
    }
    kept = read_rows(path.with_suffix(".npz"), wanted, num_examples) if rows else {}
    return Baseline(
        path=path,
        workload=content["workload"],
        data_sha256=content["data_sha256"],
        num_examples=num_examples,
        environments={name: Environment(cpu_class=name, **value) for name, value in content["environments"].items()},
        recipes={
            recipe: {
                name: {
                    device: replace(entry, rows=kept.get((recipe, name)))
                    for device, entry in _entries(
                        known[name], value, num_examples, place.at("recipes", recipe, name)
                    ).items()
                }
                for name, value in metrics.items()
            }
            for recipe, metrics in content["recipes"].items()
        },
        models={recipe: Identity(**value) for recipe, value in content.get("models", {}).items()},
    )


def as_recorded(metric: Metric, value: float) -> float:
    """A value as a baseline keeps it: with the digits that repeat from run to run.

    Memory is kept to the KiB, times to three significant digits, other numbers to six, shares to six decimals; what is
    counted, exactly.
    """
    if metric.kind is Kind.MEMORY:
        return round(value / _KIBIBYTE) * _KIBIBYTE
    if metric.unit is Unit.MILLISECONDS:
        return float(f"{value:.3g}")
    if metric.unit is Unit.FRACTION:
        return round(value, 6)
    if metric.unit is Unit.NUMBER:
        return float(f"{value:.6g}")
    return round(value)


def _check_version(content: object, place: Place) -> None:
    """What another version of the format holds says nothing under the rules of this one."""
    version = content.get("schema") if isinstance(content, dict) else None
    if isinstance(version, bool) or not isinstance(version, int):
        return
    if version > SCHEMA:
        raise place.at("schema").error(
            f"the baseline was written by a newer version, upgrade pytest-compress: it reads schema {SCHEMA}, "
            f"got {version}"
        )
    if version < OLDEST_SCHEMA:
        raise place.at("schema").error(
            f"schema must be {OLDEST_SCHEMA} to {SCHEMA}, got {version}; record the baseline again"
        )


def _entries(metric: Metric, value: Mapping[str, Any], num_examples: int, place: Place) -> dict[str, Entry]:
    """By class of device, "" where it makes no difference."""
    if not metric.device:
        return {"": _entry(metric, "", value, num_examples, place)}
    return {device: _entry(metric, device, entry, num_examples, place.at(device)) for device, entry in value.items()}


def _entry(metric: Metric, device: str, table: Mapping[str, Any], num_examples: int, place: Place) -> Entry:
    ratio = float(table["ratio"]) if metric.kind is Kind.TIME else None
    if ratio == 0:
        raise place.at("ratio").error("a ratio of times must be above 0, got 0")
    ends = table.get("ratio_interval")
    return Entry(
        metric=metric.name,
        dense=float(table["dense"]),
        compressed=float(table["compressed"]),
        device=device,
        ratio=ratio,
        ratio_interval=_interval(ends, ratio, place) if ratio and ends is not None else None,
        declared=None if metric.name in METRICS else metric,
        rows_sha256=table.get("rows", ""),
        quantiles=_quantiles(table),
        correct=_bits(table, "correct", num_examples, place),
        dense_correct=_bits(table, "dense_correct", num_examples, place),
    )


def _typed(table: Mapping[str, Any]) -> dict[str, Any]:
    """The description of a metric that a workload declared."""
    typed = {"title": table["title"], "short": table["short"], "unit": Unit(table["unit"]), "kind": Kind(table["kind"])}
    return {
        **typed,
        "tolerance": float(table["tolerance"]),
        "device": table.get("device", ""),
        "higher_is_better": table["direction"] == "higher",
    }


def _quantiles(table: Mapping[str, Any]) -> Quantiles | None:
    known = table.get("quantiles")
    return None if known is None else (tuple(known["dense"]), tuple(known["compressed"]))


def _interval(ends: Sequence[float], ratio: float, place: Place) -> tuple[float, float]:
    """Ends of the interval around ``ratio``."""
    low, high = map(float, ends)
    if not 0 < low <= ratio <= high:
        raise place.at("ratio_interval").error(f"the interval must hold the ratio {ratio:g}, got {list(ends)!r}")
    return low, high


def _bits(table: Mapping[str, Any], key: str, num_examples: int, place: Place) -> bytes | None:
    """One bit for each example, if they were recorded; ``numpy.packbits`` fills the last byte with zeros."""
    if key not in table:
        return None
    place = place.at(key)
    try:
        bits = base64.b64decode(table[key], validate=True)
    except (binascii.Error, ValueError) as error:
        raise place.error(f"the results of single examples must be base64: {error}") from error
    needed = math.ceil(num_examples / 8)
    if len(bits) != needed:
        raise place.error(f"the results of {num_examples:,} examples take {needed:,} bytes, got {len(bits):,}")
    return bits
