"""The gate beside the plugins that many projects have: on several processes, in random order, under coverage.

They are in the extra "plugins", not in an ordinary development environment, where some would change how every
other test runs; what is not installed is skipped.
"""

from __future__ import annotations

import importlib.util

import pytest

from compress.gate.baseline import load_baseline
from compress.pytest_plugin.options import COULD_NOT_MEASURE
from tests.asleep_project import TESTS, make_asleep_project

pytestmark = pytest.mark.nightly


def needs(module):
    """Skip where a plugin is not installed."""
    return pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"{module} is not installed")


@pytest.fixture
def project(pytester, monkeypatch):
    """A project in which everything holds, run in processes of its own."""
    # As of pytest-xdist, if these tests run under it themselves.
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    return make_asleep_project(pytester, monkeypatch)


@needs("xdist")
def test_a_run_on_several_processes_holds(project):
    """What each of them measured is in one table, and compared with one baseline."""
    run = project.compare("-n2", fresh=True)
    assert run.status == 0
    assert "verdicts: 2 ok" in run.text


@needs("xdist")
def test_a_run_on_several_processes_records_all_that_they_measured(project):
    """The baseline is written once, by the process that knows whether the whole run held."""
    (project.path / "baselines" / "mine.json").unlink()
    run = project.run("-n2", "--benchmark-save=mine", fresh=True)
    assert run.status == 0
    assert "baseline recorded in baselines/mine.json" in run.text
    baseline = load_baseline(project.path / "baselines" / "mine.json")
    assert set(baseline.recipes["half"]) == {"num_params", "cpu_peak_bytes"}


@needs("xdist")
def test_a_regression_on_one_of_several_processes(project):
    """Whichever process finds it, it is one, and nothing is recorded."""
    project.write_recipe(limits={"num_params": "max_ratio = 0.4", "cpu_peak_bytes": "max_ratio = 0.6"})
    before = (project.path / "baselines" / "mine.json").read_bytes()
    run = project.compare("-n2", "--benchmark-save=mine", fresh=True)
    assert run.status == 1
    assert "verdicts: 1 REGRESSED, 1 ok" in run.text
    assert (project.path / "baselines" / "mine.json").read_bytes() == before


@needs("xdist")
def test_what_is_asleep_on_several_processes(project):
    """A missing baseline, a forgotten call and a metric that no test measured are found as on one."""
    project.write_tests(f"{TESTS}\ndef test_forgetful(gate):\n    assert gate\n")
    run = project.compare("-n2", fresh=True)
    assert run.status == COULD_NOT_MEASURE
    assert "test_forgetful[half]: passed without calling the gate" in run.text
    project.write_tests(TESTS.partition("def test_cpu")[0])
    run = project.compare("-n2", fresh=True)
    assert run.status == COULD_NOT_MEASURE
    assert "COULD NOT MEASURE: cpu_peak_bytes of half" in run.text
    (project.path / "baselines" / "mine.json").unlink()
    run = project.compare("-n2", fresh=True)
    assert run.status == COULD_NOT_MEASURE
    assert "the baseline does not exist" in run.text


@needs("xdist")
def test_a_process_that_crashes(project):
    """What it was measuring was not measured."""
    project.write_conftest("@pytest.fixture\ndef cpu_memory():\n    import os\n    os._exit(3)\n")
    run = project.compare("-n2", fresh=True)
    assert run.status == COULD_NOT_MEASURE
    assert "test_cpu_memory[half]: failed before it called the gate: its process crashed" in run.text


@needs("xdist")
def test_a_latency_on_several_processes(project):
    """Benchmarks are disabled there, which is said and not taken for a pass."""
    project.write_conftest("""
from compress.pytest_plugin.benchmarking import PytestBenchmark

@pytest.fixture
def cpu_latency(request):
    return Meter(metric="cpu_latency_ms", measure=lambda *models: PytestBenchmark(request).refuse_if_disabled())
""")
    project.write_tests(
        "def test_time(gate, cpu_latency, compressed, dense):\n    gate(cpu_latency, compressed, dense)\n"
    )
    run = project.run("-n2", fresh=True)
    assert run.status == COULD_NOT_MEASURE
    assert "benchmarks are disabled, by --benchmark-disable or by pytest-xdist" in run.text


@needs("pytest_randomly")
@pytest.mark.parametrize("seed", [1, 2])
def test_in_random_order_each_recipe_is_run_once(project, seed):
    """However tests of several recipes are shuffled, no model is compressed twice."""
    project.write_recipe("third")
    project.write_recipe("whole")
    project.write_tests(
        f"{TESTS}\ndef test_again(gate, num_params, compressed, dense):\n    gate(num_params, compressed, dense)\n"
    )
    project.write_conftest("""
import pathlib

@pytest.fixture(scope="session")
def compressed(compressed):
    return compressed

def run_recipe(recipe, dense, workload, **_how):
    with pathlib.Path("runs.txt").open("a") as file:
        file.write(recipe.name + "\\n")
    return 50

@pytest.fixture(autouse=True, scope="session")
def counted():
    import compress.recipe
    compress.recipe.run_recipe = run_recipe
""")
    conftest = project.path / "conftest.py"
    own = '@pytest.fixture(scope="session")\ndef compressed(recipe):\n    return 50\n'
    assert own in conftest.read_text()
    conftest.write_text(conftest.read_text().replace(own, ""))
    run = project.run(f"--randomly-seed={seed}", fresh=True)
    assert run.status == 0, run.text
    assert sorted((project.path / "runs.txt").read_text().split()) == ["half", "third", "whole"]


@needs("pytest_cov")
@needs("pytest_timeout")
def test_under_coverage_and_a_time_limit(project):
    """Neither changes what the gate says; a test that is stopped for its time was not measured."""
    run = project.compare("--cov=benchmarks", "--timeout=60", fresh=True)
    assert run.status == 0
    assert "verdicts: 2 ok" in run.text
    project.write_conftest("@pytest.fixture\ndef cpu_memory():\n    import time\n    time.sleep(60)\n")
    run = project.compare("--timeout=2", fresh=True)
    assert run.status == COULD_NOT_MEASURE
    assert "test_cpu_memory[half]: failed before it called the gate" in run.text
