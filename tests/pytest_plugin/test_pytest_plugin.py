from __future__ import annotations

import shutil

import pytest
import torch

from compress.calling.pairs import pinned_threads
from compress.pytest_plugin.options import COULD_NOT_MEASURE
from tests.plugin_project import RECIPE, Project, Run, make_project

SIZES = "test_num_params or test_num_nonzero_params or test_macs or test_file_bytes"


@pytest.fixture
def project(pytester, monkeypatch, tmp_path_factory):
    """A project on a machine without CUDA."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pinned_threads(1):
        yield make_project(pytester, monkeypatch, tmp_path_factory.getbasetemp() / "compress-cache")


def assert_one_sentence(text: str, sentence: str) -> None:
    """What went wrong is said, and nothing of the inside is shown."""
    assert sentence in text
    for inside in ("Traceback", "site-packages", "INTERNALERROR", "pytest_plugin/"):
        assert inside not in text


def test_the_documented_commands_give_no_warning(project):
    """Recording into a fresh folder and comparing with it, warnings being errors, both are green."""
    report, all_but_memory = project.path / "report.md", ("-k", "not cpu_memory")
    recorded = project.run("--benchmark-save=mine", "-W", "error", *all_but_memory, fresh=True)
    assert (recorded.status, recorded.failures) == (0, {})
    assert "baseline recorded in baselines/mine.json" in recorded.text
    missing = "cuda_latency_ms, cuda_time_ms, cuda_device_ms, cuda_graph_ms, cuda_peak_bytes"
    assert f"  not recorded: {missing} of quarter: no CUDA device" in recorded.text
    project.widen_ratios()
    options = ("--benchmark-compare", "--compress-partial", "-W", "error", f"--compress-report={report}")
    compared = project.run(*options, *all_but_memory)
    assert (compared.status, compared.failures) == (0, {})
    assert "Warning" not in recorded.text + compared.text
    assert f"report written to {report}" in compared.text


def test_a_report_holds_every_row(project):
    """--compress-report writes the reference table as Markdown, also what was not measured."""
    assert project.run("-k", f"{SIZES} or cuda_latency", "--compress-report=table.md", harm="macs").status == 1
    lines = (project.path / "table.md").read_text(encoding="utf-8").splitlines()
    rows = [line.split("|")[1].strip() for line in lines if line.startswith("|")]
    assert rows[0] == "criterion"
    assert rows[2:] == [
        "parameters",
        "non-zero parameters",
        "MACs per image",
        "file size",
        "time per image, CUDA",
    ]
    assert sum("REGRESSED" in line for line in lines if line.startswith("| MACs")) == 1


def test_a_report_that_cannot_be_written_is_said_in_a_sentence(project):
    """A folder that is missing fails the run, but the table is still shown."""
    run = project.run("-k", "num_params", "--compress-report=absent/table.md")
    assert run.status != 0
    assert_one_sentence(run.text, "cannot write absent/table.md: No such file or directory")
    assert "compressed models" in run.text


def test_a_failed_run_records_nothing(project):
    """One test that fails keeps both our baseline and pytest-benchmark's file from being written, and that is said."""
    run = project.run("-k", f"{SIZES} or cpu_latency", "--benchmark-save=mine", harm="macs")
    assert run.status == 1
    assert "baseline 'mine' NOT recorded: 1 test failed" in run.text
    assert not project.baseline.exists()
    assert project.stored_timings() == []


def test_a_failed_run_leaves_the_old_baseline_as_it_was(project):
    """A baseline is never updated by a run that failed."""
    assert project.run("-k", SIZES, "--benchmark-save=mine").status == 0
    before = project.baseline.read_bytes()
    assert project.run("-k", SIZES, "--benchmark-save=mine", harm="num_params").status == 1
    assert project.baseline.read_bytes() == before


def test_a_run_broken_off_records_nothing(project):
    """What came before the recipe at which a run ended is no whole run, though none of its tests failed."""
    project.recipe.with_name("zigzag.toml").write_text("steps = 3\n", encoding="utf-8")
    run = project.run("-k", "num_params", "--benchmark-save=mine")
    assert run.status == pytest.ExitCode.USAGE_ERROR
    assert_one_sentence(run.text, "baseline 'mine' NOT recorded: the run was broken off")
    assert not project.baseline.exists()


def test_recording_without_a_latency_does_not_warn(project):
    """That pytest-benchmark has nothing to save of its own is no fault of a run that records sizes."""
    run = project.run("-k", "num_params", "--benchmark-save=mine", "-W", "error")
    assert (run.status, project.stored_timings()) == (0, [])
    assert "Not saving anything" not in run.text


