from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

import compress
from compress.gate import schema
from compress.gate.baseline import as_recorded, load_baseline
from compress.gate.recording import record
from compress.gate.schema import baseline_schema
from compress.results import METRICS, Kind, Measurement
from tests.gate.samples import DEVICE, PROVENANCE, bits

ROOT = Path(compress.__file__).parents[1]
PUBLISHED = Path(schema.__file__).with_name("baseline.schema.json")


def test_the_published_schema_is_the_one_that_files_are_checked_against():
    """What others validate with says what the reader says; `python -m compress schema` writes it anew."""
    assert json.loads(PUBLISHED.read_text(encoding="utf-8")) == baseline_schema()
    Draft202012Validator.check_schema(baseline_schema())


@pytest.mark.parametrize("path", sorted((ROOT / "baselines").glob("*.json")), ids=lambda path: path.name)
def test_reviewed_baselines_obey_it(path):
    """What stands in the repository is read, and passes in any other validator too."""
    load_baseline(path)
    Draft202012Validator(baseline_schema()).validate(json.loads(path.read_text(encoding="utf-8")))


@st.composite
def measurements(draw):
    """One measurement of any metric."""
    metric = draw(st.sampled_from(list(METRICS.values())))
    most = 1.0 if metric.kind is Kind.ERROR else 1e12
    dense, compressed = draw(st.floats(0, most)), draw(st.floats(0, most))
    time = st.floats(1e-6, 1e6)
    return Measurement(
        metric=metric.name,
        dense=dense,
        compressed=compressed,
        device=DEVICE if metric.device else "",
        pairs=tuple(draw(st.lists(st.tuples(time, time), min_size=1, max_size=5))) if metric.kind is Kind.TIME else (),
        correct=(bits([]), bits(draw(st.sets(st.integers(0, 499))))) if metric.kind is Kind.ERROR else None,
        num_examples=PROVENANCE.num_examples,
    )


@given(recipe=st.text(max_size=5), measured=st.lists(measurements(), min_size=1, max_size=4))
@settings(deadline=None, max_examples=60)
def test_whatever_is_recorded_obeys_it_and_is_read_back(tmp_path_factory, recipe, measured):
    """The writer never writes what the reader, or anyone who uses the schema, would refuse."""
    path = tmp_path_factory.mktemp("recorded") / "digits.json"
    record(path, {recipe: measured}, provenance=PROVENANCE)
    Draft202012Validator(baseline_schema()).validate(json.loads(path.read_text(encoding="utf-8")))
    last = measured[-1]
    entry = load_baseline(path).entries(recipe, last.metric)[last.device]
    assert entry.compressed == as_recorded(METRICS[last.metric], last.compressed)
