"""The file that a recipe's runtime executes, held to the model that it was made of."""

from __future__ import annotations

import json

import pytest
import torch

from tests.plugin_project import RECIPE, make_project

# Imported here, in this process, for what a run within it is the first to import is forgotten, and some of it can be
# imported but once.
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

ONNX = 'runtime = "onnxruntime"\n'
TEST = """
def test_artifact_parity(gate, artifact_parity, compressed, dense):
    gate(artifact_parity, compressed, dense)
"""
OTHER_ANSWERS = """
import pytest

@pytest.fixture(autouse=True)
def other_answers(monkeypatch):
    import compress.measure.parity

    monkeypatch.setattr(
        compress.measure.parity, "ready", lambda model, _conditions: lambda x: model(x).roll(1, dims=1)
    )
"""


@pytest.fixture
def project(pytester, monkeypatch, tmp_path_factory):
    """A project on a machine without CUDA."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    project = make_project(pytester, monkeypatch, tmp_path_factory.getbasetemp() / "compress-cache")
    pytester.makeconftest("")
    (project.path / "benchmarks" / "test_artifact.py").write_text(TEST, encoding="utf-8")
    return project


def test_a_file_that_answers_otherwise_turns_the_run_red(project):
    """Recorded, held, and red once answers change: the limit is broken, and so is the baseline."""
    project.recipe.write_text(ONNX + RECIPE + "artifact_answer_error = { max_increase = 0.0 }\n", encoding="utf-8")
    recorded = project.run("-k", "artifact", "--benchmark-save=mine")
    assert (recorded.status, recorded.passed) == (0, {"test_artifact_parity"}), recorded.text
    entry = json.loads(project.baseline.read_text(encoding="utf-8"))["recipes"]["quarter"]["artifact_answer_error"]
    assert (entry["dense"], entry["compressed"]) == (0.0, 0.0)
    project.pytester.makeconftest(OTHER_ANSWERS)
    worse = project.run("-k", "artifact", "--benchmark-compare", "--compress-partial")
    assert (worse.status, set(worse.failures)) == (1, {"test_artifact_parity"}), worse.text
    assert "artifact_answer_error of recipe 'quarter' REGRESSED" in worse.failures["test_artifact_parity"]


def test_a_recipe_without_a_file_is_skipped_and_says_why(project):
    """What there is nothing of is no gap; the table says so all the same."""
    run = project.run("-k", "artifact or num_params")
    assert (run.status, run.skipped) == (0, {"test_artifact_parity"}), run.text
    assert "NOT MEASURED" in run.text
    assert "the recipe's runtime makes no file of a model" in run.text


def test_a_limit_asks_for_a_file(project):
    """Where the recipe states one, nothing unmeasured passes."""
    project.recipe.write_text(RECIPE + "artifact_answer_error = { max_increase = 0.0 }\n", encoding="utf-8")
    run = project.run("-k", "artifact or num_params")
    assert run.status == 8, run.text
    assert "makes no file" in run.failures["test_artifact_parity"]
