from __future__ import annotations

import json
import subprocess
import sys

import pytest

from compress.artifacts import artifact
from compress.commands.cli import main


def test_a_saved_model_becomes_a_folder_that_checks_itself(tmp_path, capsys, tiny_int8):
    """Its file, its program and what to do there."""
    pytest.importorskip("onnxruntime")
    artifact.save(tiny_int8.model, tmp_path / "small.pt2")
    place = tmp_path / "folder"
    command = ["export", str(tmp_path / "small.pt2"), "--workload", "tests.workloads:tiny_workload", "--to", str(place)]
    assert main(command) == 0
    assert capsys.readouterr().out.endswith("there: pip install onnxruntime numpy; python folder/run.py check\n")
    assert json.loads((place / "manifest.json").read_text(encoding="utf-8"))["runtime"] == "onnxruntime"
    found = subprocess.run([sys.executable, place / "run.py", "check"], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_a_folder_that_is_there_is_left_alone(tmp_path, capsys, tiny_int8):
    """One sentence."""
    artifact.save(tiny_int8.model, tmp_path / "small.pt2")
    command = ["export", str(tmp_path / "small.pt2"), "--workload", "tests.workloads:tiny_workload"]
    assert main([*command, "--to", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"error: a folder is written anew, but {tmp_path} is there already\n"
