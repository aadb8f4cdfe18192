"""The reviewed file of what was measured before, ``baselines/<name>.json``, and how it is read.

Its numbers are small, sorted and rounded so that a change of it can be read in a pull request. Metrics that depend on
a device stand one level deeper, under the class of device they were measured on::

    {
      "data_sha256": "9f86d0...",
      "environments": {"cpu-avx2-1t": {"cpu": "...", "python": "3.11.9", "torch": "2.15.0"}},
      "num_examples": 500,
      "recipes": {
        "structured": {
          "cpu_latency_ms": {
            "cpu-avx2-1t": {"compressed": 4.1, "dense": 5.25, "ratio": 0.781, "ratio_interval": [0.776, 0.786]}
          },
          "num_params": {"compressed": 4089523, "dense": 6402564},
          "top1_error": {"compressed": 0.024, "correct": "3+/v...", "dense": 0.022}
        }
      },
      "schema": 1,
      "workload": "digits"
    }
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from compress.gate.strict_json import Place, check_keys, parse_file, to_number, to_table, to_text, to_whole
from compress.results import METRICS, Environment, Kind, Metric, Unit

SCHEMA = 1

_KIBIBYTE = 1024

_KEYS = frozenset({"schema", "workload", "data_sha256", "num_examples", "environments", "recipes"})


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What was recorded of one metric of one recipe, on one class of device.

    Attributes:
        metric: a key of :data:`compress.results.METRICS`.
        dense: the dense model's value, rounded.
        compressed: the compressed model's value, rounded.
        device: class of device, "" where it makes no difference.
        ratio: times only: ``compressed / dense``, called in turn.
        ratio_interval: times only: the 99 % interval that it lies in; None if it was not recorded.
        correct: errors only: for the compressed model, one bit for each test example; None if it was not recorded.
    """

    metric: str
    dense: float
    compressed: float
    device: str = ""
    ratio: float | None = None
    ratio_interval: tuple[float, float] | None = None
    correct: bytes | None = None


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
    """

    path: Path
    workload: str
    data_sha256: str
    num_examples: int
    environments: Mapping[str, Environment]
    recipes: Mapping[str, Mapping[str, Mapping[str, Entry]]]

    def entries(self, recipe: str, metric: str) -> Mapping[str, Entry]:
        """What was recorded of a recipe's metric, by class of device; empty if nothing was."""
        return self.recipes.get(recipe, {}).get(metric, {})


def load_baseline(path: Path) -> Baseline:
    """Read a baseline file and check every value in it.

    Raises:
        BaselineError: if the file is missing, damaged, of another schema, or breaks a rule of the format.
    """
    top = to_table(parse_file(path), Place(path=path))
    place = Place(path=path)
    _check_schema(top, place)
    check_keys(top, _KEYS, _KEYS, place)
    num_examples = to_whole(top["num_examples"], place.at("num_examples"))
    environments = to_table(top["environments"], place.at("environments"))
    recipes = to_table(top["recipes"], place.at("recipes"))
    return Baseline(
        path=path,
        workload=to_text(top["workload"], place.at("workload")),
        data_sha256=to_text(top["data_sha256"], place.at("data_sha256")),
        num_examples=num_examples,
        environments={
            name: _environment(name, value, place.at("environments", name)) for name, value in environments.items()
        },
        recipes={name: _recipe(value, num_examples, place.at("recipes", name)) for name, value in recipes.items()},
    )


def as_recorded(metric: Metric, value: float) -> float:
    """A value as a baseline keeps it: with the digits that repeat from run to run.

    Memory is kept to the KiB, times to three significant digits, errors to six decimals; what is counted, exactly.
    """
    if metric.kind is Kind.MEMORY:
        return round(value / _KIBIBYTE) * _KIBIBYTE
    if metric.unit is Unit.MILLISECONDS:
        return float(f"{value:.3g}")
    if metric.unit is Unit.FRACTION:
        return round(value, 6)
    return round(value)


