"""The gate when only a part of its tests is run: what pytest or pytest-benchmark leaves out is no pass."""

from __future__ import annotations

import pytest

from compress.pytest_plugin.options import COULD_NOT_MEASURE
from tests.asleep_project import ENTRIES, ENTRY, LIMITS, TESTS, TIMED, make_asleep_project

HELD, REGRESSED, USAGE_ERROR = 0, 1, 4


@pytest.fixture
def project(pytester, monkeypatch):
    """A project in which everything holds."""
    return make_asleep_project(pytester, monkeypatch)


def test_no_test_selected(project):
    """A selection that leaves nothing holds nothing; without a comparison that is for pytest to say."""
    run = project.compare("-k", "nothing")
    assert run.status == COULD_NOT_MEASURE
    assert "a comparison was asked for, and no test called the gate" in run.text
    assert project.run("-k", "nothing").status == pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.mark.parametrize("option", ["--benchmark-compare", "--benchmark-compare=mine"])
def test_other_tests_than_those_of_the_gate(project, option):
    """Whoever compares and runs a folder without a test of the gate has compared nothing."""
    project.pytester.makepyfile(test_other="def test_other():\n    pass\n")
    run = project.run("test_other.py", option)
    assert run.status == COULD_NOT_MEASURE
    assert "no test called the gate" in run.text


@pytest.mark.parametrize("swallowed", ["benchmarks", "benchmarks/test_mine.py::test_num_params"])
def test_an_option_that_swallows_what_was_to_be_run(project, swallowed):
    """The word after --benchmark-compare is a baseline's name, which nobody means who writes a test there."""
    run = project.run("--benchmark-compare", swallowed)
    assert run.status == USAGE_ERROR
    assert f"write: pytest {swallowed} --benchmark-compare" in run.text


@pytest.mark.parametrize(
    ("args", "status"),
    [
        (("--benchmark-compare",), COULD_NOT_MEASURE),
        (("--benchmark-compare", "--compress-partial"), HELD),
        ((), HELD),
    ],
)
def test_a_gate_of_which_a_part_is_deselected(project, args, status):
    """Who compares is told what was not; who says that it is a part, or only develops, is not kept from it."""
    run = project.run("-k", "num_params", *args)
    assert run.status == status
    gap = "COULD NOT MEASURE: cpu_peak_bytes of half: its recipe limits it, and no test measured it"
    assert (gap in run.text) == (status == COULD_NOT_MEASURE)
    assert ("partial: only what was selected is held" in run.text) == ("--compress-partial" in args)


def test_only_benchmarks(project):
    """--benchmark-only skips the tests of the gate, for pytest-benchmark does not know them as its own."""
    run = project.run("--benchmark-only")
    assert run.status == COULD_NOT_MEASURE
    assert "test_cpu_memory[half]: was skipped: Skipping non-benchmark (--benchmark-only active)" in run.text


def test_benchmarks_are_skipped(project):
    """--benchmark-skip leaves out the tests that time models: those were not measured, with a comparison or without.

    A test need not name pytest-benchmark's fixture itself: what times models does so on its own.
    """
    project.write_conftest(TIMED)
    project.write_recipe(limits={**LIMITS, "cpu_latency_ms": "max_ratio = 0.6"})
    project.write_tests(f"""{TESTS}
def test_named(gate, cpu_latency, compressed, dense, benchmark):
    gate(cpu_latency, compressed, dense)

def test_unnamed(gate, cpu_latency, compressed, dense):
    gate(cpu_latency, compressed, dense)
""")
    for run in (project.run("--benchmark-skip"), project.compare("--benchmark-skip")):
        assert run.status == COULD_NOT_MEASURE
        assert "test_named[half]: was skipped: Skipping benchmark (--benchmark-skip active)" in run.text
        assert "cpu_latency_ms of half: Benchmarks are skipped (--benchmark-skip was used)" in run.text
        assert "verdicts: 1 NOT MEASURED, 2 ok" in run.text


def test_only_benchmarks_of_which_some_are_deselected(project):
    """Of --benchmark-only and -m together nothing that is left of the gate need be a benchmark."""
    marked = TESTS.replace("def test_cpu", "@pytest.mark.slow\ndef test_cpu")
    project.write_tests(f"import pytest\n{marked}")
    project.pytester.makeini("[pytest]\nmarkers = slow\n")
    for run in (project.run("--benchmark-only", "-m", "not slow"), project.compare("--benchmark-only", "-m", "slow")):
        assert run.status == COULD_NOT_MEASURE
        assert "was skipped: Skipping non-benchmark (--benchmark-only active)" in run.text
    assert project.compare("--benchmark-only", "-m", "nothing").status == COULD_NOT_MEASURE


def test_a_run_that_stops_at_the_first_failure(project):
    """What came after it did not run, and is named; what regressed weighs more."""
    project.write_baseline(data_sha256="f" * 64)
    run = project.compare("-x")
    assert run.status == COULD_NOT_MEASURE
    assert "benchmarks/test_mine.py::test_cpu_memory[half]: did not run" in run.text
    project.write_baseline({**ENTRIES, "num_params": {**ENTRY, "compressed": 40}})
    run = project.compare("--maxfail=1")
    assert run.status == REGRESSED
    assert "benchmarks/test_mine.py::test_cpu_memory[half]: did not run" in run.text


@pytest.mark.parametrize("args", [(), ("--benchmark-compare",), ("--benchmark-compare", "-k", "num_params")])
def test_collecting_is_no_run(project, args):
    """Whoever only lists the tests is not told that they measured nothing, and nothing is written."""
    run = project.run("--collect-only", "--compress-report=table.md", *args)
    assert run.status == HELD
    assert "MEASURE" not in run.text
    assert not (project.path / "table.md").exists()


def test_only_what_failed_the_last_time(project):
    """Where nothing failed all tests run, unless none is to; where one did, the others are missing."""
    whole = project.compare("--lf", cached=True)
    assert whole.status == HELD
    assert "verdicts: 2 ok" in whole.text
    assert project.compare("--lf", "--lfnf=none", cached=True).status == COULD_NOT_MEASURE
    project.write_recipe(limits={**LIMITS, "num_params": "max_ratio = 0.4"})
    assert project.compare(cached=True).status == REGRESSED
    project.write_recipe()
    part = project.compare("--lf", cached=True)
    assert part.status == COULD_NOT_MEASURE
    assert "COULD NOT MEASURE: cpu_peak_bytes of half: its recipe limits it, and no test measured it" in part.text
