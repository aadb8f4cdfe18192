"""A model of another task than classifying images, gated from end to end by this repository's benchmarks."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from compress.calling.pairs import pinned_threads
from tests.plugin_project import HERE, make_project

WORKLOAD = "--compress-workload=scenes:workload"
QUICK = "not cpu_memory and not cpu_latency and not cpu_time"
RECIPE = """
[[steps]]
use = "prune_channels"
pruning_ratio = 0.125
recalibration_batches = 4

[[steps]]
use = "reconstruct"

[limits]
num_params = { max_ratio = 0.9 }
miou = { max_drop = 0.05 }
bias_bytes = { max_ratio = 0.95 }
"""
HARM = """
import pytest

@pytest.fixture(scope="session")
def compressed(compressed):
    compressed.head.weight.data.neg_()
    return compressed
"""
INPUTS_ALONE = """
import scenes

import compress

def workload():
    whole = scenes.workload()
    train, test = whole.data()
    return compress.Workload(
        name="inputs",
        model_factory=scenes.Net,
        data=lambda: ([images for images, _ in train], [images for images, _ in test]),
        example_inputs=whole.example_inputs,
    )
"""


@pytest.fixture
def project(pytester, monkeypatch, tmp_path_factory):
    """A segmentation project on a machine without CUDA."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pinned_threads(1):
        project = make_project(pytester, monkeypatch, tmp_path_factory.getbasetemp() / "compress-cache")
        shutil.copy(HERE / "project" / "scenes.py", project.path)
        project.recipe.write_text(RECIPE, encoding="utf-8")
        pytester.makeconftest("")
        yield project


def test_a_segmentation_network_is_recorded_held_and_found_worse(project):
    """Its own quality and metric stand in the baseline and the table; made worse, exactly its quality fails."""
    recorded = project.run(WORKLOAD, "-k", QUICK, "--benchmark-save=scenes")
    assert (recorded.status, recorded.failures) == (0, {}), recorded.text
    assert {"test_quality[miou]", "test_own_metric[bias_bytes]", "test_num_params"} <= recorded.passed
    content = json.loads((project.path / "baselines" / "scenes.json").read_text(encoding="utf-8"))
    assert content["metrics"]["miou"]["direction"] == "higher"
    assert len(content["recipes"]["quarter"]["miou"]["rows"]) == 64
    assert content["recipes"]["quarter"]["miou"]["dense"] > 0.8
    assert (project.path / "baselines" / "scenes.npz").exists()
    compared = project.run(WORKLOAD, "-k", QUICK, "--benchmark-compare", "--compress-partial")
    assert (compared.status, compared.failures) == (0, {}), compared.text
    assert "miou" in compared.text
    assert "bias bytes" in compared.text
    project.pytester.makeconftest(HARM)
    worse = project.run(WORKLOAD, "-k", QUICK, "--benchmark-compare", "--compress-partial")
    assert (worse.status, set(worse.failures)) == (1, {"test_quality[miou]"}), worse.text
    message = worse.failures["test_quality[miou]"]
    assert message.startswith("Failed: miou of recipe 'quarter' REGRESSED")
    assert "limit" in message
    assert "at least dense - 5.00 pt" in message
    assert "baselines/scenes.json" in message


def test_a_limit_of_no_metric_of_the_workload_is_refused_with_the_list(project):
    """What texts are judged by is no quality of scenes."""
    project.recipe.write_text(RECIPE.replace("miou", "perplexity"), encoding="utf-8")
    run = project.run(WORKLOAD, "-k", "num_params")
    assert run.status == pytest.ExitCode.USAGE_ERROR
    assert "metric 'perplexity' is unknown, known are num_params" in run.text
    assert "miou" in run.text


def test_a_comparison_demands_the_declared_metrics_too(project):
    """What the baseline holds and no test measured is named."""
    assert project.run(WORKLOAD, "-k", "quality or num_params", "--benchmark-save=scenes").status == 0
    run = project.run(WORKLOAD, "-k", "num_params", "--benchmark-compare")
    assert run.status == 8, run.text
    assert "miou" in run.text


def test_a_project_without_recipes_is_not_asked_for_an_error_that_it_has_not(project):
    """The recipe that it gets then limits the error of image classifiers, which only those are held to."""
    shutil.rmtree(project.recipe.parent)
    run = project.run(WORKLOAD, "-k", "test_quality or test_num_params")
    assert (run.status, run.failures) == (0, {}), run.text
    assert {"test_quality[miou-structured]", "test_num_params[structured]"} <= run.passed


def test_a_workload_without_targets_is_held_by_its_outputs(project):
    """Inputs alone are enough: outputs are held against the dense model's, and a model made worse turns the run red."""
    (project.path / "inputs.py").write_text(INPUTS_ALONE, encoding="utf-8")
    workload = "--compress-workload=inputs:workload"
    project.recipe.write_text(
        RECIPE.replace("miou = { max_drop", "output_error = { max_increase")
        .replace("bias_bytes = { max_ratio = 0.95 }", "")
        .replace("0.05", "0.5"),
        encoding="utf-8",
    )
    recorded = project.run(workload, "-k", QUICK, "--benchmark-save=inputs")
    assert (recorded.status, recorded.failures) == (0, {}), recorded.text
    assert "test_quality[output_error]" in recorded.passed
    assert "output error" in recorded.text
    content = json.loads((project.path / "baselines" / "inputs.json").read_text(encoding="utf-8"))
    entry = content["recipes"]["quarter"]["output_error"]
    assert entry["dense"] == 0
    assert 0 < entry["compressed"] < 0.5
    project.pytester.makeconftest(HARM)
    worse = project.run(workload, "-k", QUICK, "--benchmark-compare", "--compress-partial")
    assert (worse.status, set(worse.failures)) == (1, {"test_quality[output_error]"}), worse.text
    assert "at most dense + 50.00 pt" in worse.failures["test_quality[output_error]"]


def test_outputs_agree_is_a_fixture_of_any_workload(project):
    """A test of one's own holds outputs beside the workload's own qualities, by a limit of its recipe."""
    (project.path / "benchmarks" / "test_own.py").write_text(
        "def test_outputs(gate, outputs_agree, compressed, dense):\n"
        "    assert gate(outputs_agree, compressed, dense).measurement.compressed > 0\n",
        encoding="utf-8",
    )
    project.recipe.write_text(RECIPE + "output_error = { max_increase = 0.0001 }\n", encoding="utf-8")
    run = project.run(WORKLOAD, "-k", "test_outputs or test_quality")
    assert (run.status, set(run.failures)) == (1, {"test_outputs"}), run.text
    assert "output_error of recipe 'quarter' REGRESSED" in run.failures["test_outputs"]
    assert "test_quality[miou]" in run.passed
