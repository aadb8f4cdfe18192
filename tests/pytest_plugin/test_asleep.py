"""Nothing unmeasured passes: for each way in which a gate can be asleep, that it says so and does not exit with 0."""

from __future__ import annotations

import pytest

from compress.pytest_plugin.options import COULD_NOT_MEASURE
from tests.asleep_project import ENTRIES, ENTRY, LIMITS, TESTS, make_asleep_project

HELD, REGRESSED, USAGE_ERROR = 0, 1, 4


@pytest.fixture
def project(pytester, monkeypatch):
    """A project in which everything holds."""
    return make_asleep_project(pytester, monkeypatch)


def test_a_project_that_is_awake_holds(project):
    """All that is guarded is measured and meets both its limit and its baseline."""
    run = project.compare()
    assert run.status == HELD
    assert "verdicts: 2 ok" in run.text
    assert "MEASURE" not in run.text


def test_no_baseline(project):
    """A comparison with a file that is not there ends the run."""
    (project.path / "baselines" / "mine.json").unlink()
    run = project.compare()
    assert run.status == COULD_NOT_MEASURE
    assert "the baseline does not exist; record it with --benchmark-save (baselines/mine.json)" in run.text
    assert "did not run" not in run.text, "it is said once"


def test_a_baseline_of_a_newer_schema(project):
    """What a later version wrote is not guessed at."""
    project.write_baseline(schema=99)
    run = project.compare()
    assert run.status == COULD_NOT_MEASURE
    assert "the baseline was written by a newer version, upgrade pytest-compress" in run.text


@pytest.mark.parametrize("metric", ["num_params", "cpu_peak_bytes"])
def test_an_entry_that_is_missing(project, metric):
    """What the baseline does not know, on any class of device, and no limit guards was held against nothing."""
    project.write_baseline({name: entry for name, entry in ENTRIES.items() if name != metric})
    project.write_recipe(limits={name: limit for name, limit in LIMITS.items() if name != metric})
    run = project.compare()
    assert run.status == COULD_NOT_MEASURE
    assert f"{metric} of recipe 'half' was NOT MEASURED" in run.text
    assert "record it with --benchmark-save" in run.text


@pytest.mark.parametrize(
    ("limits", "options", "status"),
    [
        (LIMITS, (), HELD),
        (LIMITS, ("--require-baseline",), COULD_NOT_MEASURE),
        ({"num_params": "max_ratio = 0.6"}, (), COULD_NOT_MEASURE),
    ],
)
def test_another_class_of_device(project, limits, options, status):
    """The limit still holds and the missing comparison is said; without a limit, or on request, it is not measured."""
    other = {"cpu-other-1t": {"compressed": 51200, "dense": 102400}}
    project.write_baseline({**ENTRIES, "cpu_peak_bytes": other})
    project.write_recipe(limits=limits)
    run = project.compare(*options)
    assert run.status == status
    if status == HELD:
        assert "memory: baselines/mine.json has none for cpu-avx2-1t, only limits were held; add it with" in run.text
        run = project.compare(*options, "-v")
    assert "has cpu_peak_bytes of 'half' not for cpu-avx2-1t but 51.2 kB on cpu-other-1t: not compared" in run.text


def test_other_test_data(project):
    """Figures of other examples compare with nothing."""
    project.write_baseline(data_sha256="f" * 64)
    run = project.compare()
    assert run.status == COULD_NOT_MEASURE
    assert "was recorded on other test data" in run.text


def test_a_limit_that_no_test_measured(project):
    """A recipe may promise what no test looks at."""
    project.write_recipe(limits={**LIMITS, "macs": "max_ratio = 0.6", "cuda_peak_bytes": "max_ratio = 1.0"})
    run = project.compare()
    assert run.status == COULD_NOT_MEASURE
    assert "COULD NOT MEASURE: macs of half: its recipe limits it, and no test measured it" in run.text
    assert "cuda_peak_bytes" not in run.text, "there is no CUDA device"
    assert "macs, cuda_peak_bytes of half: its recipe limits it" in project.compare("--require-cuda").text


def test_a_recipe_of_which_nothing_was_measured(project):
    """A recipe whose tests are deselected is missing whole, whether the baseline knows it or not."""
    project.write_recipe("other")
    run = project.compare("-k", "half")
    assert run.status == COULD_NOT_MEASURE
    assert "COULD NOT MEASURE: recipe other: no test measured anything of it" in run.text


def test_a_recipe_that_is_gone(project):
    """What the baseline guards and no file makes any more is missing; recipes named on purpose are all there is."""
    project.write_baseline(recipes={"half": ENTRIES, "gone": ENTRIES})
    run = project.compare()
    assert run.status == COULD_NOT_MEASURE
    assert "num_params, cpu_peak_bytes of gone: it stands in baselines/mine.json, and no test measured it" in run.text
    assert project.compare("--compress-recipe=benchmarks/recipes/half.toml").status == HELD


