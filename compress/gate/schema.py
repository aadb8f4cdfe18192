"""The format of a baseline file as a JSON Schema: what a file is held against, and what is published.

``baseline.schema.json`` beside this module is the same schema written out, for editors and for readers in other
languages; ``python -m compress schema`` prints it.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping

from compress.results import METRICS, Kind, Metric, Unit

# Of the format that is written. What an older version wrote is read as long as nothing in it has changed its meaning.
SCHEMA = 4
OLDEST_SCHEMA = 1

# Beyond it not every reader of JSON tells one whole number from the next.
_MOST_EXACT = 2**53 - 1

Schema = dict[str, object]


def baseline_schema(declared: Iterable[Metric] | None = None) -> Schema:
    """A JSON Schema (draft 2020-12) of a baseline file; every metric of :data:`compress.results.METRICS` is in it.

    Args:
        declared: the other metrics that the file describes; None for what holds of every file, whatever it describes.
    """
    known = {**METRICS, **{metric.name: metric for metric in declared or ()}}
    recipe = _table({name: _metric(metric) for name, metric in known.items()}, optional=tuple(known))
    if declared is None:
        recipe["additionalProperties"] = {"description": "a metric described under metrics", "type": "object"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pytest-compress baseline",
        "description": "What was measured before of each recipe, for comparison: baselines/<name>.json",
        **_table(
            {
                "schema": {
                    "description": f"version of this format; {SCHEMA} is written",
                    **_whole(OLDEST_SCHEMA),
                    "maximum": SCHEMA,
                },
                "workload": _text("name of the model and data that were measured"),
                "data_sha256": _text("hash of the test data"),
                "num_examples": {"description": "test examples that the errors count", **_whole()},
                "environments": {
                    "description": "where it was recorded, by class of CPU",
                    **_each(_environment()),
                },
                "metrics": {
                    "description": "by name: the metrics that the workload declares",
                    **_each(_description()),
                },
                "models": {
                    "description": "by recipe: the models that its counts and errors are of",
                    **_each(_identity()),
                },
                "recipes": {
                    "description": "by recipe, then by metric; of metrics that depend on a device, by class of device",
                    **_each(recipe),
                },
            },
            # Of an older file nobody knows; metrics are described that are not the package's own.
            optional=("metrics", "models"),
        ),
    }


def _description() -> Schema:
    return _table(
        {
            "device": _text("the device that it is measured on, left out where that makes no difference"),
            "direction": {**_text("which values are better"), "enum": ["higher", "lower"]},
            "kind": {**_text("how two values compare"), "enum": [str(kind) for kind in Kind]},
            "short": _text("its row where there is little room"),
            "title": _text("its row in a report"),
            "tolerance": {"description": "how much worse than the baseline a value may be", **_number()},
            "unit": {**_text("what the value counts"), "enum": [str(unit) for unit in Unit]},
        },
        optional=("device",),
    )


def _identity() -> Schema:
    return _table(
        {
            "built_on": _text("class of the CPU that built them, or that measured those of a file"),
            "compressed": _sha256("fingerprint of the compressed model"),
            "dense": _sha256("fingerprint of the dense model"),
            "file": _text("name of the file that the compressed model came from, where no recipe was run"),
            "recipe": _sha256("hash of the recipe's steps"),
        },
        optional=("file",),
    )


def _environment() -> Schema:
    known = {
        "cpu": _text("the processor's own name"),
        "cuda_class": _text("class of CUDA device, such as cuda-sm90"),
        "gpu": _text("the CUDA device's own name"),
        "python": _text("version"),
        "torch": _text("version"),
    }
    return _table(known, optional=("cuda_class", "gpu"))


def _metric(metric: Metric) -> Schema:
    better = "larger" if metric.higher_is_better else "smaller"
    entry = {
        "description": f"{metric.title}, in {metric.unit}; {better} is better",
        **_table(_values(metric), optional=("correct", "dense_correct", "quantiles", "ratio_interval", "rows")),
    }
    return _each(entry) if metric.device else entry


def _values(metric: Metric) -> dict[str, Schema]:
    value = _whole() if metric.unit in (Unit.COUNT, Unit.BYTES) else _number()
    if metric.kind is Kind.ERROR:
        value = {**value, "maximum": 1}
    if metric.kind is Kind.SCORE:
        value = {"type": "number", "minimum": -sys.float_info.max, "maximum": sys.float_info.max}
    values = {"compressed": value, "dense": value}
    if metric.kind is Kind.ERROR:
        bits = "model, one bit for each test example, set where it was right; packed, base64"
        values["correct"] = {**_text(f"of the compressed {bits}"), "contentEncoding": "base64"}
        values["dense_correct"] = {**_text(f"of the dense {bits}"), "contentEncoding": "base64"}
    if metric.kind is Kind.SCORE:
        values["rows"] = _sha256("hash of what single test examples gave, in the .npz file of the same name")
        numbers = {"type": "array", "items": value, "minItems": 5, "maxItems": 5}
        values["quantiles"] = {
            "description": "where those rows were too many to keep: least, quartiles and largest of the first column",
            **_table({"compressed": numbers, "dense": numbers}),
        }
    if metric.kind is Kind.TIME:
        values["ratio"] = {"description": "median of compressed / dense over pairs of calls in turn", **_number()}
        values["ratio_interval"] = {
            "description": "where the ratio lay when it was recorded: low, high",
            "type": "array",
            "items": _number(),
            "minItems": 2,
            "maxItems": 2,
        }
    return values


def _table(properties: Mapping[str, Schema], *, optional: Collection[str] = ()) -> Schema:
    """An object with no other keys than these, all of them but the optional ones required."""
    needed = sorted(properties.keys() - set(optional))
    return {
        "type": "object",
        **({"required": needed} if needed else {}),
        "additionalProperties": False,
        "properties": dict(properties),
    }


def _each(values: Schema) -> Schema:
    """An object whose keys are names."""
    return {"type": "object", "additionalProperties": values}


def _text(description: str) -> Schema:
    return {"description": description, "type": "string"}


def _sha256(description: str) -> Schema:
    return {**_text(f"{description}: SHA-256 in hex"), "pattern": "^[0-9a-f]{64}$"}


def _whole(minimum: int = 0) -> Schema:
    return {"type": "integer", "minimum": minimum, "maximum": _MOST_EXACT}


def _number() -> Schema:
    # JSON sets numbers no bound, readers do.
    return {"type": "number", "minimum": 0, "maximum": sys.float_info.max}
