"""A model that comes from a file is held as one that a recipe makes, and nothing is run for it."""

from __future__ import annotations

import importlib
import json
import sys

import fsspec
import pytest
import torch

# A run in this process would forget them, and cannot import them twice.
import torch._export.serde.serialize
import torch.export._trace
from fsspec.implementations import memory  # noqa: F401 - the files in it
from safetensors.torch import save_file

import compress
from compress.gate.identity import NO_STEPS
from compress.recipe import load_recipe
from compress.recipe.run import run_recipe
from tests.plugin_project import make_project

COUNTED = ("-k", "num_params or test_file_bytes or top1_error")
IMAGE = torch.zeros(1, 1, 8, 8)


@pytest.fixture
def project(pytester, monkeypatch, tmp_path_factory):
    """A project on a machine without CUDA, whose models are left as they are."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    project = make_project(pytester, monkeypatch, tmp_path_factory.getbasetemp() / "compress-cache")
    pytester.makeconftest("")
    return project


@pytest.fixture
def mine(project, monkeypatch):
    """The project's own module; afterwards nobody knows it."""
    monkeypatch.syspath_prepend(project.path)
    yield importlib.import_module("mine")
    sys.modules.pop("mine", None)


def pruned(mine, ratio=0.5):
    """What somebody else's tool might have made."""
    return compress.prune_channels(mine.net(), IMAGE, pruning_ratio=ratio).eval()


def flat(run):
    """What it printed, without its line breaks."""
    return " ".join(run.text.split())


def test_a_file_is_held_by_a_recipe_s_limits_and_by_a_baseline(project, mine):
    """Its steps are not run; table and baseline name the file; a larger one regresses, and the message says how."""
    compress.save(pruned(mine), project.path / "net.safetensors")
    option = "--compress-model=quarter=net.safetensors"
    recorded = project.run(option, *COUNTED, "--benchmark-save=mine", "--compress-report=report.md")
    assert (recorded.status, recorded.failures) == (0, {}), recorded.text
    assert "not made in this run: quarter from net.safetensors" in recorded.text
    assert "not made in this run: quarter from net.safetensors" in (project.path / "report.md").read_text()
    content = json.loads(project.baseline.read_text(encoding="utf-8"))
    assert content["models"]["quarter"]["file"] == "net.safetensors"
    assert content["models"]["quarter"]["recipe"] == NO_STEPS
    assert content["recipes"]["quarter"]["num_params"]["compressed"] == 2 + 16 * 6 + 6
    same = project.run(option, *COUNTED, "--benchmark-compare", "--compress-partial")
    assert (same.status, same.failures) == (0, {}), same.text
    assert "compared with the same model in" in flat(same)
    compress.save(mine.net().eval(), project.path / "net.safetensors")
    larger = project.run(option, *COUNTED, "--benchmark-compare", "--compress-partial")
    assert larger.status == 1
    said = larger.failures["test_num_params"]
    assert "REGRESSED, compared with another model" in said
    assert option in said


def test_a_file_without_a_recipe_goes_by_its_own_name(project, mine):
    """A plain state dict in safetensors; nothing limits it, and no recipe is run beside it."""
    state = mine.net().state_dict()
    state["classifier.weight"][:, ::4] = 0
    save_file(state, project.path / "plain.safetensors")
    run = project.run("--compress-model=plain.safetensors", "-k", "num_nonzero_params or top1_error")
    assert (run.status, run.failures) == (0, {}), run.text
    assert run.passed == {"test_num_nonzero_params[plain]", "test_quality[top1_error-plain]"}
    assert "REPORTED: nothing was held" in run.text


def test_of_an_onnx_file_is_measured_what_can_be(project, mine):
    """Under ONNX Runtime, though the recipe names no runtime: its graph is counted; what nobody sees is said."""
    pytest.importorskip("onnxruntime")
    compress.save(pruned(mine), project.path / "net.onnx", IMAGE)
    project.recipe.write_text("[limits]\ntop1_error = { max_increase = 0.01 }\n", encoding="utf-8")
    run = project.run("--compress-model=quarter=net.onnx", "--compress-html=page.html", "-k", "not cpu_memory")
    assert run.status == 8, run.text
    counted = {"test_num_params", "test_num_nonzero_params", "test_macs", "test_file_bytes"}
    assert {"test_quality[top1_error]", "test_cpu_latency", *counted} <= run.passed
    assert "live tensors of an ONNX model cannot be told" in run.failures.pop("test_peak_tensor_bytes")
    assert run.failures == {}
    assert "test_cpu_time" in run.skipped
    assert "torch.profiler sees nothing" in flat(run)
    excused = "--compress-excuse=peak_tensor_bytes"
    again = project.run("--compress-model=quarter=net.onnx", "-k", "num_params or tensor_bytes", excused)
    assert again.status == 0, again.text


