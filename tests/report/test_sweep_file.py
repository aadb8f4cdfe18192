from __future__ import annotations

import csv
import dataclasses
import io
import json
import xml.etree.ElementTree as ET

import pytest

from compress.errors import CompressError, ConfigError
from compress.report.sweep_file import ENDINGS, check_output, read_sweep, write_sweep
from tests.report.page_samples import sweep


@pytest.fixture
def written(tmp_path):
    """Writes results in a format and returns the file."""

    def write(ending, whole=None):
        path = tmp_path / f"results{ending}"
        write_sweep(whole or sweep(), path)
        return path

    return write


def test_json_reads_back_as_it_was(written):
    """Candidates with intervals and without, settings, failures: all of it."""
    assert read_sweep(written(".json")) == sweep()
    assert read_sweep(written(".json", sweep(0))) == sweep(0)


def test_csv_has_a_column_for_each_setting(written):
    """A row for each model, the dense one first; what a recipe does not vary is empty."""
    rows = list(csv.DictReader(io.StringIO(written(".csv").read_text(encoding="utf-8"))))
    assert [row["recipe"] for row in rows[:3]] == ["dense", "structured", "unstructured"]
    assert len(rows) == 43
    assert rows[1]["prune_channels.pruning_ratio"] == ""
    assert (
        float(rows[3]["prune_channels.pruning_ratio"]) == sweep().candidates[2].settings["prune_channels.pruning_ratio"]
    )
    assert {row["on_front"] for row in rows} == {"0", "1"}


def test_markdown_has_a_row_for_each_model(written):
    """The dense model, all candidates, and what failed below."""
    lines = written(".md").read_text(encoding="utf-8").splitlines()
    assert sum(line.startswith("|") for line in lines) == 2 + 43
    assert "- failed: structured: fit.epochs=9: the loss is no number" in lines


def test_svg_holds_both_pictures(written):
    """Error against time and against size, each with all models."""
    text = written(".svg").read_text(encoding="utf-8")
    root = ET.fromstring(text)  # noqa: S314 - written just now
    titles = [title.text for title in root.iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) == 2 * 43
    assert "digits: error against time" in text
    assert "digits: error against size" in text


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_sweep_without_any_trial_is_written_too(written, ending):
    """Nothing but the dense model, in every format."""
    assert written(ending, dataclasses.replace(sweep(0), candidates=())).stat().st_size > 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sweep.pdf", "a sweep's results are written to a file that ends in .json, .csv, .md, .svg, got {path}"),
        ("absent/sweep.json", "a sweep's results need a folder that exists, got {path}"),
    ],
)
def test_what_cannot_be_written_is_said_before(tmp_path, name, message):
    """An ending that means nothing, a folder that is not there: one sentence."""
    path = tmp_path / name
    with pytest.raises(ConfigError) as caught:
        check_output(path)
    assert str(caught.value) == message.format(path=path)


def test_a_file_that_cannot_be_written_is_an_error(tmp_path):
    """A folder in its place."""
    (tmp_path / "x.json").mkdir()
    with pytest.raises(CompressError, match=r"^cannot write .*x\.json: "):
        write_sweep(sweep(), tmp_path / "x.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: [], "not the JSON that sweep --output writes: list indices must be integers or slices, not str"),
        (lambda doc: doc | {"schema": 9}, "a sweep's results must have schema 1, got 9"),
        (
            lambda doc: {key: doc[key] for key in doc if key != "dense"},
            "not the JSON that sweep --output writes: no 'dense'",
        ),
        (
            lambda doc: doc | {"dense": doc["dense"] | {"file_bytes": -1}},
            "not the JSON that sweep --output writes: a number of 0 or more must stand in place of -1",
        ),
        (
            lambda doc: doc | {"dense": doc["dense"] | {"latency_ratio": True}},
            "not the JSON that sweep --output writes: a number of 0 or more must stand in place of True",
        ),
        (
            lambda doc: doc | {"dense": doc["dense"] | {"settings": 3}},
            "not the JSON that sweep --output writes: settings must be a table, got 3",
        ),
    ],
)
def test_another_file_is_refused_in_a_sentence(written, change, message):
    """What is not what sweep wrote, with the reason and the file."""
    path = written(".json")
    path.write_text(json.dumps(change(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_sweep(path)
    assert str(caught.value) == f"{message} ({path})"


def test_no_json_at_all_is_refused(tmp_path):
    """A missing file, and a file of something else."""
    path = tmp_path / "x.json"
    with pytest.raises(ConfigError, match=r"^cannot read a sweep's results: No such file or directory \("):
        read_sweep(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"^not the JSON that sweep --output writes: "):
        read_sweep(path)
