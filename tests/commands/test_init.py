from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import compress
from compress.commands.cli import main
from compress.commands.init import RECIPES, write_project
from compress.errors import ConfigError
from compress.gate.limits import parse_limits
from compress.recipe import load_recipe
from compress.results import METRICS

ROOT = Path(compress.__file__).parents[1]


def test_a_new_project_has_all_that_the_gate_needs(tmp_path, capsys):
    """Workload, recipe, tests, workflow and settings are written, and what comes next is said."""
    assert main(["init", "--directory", str(tmp_path), "--name", "mine", "--yes"]) == 0
    printed = capsys.readouterr().out
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {
        "compress_workload.py",
        "benchmarks/recipes/structured.toml",
        "benchmarks/test_compressed.py",
        ".github/workflows/compress-gate.yml",
        "pytest.ini",
    }
    assert all(f"written   {path}" in printed for path in written)
    assert "pytest benchmarks --benchmark-save=mine" in printed
    workload = (tmp_path / "compress_workload.py").read_text(encoding="utf-8")
    assert 'name="mine"' in workload
    assert workload.count("BLANK 1:") == workload.count("BLANK 2:") == 1


def test_nothing_is_overwritten(tmp_path, capsys):
    """A file that is there keeps every byte, and is said to."""
    mine = tmp_path / "compress_workload.py"
    mine.write_bytes(b"mine = 1\r\n")
    assert main(["init", "--directory", str(tmp_path), "--yes"]) == 0
    assert "kept      compress_workload.py" in capsys.readouterr().out
    assert mine.read_bytes() == b"mine = 1\r\n"
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main(["init", "--directory", str(tmp_path), "--yes"]) == 0
    assert "written  " not in capsys.readouterr().out
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_machine_is_told_in_json(tmp_path, capsys):
    """The files, what became of each, and the recipes that were asked for."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n', encoding="utf-8")
    chosen = ["--recipe", "int8", "--recipe", "unstructured", "--no-workflow"]
    assert main(["init", "--directory", str(tmp_path), "--name", "x", *chosen, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["name"] == "x"
    assert {one["path"]: one["what"] for one in told["files"]} == {
        "compress_workload.py": "written",
        "benchmarks/recipes/int8.toml": "written",
        "benchmarks/recipes/unstructured.toml": "written",
        "benchmarks/test_compressed.py": "written",
        "pyproject.toml": "added to",
    }


def test_settings_that_cannot_be_added_write_nothing(tmp_path, capsys):
    """Half a project would be worse than none."""
    (tmp_path / "pyproject.toml").write_text("[tool", encoding="utf-8")
    assert main(["init", "--directory", str(tmp_path), "--yes"]) == 1
    assert "cannot read the project's settings" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["pyproject.toml"]


@pytest.mark.parametrize("name", ["", "a b", "../x", '"'])
def test_a_name_must_be_one(tmp_path, name):
    """It names a file, and stands in a program."""
    with pytest.raises(ConfigError, match="a name must be letters"):
        write_project(tmp_path, name=name, recipes=["int8"], workflow=False)
    assert not list(tmp_path.iterdir())


def test_a_folder_must_exist(tmp_path, capsys):
    """A typing error makes no folder."""
    assert main(["init", "--directory", str(tmp_path / "nowhere"), "--yes"]) == 1
    assert "--directory must be a folder that exists" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_one_and_limits_what_the_tests_measure(tmp_path, recipe):
    """It can be read, and limits no metric that no test holds."""
    write_project(tmp_path, name="x", recipes=[recipe], workflow=False)
    loaded = load_recipe(tmp_path / "benchmarks" / "recipes" / f"{recipe}.toml")
    tests = (tmp_path / "benchmarks" / "test_compressed.py").read_text(encoding="utf-8")
    assert loaded.steps
    for metric in parse_limits(loaded.limits, where=recipe):
        assert metric in METRICS
        assert f"gate({metric.removesuffix('_ms')}, compressed, dense)" in tests


@pytest.mark.nightly
def test_a_new_project_is_green(tmp_path):
    """Init, then pytest: a small network is trained, compressed and held, with nothing filled in."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    folder = tmp_path / "project"
    folder.mkdir()
    for command in (["compress", "init", "--yes"], ["pytest", "--compress-seconds=1"]):
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "HELD: no value is worse than it may be" in done.stdout
