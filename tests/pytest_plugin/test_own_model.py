"""What the action's README shows works as it stands there: a project that gates a model of its own."""

from __future__ import annotations

import re
import shutil

import pytest
import torch
import yaml

from compress.calling.pairs import pinned_threads
from tests.plugin_project import make_project
from tests.test_workflows import ACTION

README = (ACTION / "README.md").read_text(encoding="utf-8")

# What the example's reader has already.
PACKAGE = """
import mine
from mine import workload

def load_small():
    return __import__("compress").prune_channels(mine.net(), workload().example_input, pruning_ratio=0.25)
"""


def example(name, language):
    """The code between the marker and the end of its fence."""
    return re.search(rf"<!-- example: {re.escape(name)} -->\n```{language}\n(.*?)\n```\n", README, re.DOTALL)[1]


def test_ten_lines_gate_a_model_of_ones_own(pytester, monkeypatch, tmp_path_factory):
    """Recorded and then compared, the model that the project brings holds; its recipe only states limits."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code = example("test_gate.py", "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    project = make_project(pytester, monkeypatch, tmp_path_factory.getbasetemp() / "compress-cache")
    shutil.rmtree(project.path / "benchmarks")
    (project.path / "benchmarks" / "recipes").mkdir(parents=True)
    (project.path / "benchmarks" / "test_gate.py").write_text(code, encoding="utf-8")
    (project.path / "benchmarks" / "recipes" / "small.toml").write_text(example("small.toml", "toml"), encoding="utf-8")
    pytester.makepyfile(my_package=PACKAGE)
    pytester.makeconftest("")
    pytester.makeini("[pytest]\npythonpath = .\ncompress_workload = my_package:workload\n")
    meters = ("--compress-workload=my_package:workload", "-k", "num_params or file_bytes or top1_error")
    with pinned_threads(1):
        recorded = project.run("--benchmark-save=mine", *meters)
        assert (recorded.status, recorded.failures) == (0, {}), recorded.text
        compared = project.run("--benchmark-compare", *meters)
    assert (compared.status, compared.failures) == (0, {}), compared.text
    assert "parameters" in compared.text
    assert "small" in compared.text


def test_the_workflow_that_is_shown_is_one():
    """It is YAML, may only read, and names the action by its folder."""
    text = re.search(r"```yaml\n(.*?)\n```\n", README, re.DOTALL)[1]
    workflow = yaml.safe_load(text)
    assert len(text.splitlines()) <= 10
    assert workflow["permissions"] == {"contents": "read"}
    (used,) = (step["uses"] for step in workflow["jobs"]["gate"]["steps"] if "gate" in step.get("uses", ""))
    assert used.startswith("OWNER/REPOSITORY/.github/actions/compress-gate@")


@pytest.mark.parametrize("name", ["tests", "workload", "baselines", "base", "arguments", "artifact"])
def test_the_readme_names_what_the_action_takes(name):
    """Each of its inputs, and no other."""
    inputs = yaml.safe_load((ACTION / "action.yml").read_text(encoding="utf-8"))["inputs"]
    assert f"`{name}`" in README
    assert len(inputs) == 6
    assert name in inputs
