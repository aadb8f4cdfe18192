"""Continuous integration as it is shipped: what it may do, what it runs, and what the gate's own action says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import compress
from compress.pytest_plugin.options import COULD_NOT_MEASURE
from compress.workload import EMBEDDED
from tests.asleep_project import ENTRIES, ENTRY, make_asleep_project

ROOT = Path(compress.__file__).parents[1]
ACTION = ROOT / ".github" / "actions" / "compress-gate"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FILES = [*WORKFLOWS, ACTION / "action.yml"]


def parsed(path):
    """A file's content."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps_of(path):
    """All steps of a workflow or an action."""
    content = parsed(path)
    jobs = content["jobs"].values() if "jobs" in content else [content["runs"]]
    return [step for job in jobs for step in job["steps"]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_action_is_pinned_to_a_commit(path):
    """A tag may be moved to other code, a commit may not; the tag stands beside it."""
    used = re.findall(r"uses: (\S+)(.*)", path.read_text(encoding="utf-8"))
    assert len(used) == sum("uses" in step for step in steps_of(path))
    for name, comment in used:
        if not name.startswith("./"):
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", name)
            assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_workflow_may_do_more_than_it_must(path):
    """Whatever runs a change's code may only read; what may write a comment runs none and checks nothing out."""
    content = parsed(path)
    assert content["permissions"] in ({}, {"contents": "read"})
    for job in content["jobs"].values():
        assert job["timeout-minutes"] <= 120
        writes = [scope for scope, right in job.get("permissions", {}).items() if right == "write"]
        if writes:
            # To be told apart by PyPI is no right in the repository.
            assert writes in (["pull-requests"], ["id-token"])
            assert all("run" not in step and "checkout" not in step["uses"] for step in job["steps"])
        for step in job["steps"]:
            if "checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_script_is_put_together_from_what_others_wrote(path):
    """An expression within a script would be run as part of it; values go through the environment."""
    for step in steps_of(path):
        assert "${{" not in step.get("run", "")
        assert "${{" not in str(step.get("with", {}).get("script", ""))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_pipeline_hides_that_a_command_failed(path):
    """A runner's own shell asks a pipeline's last command alone; only one that is named is given pipefail."""
    for step in steps_of(path):
        assert " | " not in step.get("run", "") or step.get("shell") == "bash"


def test_the_comment_reads_what_the_gate_keeps():
    """The workflow that comments waits for the one that gates, and knows its artifact by name."""
    comment = parsed(ROOT / ".github" / "workflows" / "gate-comment.yml")
    # To YAML 1.1, "on" is true.
    assert comment[True]["workflow_run"]["workflows"] == [parsed(ROOT / ".github" / "workflows" / "gate.yml")["name"]]
    (download,) = (step for step in steps_of(ROOT / ".github/workflows/gate-comment.yml") if "run-id" in step["with"])
    assert download["with"]["name"] == parsed(ACTION / "action.yml")["inputs"]["artifact"]["default"]


@pytest.fixture
def project(pytester, monkeypatch):
    """A checkout of a change, with the baselines of its base branch beside it."""
    project = make_asleep_project(pytester, monkeypatch)
    shutil.copytree(project.path / "baselines", project.path / ".compress-base" / "baselines")
    return project


def run_action(project, **inputs):
    """Run the action's script as a runner does; its exit status, what it printed, its outputs and the summary."""
    action = parsed(ACTION / "action.yml")
    step = next(step for step in action["runs"]["steps"] if step.get("id") == "gate")
    files = {name: project.path / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    values = {name: str(item["default"]) for name, item in action["inputs"].items()} | inputs
    given = {name: values[name.lower()] for name in ("TESTS", "WORKLOAD", "BASELINES", "ARGUMENTS")}
    assert given.keys() | {"HELD"} == step["env"].keys()
    environment = {
        **os.environ,
        **given,
        "HELD": f".compress-base/{given['BASELINES']}",
        **{name: str(path) for name, path in files.items()},
        "RUNNER_TEMP": str(project.path),
        "GITHUB_ACTION_PATH": str(ACTION),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = ["bash", "-eo", "pipefail", "-c", step["run"]]
    done = subprocess.run(command, cwd=project.path, env=environment, capture_output=True, text=True, check=False)
    outputs = dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text(encoding="utf-8").splitlines())
    return done, outputs, files["GITHUB_STEP_SUMMARY"].read_text(encoding="utf-8")


def test_the_action_holds_a_change_to_the_baselines_of_its_base_branch(project):
    """A change that edits its own baseline is still held to the old one, and the edit is shown."""
    project.write_baseline({**ENTRIES, "num_params": {**ENTRY, "compressed": 60}})
    project.write_conftest("@pytest.fixture(scope='session')\ndef compressed():\n    return 55\n")
    done, outputs, summary = run_action(project, arguments="-q -p no:hypothesispytest")
    assert (done.returncode, outputs["status"]) == (1, "1"), done.stdout + done.stderr
    assert summary.startswith("### Compressed models: regressed\n\ncompared with ")
    assert "#### this change edits baselines/mine.json" in summary
    assert re.search(r"\| half +\| parameters +\| +\| +50 \| +60 \| \+20\.0 % +\| WORSE", summary)
    assert Path(outputs["report"]).read_text(encoding="utf-8") == summary


@pytest.mark.nightly
def test_the_action_says_that_it_could_not_measure(project):
    """A run that ends before it has a table has a summary too, and fails."""
    (project.path / ".compress-base" / "baselines" / "mine.json").unlink()
    done, outputs, summary = run_action(project, arguments="-q -p no:hypothesispytest")
    assert (done.returncode, outputs["status"]) == (COULD_NOT_MEASURE, str(COULD_NOT_MEASURE))
    assert summary.startswith("### Compressed models: could not measure\n")


@pytest.mark.nightly
def test_the_action_takes_a_changes_own_baselines_where_there_are_none_before(project):
    """The change that brings the first baseline is held to it, with a warning."""
    shutil.rmtree(project.path / ".compress-base")
    done, outputs, summary = run_action(project, arguments="-q -p no:hypothesispytest")
    assert (done.returncode, outputs["status"]) == (0, "0"), done.stdout + done.stderr
    assert "::warning::the base branch has no folder baselines" in done.stdout
    assert summary.startswith("### Compressed models: held\n")


def test_the_matrix_runs_the_lowest_versions_that_are_allowed():
    """What pyproject.toml promises is tried: its lowest torch and torchvision, every Python, three systems."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (job,) = parsed(ROOT / ".github" / "workflows" / "systems.yml")["jobs"].values()
    (lowest,) = (step["run"] for step in job["steps"] if "lowest" in step.get("if", ""))
    for name in ("torch", "torchvision"):
        (bound,) = (line for line in project["dependencies"] if line.startswith(f"{name}>="))
        assert f"{name}=={bound.partition('>=')[2]}.*" in lowest.split()
    pythons = {
        line.rpartition(" ")[2]
        for line in project["classifiers"]
        if line.startswith("Programming Language") and "." in line
    }
    assert set(job["strategy"]["matrix"]["python"]) == pythons
    systems = {name.partition("-")[0] for name in job["strategy"]["matrix"]["os"]}
    assert systems == {"ubuntu", "macos", "windows"}


def test_every_night_holds_every_embedded_workload():
    """Each has its place in the matrix of the nightly job."""
    job = parsed(ROOT / ".github" / "workflows" / "nightly.yml")["jobs"]["workloads"]
    assert set(job["strategy"]["matrix"]["workload"]) == set(EMBEDDED)
