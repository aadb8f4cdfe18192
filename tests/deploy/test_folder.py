from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from compress.deploy import folder
from compress.deploy.folder import export
from compress.errors import ArtifactError, ConfigError, ModelError
from compress.workload.workload import dense_model
from tests.workloads import featured_workload, tiny_workload

RUNTIMES = ["onnxruntime", "openvino", "executorch"]


@pytest.fixture(scope="module")
def workload():
    """The tiny workload."""
    return tiny_workload()


def checked(place, *arguments):
    """Run the folder's own program."""
    return subprocess.run([sys.executable, place / "run.py", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_folder_checks_itself_and_predicts(runtime, tmp_path, workload, tiny_dense):
    """With its own program alone, and hashes and sizes in its manifest."""
    pytest.importorskip(runtime)
    place = tmp_path / "model"
    manifest = export(tiny_dense, workload, place, runtime=runtime)
    assert json.loads((place / "manifest.json").read_text(encoding="utf-8")) == manifest
    for name, told in manifest["files"].items():
        content = (place / name).read_bytes()
        assert (told["bytes"], told["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    found = checked(place, "check")
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("10 of 10 answers agree, largest difference ")
    assert found.stdout.endswith("all files are as they were written\n")
    np.save(tmp_path / "images.npy", np.zeros((2, 8, 8, 3), np.uint8))
    found = checked(place, "predict", tmp_path / "images.npy")
    assert set(found.stdout.split("\n")[:2]) <= set(manifest["labels"]), found.stderr


def test_the_program_fits_on_a_page():
    """Sixty lines, none of which names PyTorch where the runtime is not built upon it."""
    lines = folder._PROGRAM.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 60
    assert not any("import torch" in line or "import compress" in line for line in lines)


def test_the_check_finds_what_was_changed(tmp_path, workload, tiny_dense):
    """A damaged file by its hash, and outputs that are others by their difference."""
    pytest.importorskip("onnxruntime")
    place = tmp_path / "model"
    export(tiny_dense, workload, place)
    expected = np.load(place / "expected.npy")
    np.save(place / "expected.npy", -expected)
    found = checked(place, "check")
    assert found.returncode == 1
    assert "damaged: expected.npy" in found.stdout


def test_pixels_go_in_as_the_workload_prepares_them(tmp_path, workload, tiny_dense):
    """The same numbers as the test split gives."""
    pytest.importorskip("onnxruntime")
    manifest = export(tiny_dense, workload, tmp_path / "model")
    split = workload.dataset.test
    pixels = split.images[:4].permute(0, 2, 3, 1).numpy()
    told = manifest["preprocessing"]
    ours = ((pixels.astype(np.float32) / 255 - np.float32(told["mean"])) / np.float32(told["std"])).transpose(
        0, 3, 1, 2
    )
    np.testing.assert_allclose(ours, split.normalization(split.images[:4]).numpy(), rtol=1e-5, atol=1e-6)


def test_which_output_counts_is_written_down(tmp_path):
    """Of a model that puts out features beside its logits."""
    pytest.importorskip("onnxruntime")
    named = featured_workload()
    export(dense_model(named, progress=False), named, tmp_path / "model")
    assert checked(tmp_path / "model", "check").returncode == 0


@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        ("eager", r"^a folder can be for onnxruntime, openvino, executorch, got 'eager'$"),
        ("onnxruntime", r"^a folder is written anew, but .* is there already$"),
    ],
)
def test_bad_input_is_one_sentence(runtime, message, tmp_path, workload, tiny_dense):
    """The rule and the value."""
    with pytest.raises(ConfigError, match=message):
        export(tiny_dense, workload, tmp_path, runtime=runtime)


def test_a_model_that_answers_otherwise_there_is_refused(tmp_path, workload, tiny_dense, monkeypatch):
    """And nothing is written."""
    pytest.importorskip("onnxruntime")
    expected = folder._expected
    monkeypatch.setattr(folder, "_expected", lambda *arguments: -expected(*arguments))
    with pytest.raises(ModelError, match=r"^under onnxruntime \d+ of 10 test inputs get another answer"):
        export(tiny_dense, workload, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_leaves_nothing(tmp_path, workload, tiny_dense, monkeypatch):
    """Whole or not there."""
    pytest.importorskip("onnxruntime")

    def fails(path, _content, error):
        raise error(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(folder, "write_atomically", fails)
    with pytest.raises(ArtifactError, match=r"No space left on device$"):
        export(tiny_dense, workload, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.nightly
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_folder_runs_where_there_is_that_runtime_and_numpy_alone(runtime, tmp_path, workload, tiny_int8):
    """In a virtual environment of its own."""
    pytest.importorskip(runtime)
    place, venv = tmp_path / "model", tmp_path / "venv"
    manifest = export(tiny_int8.model, workload, place, runtime=runtime)
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    python = venv / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *manifest["requires"]]
    subprocess.run(install, check=True)
    assert subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode == 1
    found = subprocess.run([python, place / "run.py", "check"], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