def test_two_recipes_of_one_name(project):
    """The second would take the first one's place in the table and in the baseline."""
    project.write_recipe(folder="others")
    recipes = [f"--compress-recipe={folder}" for folder in ("benchmarks/recipes", "others")]
    run = project.compare(*recipes)
    assert run.status == pytest.ExitCode.INTERRUPTED
    assert "got 'half' twice: benchmarks/recipes/half.toml and others/half.toml; rename one of them" in run.text
    assert project.compare(*recipes[:1], *recipes[:1]).status == HELD


@pytest.mark.parametrize("args", [(), ("--benchmark-compare",)])
def test_a_fixture_that_skips(project, args):
    """A test of the gate that is skipped measured nothing, with a comparison or without."""
    project.write_conftest("@pytest.fixture\ndef cpu_memory():\n    pytest.skip('not on Mondays')\n")
    run = project.run(*args)
    assert run.status == COULD_NOT_MEASURE
    assert "benchmarks/test_mine.py::test_cpu_memory[half]: was skipped: not on Mondays" in run.text


def test_a_meter_that_skips(project):
    """A skip in the middle of a measurement stands in the table as what it is."""
    project.write_conftest("""
@pytest.fixture
def cpu_memory():
    return Meter(metric="cpu_peak_bytes", measure=lambda *models: pytest.skip("no memory today"))
""")
    run = project.run()
    assert run.status == COULD_NOT_MEASURE
    assert "COULD NOT MEASURE: cpu_peak_bytes of half: no memory today" in run.text
    assert "NOT MEASURED: CPU memory: no memory today" in run.text


def test_an_xfail_that_hides_a_regression(project):
    """Pytest counts what fails as expected, the gate does not."""
    project.write_tests(f"import pytest\npytestmark = pytest.mark.xfail\n{TESTS}")
    project.write_baseline({**ENTRIES, "num_params": {**ENTRY, "compressed": 40}})
    run = project.compare()
    assert run.status == REGRESSED
    assert "REGRESSED: num_params of half, though its test is reported as xfailed" in run.text


def test_an_xfail_that_hides_what_was_not_measured(project):
    """Neither is a missing value a pass because it was expected to miss."""
    project.write_tests(f"import pytest\npytestmark = pytest.mark.xfail\n{TESTS}")
    project.write_baseline(data_sha256="f" * 64)
    assert project.compare().status == COULD_NOT_MEASURE


def test_an_xfail_that_is_not_run(project):
    """A test that is not even tried measured nothing."""
    project.write_tests(f"import pytest\npytestmark = pytest.mark.xfail(run=False, reason='slow')\n{TESTS}")
    run = project.run()
    assert run.status == COULD_NOT_MEASURE
    assert "test_cpu_memory[half]: is expected to fail: [NOTRUN] slow" in run.text


def test_a_test_that_forgets_to_call_the_gate(project):
    """To ask for the gate and not to call it is to hold nothing."""
    project.write_tests(f"{TESTS}\ndef test_forgetful(gate, macs):\n    assert gate\n")
    project.write_conftest("@pytest.fixture\ndef macs():\n    return None\n")
    run = project.run()
    assert run.status == COULD_NOT_MEASURE
    assert "benchmarks/test_mine.py::test_forgetful[half]: passed without calling the gate" in run.text


def test_a_gate_of_ones_own_that_builds_on_ours(project):
    """It is still the gate that the test asks for; one that has nothing to do with ours is not."""
    project.write_tests("def test_forgetful(gate, compressed):\n    assert gate\n")
    project.write_conftest("@pytest.fixture\ndef gate(gate):\n    return gate\n")
    assert "passed without calling the gate" in project.run().text
    project.write_conftest("@pytest.fixture\ndef gate():\n    return 'garden'\n")
    assert project.run().status == HELD


def test_a_test_that_swallows_its_verdict(project):
    """A regression that the test's own code catches is one all the same."""
    project.write_tests("""
import pytest

def test_num_params(gate, num_params, compressed, dense):
    with pytest.raises(pytest.fail.Exception):
        gate(num_params, 2 * compressed, dense)
""")
    run = project.run()
    assert run.status == REGRESSED
    assert "REGRESSED: num_params of half, though its test is reported as passed" in run.text


def test_a_fixture_that_breaks(project):
    """A model that cannot even be made has not become worse, it was not measured."""
    project.write_conftest("@pytest.fixture(scope='session')\ndef compressed():\n    raise RuntimeError('no steam')\n")
    run = project.run()
    assert run.status == COULD_NOT_MEASURE
    both = "benchmarks/test_mine.py::test_num_params[half], benchmarks/test_mine.py::test_cpu_memory[half]"
    assert f"COULD NOT MEASURE: {both}: failed before it called the gate" in run.text


def test_what_regressed_weighs_more_than_what_is_missing(project):
    """One metric worse and one unmeasured is a regression, and both are said."""
    project.write_baseline({"num_params": {**ENTRY, "compressed": 40}, "macs": ENTRY})
    run = project.compare()
    assert run.status == REGRESSED
    assert "num_params of recipe 'half' REGRESSED" in run.text
    assert "COULD NOT MEASURE: macs of half" in run.text