def test_recording_again_leaves_exact_lines_untouched(project):
    """On the same machine what is counted is recorded in the same bytes, and the run says that nothing changed."""
    assert project.run("-k", SIZES, "--benchmark-save=mine").status == 0
    before = project.baseline.read_bytes()
    run = project.run("-k", SIZES, "--benchmark-save=mine")
    assert (run.status, project.baseline.read_bytes()) == (0, before)
    assert "baseline unchanged: baselines/mine.json" in run.text


def test_recording_times_again_leaves_all_other_lines_untouched(project):
    """A recording of latency adds and changes its own lines only."""
    assert project.run("-k", SIZES, "--benchmark-save=mine").status == 0
    before = project.baseline.read_text(encoding="utf-8").splitlines()
    assert project.run("-k", "cpu_latency", "--benchmark-save=mine").status == 0
    after = project.baseline.read_text(encoding="utf-8").splitlines()
    assert [line for line in before if line not in after] == []
    assert len(project.stored_timings()) == 1


def test_recording_over_another_workload_is_refused(project):
    """A baseline holds one workload: the run fails, the file stays, and pytest-benchmark stores nothing either."""
    assert project.run("-k", "num_params", "--benchmark-save=mine").status == 0
    text = project.baseline.read_text(encoding="utf-8").replace('"workload": "mine"', '"workload": "yours"')
    project.baseline.write_text(text, encoding="utf-8")
    run = project.run("-k", "cpu_latency", "--benchmark-save=mine")
    assert run.status not in (0, 1)
    assert_one_sentence(run.text, "NOT recorded: a baseline holds one workload, got 'mine' for that of 'yours'")
    assert project.baseline.read_text(encoding="utf-8") == text
    assert project.stored_timings() == []


FORBIDDEN = "the dense model was asked for"


def run_untrained(project: Project, *args: str) -> Run:
    """Run a test that asks for the gate last, with a dense model that says so if it is asked for."""
    mine = project.path / "mine.py"
    text = mine.read_text(encoding="utf-8")
    assert "    model = Net()\n" in text
    mine.write_text(text.replace("    model = Net()\n", f"    raise SystemExit({FORBIDDEN!r})\n"), encoding="utf-8")
    project.pytester.makepyfile(
        own="""
        def test_own(num_params, compressed, dense, gate):
            gate(num_params, compressed, dense)
    """
    )
    run = project.run("own.py", *args)
    assert run.status != 0
    assert FORBIDDEN not in run.text
    return run


def test_comparing_without_a_baseline_ends_the_run_before_any_training(project):
    """A baseline that is missing is said in one line before the dense model is asked for."""
    run = run_untrained(project, "--benchmark-compare")
    assert run.status == COULD_NOT_MEASURE
    assert_one_sentence(run.text, "the baseline does not exist; record it with --benchmark-save (baselines/mine.json)")


@pytest.mark.parametrize("content", ["", "{", '{"schema": 1}', "[1, 2]", '{"schema": 99}'])
def test_comparing_with_a_damaged_baseline_ends_the_run_before_any_training(project, content):
    """An empty, truncated, incomplete, wrong or future file is said in one line that names it."""
    project.baseline.parent.mkdir()
    project.baseline.write_text(content, encoding="utf-8")
    run = run_untrained(project, "--benchmark-compare=mine")
    assert run.status == COULD_NOT_MEASURE
    assert_one_sentence(run.text, "baselines/mine.json")


def test_a_baseline_of_other_test_data_is_not_measured_and_fails(project):
    """Nothing compares with figures of other images."""
    assert project.run("-k", "num_params", "--benchmark-save=mine").status == 0
    mine = project.path / "mine.py"
    mine.write_text(mine.read_text(encoding="utf-8").replace("seed=2", "seed=3"), encoding="utf-8")
    run = project.run("-k", "num_params", "--benchmark-compare", "--compress-partial")
    assert (run.status, set(run.failures)) == (COULD_NOT_MEASURE, {"test_num_params"})
    assert "num_params of recipe 'quarter' was NOT MEASURED" in run.failures["test_num_params"]
    assert "was recorded on other test data" in run.failures["test_num_params"]