def _check_schema(top: Mapping[str, object], place: Place) -> None:
    if "schema" not in top:
        raise place.error("a baseline must state its 'schema'")
    schema = to_whole(top["schema"], place.at("schema"))
    if schema > SCHEMA:
        raise place.at("schema").error(
            f"the baseline was written by a newer version, upgrade pytest-compress: it reads schema {SCHEMA}, "
            f"got {schema}"
        )
    if schema < SCHEMA:
        raise place.at("schema").error(f"schema must be {SCHEMA}, got {schema}; record the baseline again")


def _recipe(value: object, num_examples: int, place: Place) -> dict[str, dict[str, Entry]]:
    return {
        name: _metric_entries(name, entries, num_examples, place.at(name))
        for name, entries in to_table(value, place).items()
    }


def _metric_entries(name: str, value: object, num_examples: int, place: Place) -> dict[str, Entry]:
    metric = METRICS.get(name)
    if metric is None:
        raise place.error(f"metric {name!r} is unknown, known are {', '.join(METRICS)}")
    if not metric.device:
        return {"": _entry(metric, "", value, num_examples, place)}
    return {
        device: _entry(metric, device, entry, num_examples, place.at(device))
        for device, entry in to_table(value, place).items()
    }


def _entry(metric: Metric, device: str, value: object, num_examples: int, place: Place) -> Entry:
    table = to_table(value, place)
    required = {"compressed", "dense", "ratio"} if metric.kind is Kind.TIME else {"compressed", "dense"}
    known = required | {Kind.ERROR: {"correct"}, Kind.TIME: {"ratio_interval"}}.get(metric.kind, set())
    check_keys(table, required, known, place)
    values = {key: to_number(table[key], place.at(key)) for key in sorted(required)}
    if metric.kind is Kind.ERROR:
        for key, error in values.items():
            if error > 1:
                raise place.at(key).error(f"an error must be in [0, 1], got {error:g}")
    if values.get("ratio") == 0:
        raise place.at("ratio").error("a ratio of times must be above 0, got 0")
    correct = _bits(table["correct"], num_examples, place.at("correct")) if "correct" in table else None
    return Entry(
        metric=metric.name,
        dense=values["dense"],
        compressed=values["compressed"],
        device=device,
        ratio=values.get("ratio"),
        ratio_interval=_interval(table, values["ratio"], place) if "ratio_interval" in table else None,
        correct=correct,
    )


def _interval(table: Mapping[str, object], ratio: float, place: Place) -> tuple[float, float]:
    """Ends of the interval around ``ratio``."""
    place, value = place.at("ratio_interval"), table["ratio_interval"]
    if not isinstance(value, list) or len(value) != 2:  # noqa: PLR2004 - low and high
        raise place.error(f"an interval must be a list of its two ends, got {value!r}")
    low, high = (to_number(end, place) for end in value)
    if not 0 < low <= ratio <= high:
        raise place.error(f"the interval must hold the ratio {ratio:g}, got {value!r}")
    return low, high


def _environment(name: str, value: object, place: Place) -> Environment:
    table = to_table(value, place)
    # The class of CPU is the table's own name.
    known = {item.name for item in fields(Environment)} - {"cpu_class"}
    check_keys(table, {"python", "torch", "cpu"}, known, place)
    texts = {key: to_text(table[key], place.at(key)) for key in table}
    return Environment(
        python=texts["python"],
        torch=texts["torch"],
        cpu=texts["cpu"],
        cpu_class=name,
        cuda_class=texts.get("cuda_class"),
        gpu=texts.get("gpu"),
    )


def _bits(value: object, num_examples: int, place: Place) -> bytes:
    """One bit for each example; ``numpy.packbits`` fills the last byte with zeros."""
    text = to_text(value, place)
    try:
        bits = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise place.error(f"the results of single examples must be base64: {error}") from error
    needed = math.ceil(num_examples / 8)
    if len(bits) != needed:
        raise place.error(f"the results of {num_examples:,} examples take {needed:,} bytes, got {len(bits):,}")
    return bits