def test_another_test_that_fails_is_a_failure(project):
    """A test that has nothing to do with the gate keeps the status that pytest gives it."""
    project.write_baseline(data_sha256="f" * 64)
    project.write_tests(f"{TESTS}\ndef test_other():\n    assert False\n")
    assert project.compare().status == REGRESSED


UNDECIDED = "def test_top1_error(gate, top1_error, compressed, dense):\n    gate(top1_error, compressed, dense)\n"


@pytest.mark.parametrize(
    ("args", "status"),
    [
        ((), HELD),
        (("--compress-inconclusive=warn",), HELD),
        (("--compress-inconclusive=fail",), COULD_NOT_MEASURE),
        (("--compress-inconclusive=fail", "--compress-excuse=top1_error"), HELD),
    ],
)
def test_a_verdict_that_is_left_open(project, args, status):
    """What cannot be decided shows in the table, and on request fails; then it may be excused like a missing value."""
    project.write_tests(UNDECIDED)
    project.write_recipe(limits={"top1_error": "max_increase = 0.01"})
    run = project.run(*args)
    assert run.status == status
    assert "verdicts: 1 inconclusive" in run.text


@pytest.mark.parametrize(
    ("excuse", "status"),
    [
        ("cpu_peak_bytes", HELD),
        ("cpu_peak_bytes:half", HELD),
        ("cpu_peak_bytes:other", COULD_NOT_MEASURE),
        ("num_params", COULD_NOT_MEASURE),
    ],
)
def test_what_is_missing_is_excused_by_name(project, excuse, status):
    """An excuse covers its metric, of its recipe, and no other; it is said aloud, and so is that it was not needed."""
    run = project.compare("-k", "num_params", f"--compress-excuse={excuse}")
    assert run.status == status
    said = (
        f"excused by {excuse}: cpu_peak_bytes of half: its recipe limits it"
        if not status
        else f"excuse {excuse} was not"
    )
    assert said in run.text


def test_what_could_not_be_measured_is_excused_by_name(project):
    """An excused test is skipped aloud, not failed."""
    project.write_baseline(data_sha256="f" * 64)
    run = project.compare("--compress-excuse=num_params", "--compress-excuse=cpu_peak_bytes", "-rs")
    assert run.status == HELD
    assert "NOT MEASURED: num_params" in run.text
    assert "2 skipped" in run.text


@pytest.mark.parametrize("part", ["", "[half]"])
def test_a_silent_test_is_excused_by_name(project, part):
    """What measures nothing on purpose is named by its node id."""
    project.write_conftest("@pytest.fixture\ndef cpu_memory():\n    pytest.skip('not on Mondays')\n")
    run = project.run(f"--compress-excuse=benchmarks/test_mine.py::test_cpu_memory{part}")
    assert run.status == HELD
    assert f"excused by benchmarks/test_mine.py::test_cpu_memory{part}: " in run.text


def test_a_regression_is_never_excused(project):
    """To accept it there is the limit, and the baseline."""
    project.write_baseline({**ENTRIES, "num_params": {**ENTRY, "compressed": 40}})
    assert project.compare("--compress-excuse=num_params").status == REGRESSED


def test_an_excuse_of_an_unknown_metric(project):
    """A mistyped name excuses nothing, and ends the run at once."""
    run = project.compare("--compress-excuse=num_parms")
    assert run.status == USAGE_ERROR
    assert "metric 'num_parms' is unknown, the nearest is 'num_params'" in run.text


def test_an_improvement_says_that_the_baseline_is_stale(project):
    """A baseline far above what the model has become guards nothing any more."""
    project.write_baseline({**ENTRIES, "num_params": {**ENTRY, "compressed": 60}})
    run = project.compare()
    assert run.status == HELD
    assert "baseline is stale: 50 against 60, record the gain with --benchmark-save" in run.text


def test_a_run_that_could_not_measure_records_nothing(project):
    """A baseline of half a run would look like one of a whole."""
    project.write_tests(f"{TESTS}\ndef test_forgetful(gate):\n    assert gate\n")
    before = (project.path / "baselines" / "mine.json").read_bytes()
    run = project.run("--benchmark-save=mine")
    assert run.status == COULD_NOT_MEASURE
    assert "baseline 'mine' NOT recorded: something could not be measured" in run.text
    assert (project.path / "baselines" / "mine.json").read_bytes() == before


def test_the_report_says_what_is_missing(project):
    """Who reads only the Markdown learns it too."""
    project.compare("-k", "num_params", "--compress-report=table.md")
    text = (project.path / "table.md").read_text(encoding="utf-8")
    assert text.startswith("### Compressed models: could not measure\n")
    assert "- COULD NOT MEASURE: cpu\\_peak\\_bytes of half" in text.replace("cpu_peak_bytes", "cpu\\_peak\\_bytes")