def test_an_option_that_swallows_the_folder_is_refused(project):
    """The word after --benchmark-compare is a baseline's name, which nobody means who writes a folder there."""
    run = project.run("--benchmark-compare", "benchmarks")
    assert run.status == pytest.ExitCode.USAGE_ERROR
    assert_one_sentence(run.text, "write: pytest benchmarks --benchmark-compare")


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        ("[limits]\nnum_parms = { max_ratio = 1.0 }\n", "metric 'num_parms' is unknown, the nearest is 'num_params'"),
        ("[limits\n", "recipe benchmarks/recipes/quarter.toml is not valid TOML"),
        ("steps = 3\n", "steps must be [[steps]] tables, got 3"),
        (RECIPE.replace("0.25", "1.5"), "pruning_ratio must be in [0, 1), got 1.5"),
        (RECIPE.replace("prune_weights", "prune_weighs"), "did you mean 'prune_weights'?"),
        (RECIPE.replace("sparsity = 0.5", "sparsity = true"), "sparsity must be of type float, got True"),
    ],
)
def test_a_wrong_recipe_is_said_in_one_sentence(project, recipe, sentence):
    """What is wrong with a recipe is said with the file's name."""
    project.recipe.write_text(recipe, encoding="utf-8")
    run = project.run("-k", "num_params")
    assert run.status != 0
    assert_one_sentence(run.text, sentence)
    assert "benchmarks/recipes/quarter.toml" in run.text


def test_a_wrong_limit_ends_the_run_before_any_training(project):
    """A limit that cannot be read is found before hours of training, not after."""
    project.recipe.write_text(RECIPE.replace("max_ratio = 0.76", "max_ration = 0.76"), encoding="utf-8")
    run = run_untrained(project)
    assert run.status == pytest.ExitCode.USAGE_ERROR
    assert_one_sentence(run.text, "limit key 'max_ration' is unknown, the nearest is 'max_ratio'")


BROKEN = """
    import compress, mine, torch
    from mine import Net

    def replaced(**values):
        import dataclasses
        return dataclasses.replace(mine.workload(), **values)

    def empty():
        nothing = (torch.zeros(0, 1, 8, 8, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64))
        return replaced(data=lambda: compress.from_tensors("rows", train=mine.images(6, 0), test=nothing))

    def text():
        return "not a workload"
"""


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("digit", "a data set must be one of digits, cifar10, cifar100, imagefolder:DIR, got 'digit'"),
        ("absent:workload", "workload 'absent:workload' cannot be imported: No module named 'absent'"),
        ("uninstalled:workload", "workload 'uninstalled:workload' cannot be imported: No module named 'surely_absent'"),
        ("broken:absent", "workload 'broken:absent' cannot be imported"),
        ("broken:text", "workload 'broken:text' must return a compress.Workload, got str"),
        ("broken:empty", "a split must hold at least one example, got none (rows, test)"),
        ("imagefolder:pictures", "a data set must have at least two classes, got only 'cat'"),
        ("imagefolder:nowhere", "there is no folder nowhere/train"),
    ],
)
def test_a_wrong_workload_is_said_in_one_sentence(project, spec, sentence):
    """Whatever keeps a workload from being loaded ends the run, and only that is said."""
    project.pytester.makepyfile(broken=BROKEN, uninstalled="import surely_absent")
    for split in ("train", "test"):
        (project.path / "pictures" / split / "cat").mkdir(parents=True)
    run = project.run("-k", "num_params", f"--compress-workload={spec}")
    assert run.status != 0
    assert_one_sentence(run.text, sentence)


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--compress-threads=0", "--compress-threads must be a whole number of 1 or more, got '0'"),
        ("--compress-seconds=never", "--compress-seconds must be a number above 0, got 'never'"),
        ("--compress-recipe=absent.toml", "cannot read recipe absent.toml: No such file or directory"),
    ],
)
def test_a_wrong_option_is_said_in_one_sentence(project, option, sentence):
    """Options are checked before anything is run."""
    run = project.run("-k", "num_params", option)
    assert run.status == pytest.ExitCode.USAGE_ERROR
    assert_one_sentence(run.text, sentence)


def test_a_project_without_a_folder_of_recipes_has_the_one_that_init_writes(project):
    """A plain test with two models and a meter needs no recipe of its own."""
    shutil.rmtree(project.recipe.parent)
    project.pytester.makepyfile(
        test_plain="def test_size(num_params, compressed, dense): assert num_params(compressed, dense).ratio < 1"
    )
    run = project.run("test_plain.py", "-v")
    assert run.status == 0, run.text
    assert "test_size[structured]" in run.text


def test_without_recipes_the_run_says_where_it_looked(project):
    """No recipe means no test, which must not look like success."""
    project.recipe.unlink()
    run = project.run("-k", "num_params")
    assert run.status != 0
    assert_one_sentence(run.text, "no recipes in benchmarks/recipes; name one with --compress-recipe")
