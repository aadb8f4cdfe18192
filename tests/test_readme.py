"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

from compress.pairs import pinned_threads
from tests.plugin_project import make_project

README = Path(__file__).parents[1] / "README.md"

# What the example's reader has already.
PACKAGE = """
from mine_before import images, net as build_net

def load_images():
    return images(40, seed=1), images(40, seed=2)
"""


@pytest.fixture
def example() -> str:
    """The code between the marker and the end of its fence."""
    found = re.search(
        r"<!-- example: mine\.py -->\n```python\n(.*?)\n```\n", README.read_text(encoding="utf-8"), re.DOTALL
    )
    assert found is not None, "README.md has no block marked <!-- example: mine.py -->"
    return found[1]


def test_the_first_table_is_the_committed_baselines(capsys, monkeypatch):
    """The README shows what the command above the table prints, and nobody's copy of it by hand."""
    found = re.search(r"<!-- python (benchmarks/\S+\.py) -->\n((?:\|.*\n)+)", README.read_text(encoding="utf-8"))
    assert found is not None, "README.md has no table after a comment with its command"
    monkeypatch.setattr(sys, "argv", [found[1]])
    runpy.run_path(str(README.with_name("benchmarks") / Path(found[1]).name), run_name="__main__")
    assert capsys.readouterr().out == found[2]


def test_a_workload_takes_a_few_lines(example):
    """Whoever has a net and images is fifteen lines away from measuring them."""
    assert 0 < len([line for line in example.splitlines() if line.strip()]) <= 15


def test_the_example_runs(example, pytester, monkeypatch, tmp_path_factory):
    """Written down as mine.py, beside a package that builds a net and loads images, it is measured."""
    project = make_project(pytester, monkeypatch, tmp_path_factory.getbasetemp() / "compress-cache")
    (project.path / "mine.py").rename(project.path / "mine_before.py")
    (project.path / "mine.py").write_text(example, encoding="utf-8")
    (project.path / "my_package.py").write_text(PACKAGE, encoding="utf-8")
    with pinned_threads(1):
        run = project.run("--compress-workload=mine:workload", "-k", "num_params")
    assert (run.status, run.passed) == (0, {"test_num_params"})
    assert "workload: mine" in run.text
    assert re.search(r"parameters +202 +153 ", run.text)