def test_a_folder_takes_the_place_of_running_recipes(project, mine, monkeypatch):
    """One job builds, another measures: compared with what was measured where it was built, it is the same model."""
    built = project.run(*COUNTED, "--benchmark-save=mine")
    assert (built.status, built.failures) == (0, {}), built.text
    workload = mine.workload()
    (project.path / "built").mkdir()
    small = run_recipe(load_recipe(project.recipe), mine.net().eval(), workload, progress=False)
    compress.save(small, project.path / "built" / "quarter.safetensors")
    monkeypatch.setattr("compress.recipe.run_recipe", None)
    measured = project.run("--compress-models=built", *COUNTED, "--benchmark-compare", "--compress-partial")
    assert (measured.status, measured.failures) == (0, {}), measured.text
    assert "not made in this run: quarter from quarter.safetensors; compared with the same model in" in flat(measured)
    # The same behind a URL.
    files = fsspec.filesystem("memory")
    files.pipe("/models/quarter.safetensors", (project.path / "built" / "quarter.safetensors").read_bytes())
    remote = project.run("--compress-models=memory://models", *COUNTED, "--benchmark-compare", "--compress-partial")
    files.rm("/models", recursive=True)
    assert (remote.status, remote.failures) == (0, {}), remote.text
    assert "compared with the same model in" in flat(remote)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--compress-model=gone.onnx"], "no model at gone.onnx (--compress-model)"),
        (
            ["--compress-model=third=a.pt2"],
            "--compress-model must be NAME=FILE with the name of a recipe, one of quarter, got 'third=a.pt2'",
        ),
        (
            ["--compress-model=a.pt2", "--compress-recipe=benchmarks/recipes/quarter.toml"],
            "--compress-model must be NAME=FILE with the name of a recipe, one of quarter, got 'a.pt2'",
        ),
        (
            ["--compress-model=a.pt2", "--compress-model=a.onnx"],
            "--compress-model must give one file for each name, got several for 'a'",
        ),
        (["--compress-models=none"], "quarter.onnx, quarter.pte, got none in none"),
        (["--compress-models=two"], "got quarter.pt2 and quarter.onnx in two"),
        (["--compress-models=nowhere://x"], "cannot read nowhere://x/quarter.safetensors: ValueError: Protocol"),
    ],
)
def test_files_that_cannot_be_meant_are_refused_before_any_work(project, options, said):
    """In a sentence, while tests are collected."""
    (project.path / "two").mkdir()
    for name in ("a.pt2", "a.onnx", "two/quarter.pt2", "two/quarter.onnx"):
        (project.path / name).touch()
    run = project.run(*options, "benchmarks/test_size.py")
    assert run.status == 2
    assert run.text.count(said) == 1, run.text


def test_a_file_that_does_not_fit_is_said_and_costs_no_other_model_its_test(project, mine):
    """Damaged, a pickle, other weights, another number of classes or other inputs: the other file is measured."""
    compress.save(pruned(mine), project.path / "good.safetensors")
    (project.path / "junk.safetensors").write_bytes(b"junk" * 100)
    torch.save(mine.net().state_dict(), project.path / "pickled.pt")
    save_file({"weight": torch.zeros(3)}, project.path / "other.safetensors")
    for name, side, classes in (("three", 8, 3), ("large", 10, 6)):
        other = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(side * side, classes)).eval()
        compress.save(other, project.path / f"{name}.pt2", torch.zeros(1, 1, side, side))
    names = ("good.safetensors", "junk.safetensors", "pickled.pt", "other.safetensors", "three.pt2", "large.pt2")
    run = project.run(*(f"--compress-model={name}" for name in names), "-k", "num_params")
    assert run.status == 8, run.text
    assert run.passed == {"test_num_params[good]"}
    for name, said in (
        ("junk", "junk.safetensors is damaged or no saved model: "),
        ("pickled", "pickled.pt would have to be unpickled, which is never done"),
        ("other", "other.safetensors holds another network than the factory builds: tensor "),
        ("three", "a model must put out tensors of shapes [[1, 6]], as the dense one of workload 'mine', got [[1, 3]]"),
        ("large", "the forward pass on the example inputs of workload 'mine' failed: "),
    ):
        assert said in run.failures[f"test_num_params[{name}]"]
