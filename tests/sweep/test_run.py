from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import compress
from compress.errors import ConfigError, MeasureError, ModelError
from compress.quality import Quality, topk_error
from compress.report.sweep_file import ENDINGS, read_sweep, write_sweep
from compress.sweep import run
from compress.sweep.parameters import Choices, Range
from compress.sweep.plans import all_points, plan_sweep
from compress.sweep.run import SweepConfig, run_sweep
from compress.workload.workload import dense_model
from tests.sweep.recipes import CUT, FIT, ZERO, recipe, write_recipe
from tests.workloads import tiny_workload

ROOT = Path(compress.__file__).parents[1]
SPARSITIES = {"prune_weights.sparsity": Choices(values=(0.1, 0.3, 0.5, 0.7, 0.9))}


@pytest.fixture(scope="module")
def workload():
    """A network and data that take a fraction of a second."""
    return tiny_workload()


@pytest.fixture
def dense(workload):
    """Its trained model."""
    return dense_model(workload, progress=False)


@pytest.fixture
def sweep(tmp_path, workload, dense):
    """Runs a sweep of plans in the test's own study."""

    def sweep(plans, **settings):
        config = SweepConfig(study=str(tmp_path / "study.journal"), seconds=0.001, processes=0, **settings)
        return run_sweep(plans, dense, workload, config, progress=False)

    return sweep


@pytest.fixture
def zero(tmp_path):
    """A recipe that zeroes half of the weights, and five values to try."""
    return plan_sweep([recipe(tmp_path, "zero", ZERO)], SPARSITIES)


def settings_of(sweep) -> list[dict[str, object]]:
    """What was tried, in order."""
    return [dict(one.settings) for one in sweep.candidates]


def test_a_grid_is_measured_point_by_point(tmp_path, sweep, dense):
    """Every model is what its settings make of the dense one, measured against it."""
    plans = plan_sweep(
        [recipe(tmp_path, "cut", CUT, FIT), recipe(tmp_path, "zero", ZERO)],
        {"prune_channels.pruning_ratio": Choices(values=(0.25, 0.5))},
    )
    done = sweep(plans, sampler="grid")
    assert [one.label for one in done.candidates] == ["cut", "zero", "cut: prune_channels.pruning_ratio=0.25"]
    assert (done.workload, done.num_examples, done.failures, done.running) == ("tiny", 24, (), ())
    assert [one.num_params for one in (done.dense, *done.candidates)] == [455, 157, 455, 288]
    assert done.dense.file_bytes == len(compress.artifacts.artifact.serialize(dense))
    for one in done.candidates:
        low, high = one.latency_interval
        assert 0 < low <= one.latency_ratio <= high
        assert 0 <= one.quality <= 1
    assert done.candidates[0].file_bytes < done.candidates[2].file_bytes < done.dense.file_bytes


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_small_space_is_tried_to_the_end_and_nothing_twice(sweep, zero, sampler):
    """However often chance draws the same again; more trials than there are points is all of them."""
    done = sweep(zero, trials=50, sampler=sampler)
    assert len(done.candidates) == len(all_points(zero)) == 5
    assert {str(settings) for settings in settings_of(done)} == {
        str(dict(point.settings)) for point in all_points(zero)
    }


def test_a_range_is_drawn_from_and_repeats(tmp_path, sweep, workload, dense):
    """The recipe itself first, then as many as asked for; the same seed tries the same, another one others."""
    plans = plan_sweep([recipe(tmp_path, "zero", ZERO)], {"prune_weights.sparsity": Range(low=0.1, high=0.9)})
    tried = settings_of(sweep(plans, trials=3, sampler="random"))
    assert (tried[0], len(tried)) == ({}, 3)
    assert all(0.1 <= settings["prune_weights.sparsity"] <= 0.9 for settings in tried[1:])
    for seed, same in ((0, True), (1, False)):
        config = SweepConfig(
            study=str(tmp_path / f"{seed}.journal"), seconds=0.001, processes=0, trials=3, sampler="random", seed=seed
        )
        assert (settings_of(run_sweep(plans, dense, workload, config, progress=False)) == tried) == same


def test_a_sweep_goes_on_where_it_was_stopped(sweep, zero, monkeypatch):
    """Ctrl-C in the third trial: the next run keeps two and ends with all, the third one among them."""
    tried = []

    def counted(recipe, *arguments, **settings):
        tried.append(recipe.steps[0].sparsity)
        if len(tried) == 3:
            raise KeyboardInterrupt
        return run_recipe(recipe, *arguments, **settings)

    run_recipe = run.run_recipe
    monkeypatch.setattr(run, "run_recipe", counted)
    with pytest.raises(KeyboardInterrupt):
        sweep(zero, sampler="grid")
    done = sweep(zero, sampler="grid")
    assert tried == [0.5, 0.1, 0.3, 0.7, 0.9, 0.3]
    assert len(done.candidates) == 5
    assert sweep(zero, sampler="grid") == done
    assert len(tried) == 6


def test_settings_that_make_no_model_do_not_end_a_sweep(sweep, zero, monkeypatch):
    """They are listed with their reason; what has nothing to do with them ends the sweep, and is tried again."""

    def failing(recipe, *arguments, **settings):
        if recipe.steps[0].sparsity == 0.3:
            raise ModelError("no weight is left")
        if recipe.steps[0].sparsity == 0.9:
            raise MeasureError("a child process was killed")
        return run_recipe(recipe, *arguments, **settings)

    run_recipe = run.run_recipe
    monkeypatch.setattr(run, "run_recipe", failing)
    with pytest.raises(MeasureError):
        sweep(zero, sampler="grid")
    done = sweep(zero, sampler="grid", trials=4)
    assert [(one.label, one.reason) for one in done.failures] == [
        ("zero: prune_weights.sparsity=0.3", "no weight is left")
    ]
    assert len(done.candidates) == 3


def test_a_sweep_without_an_end_is_refused():
    """Only a grid ends by itself."""
    with pytest.raises(ConfigError, match=r"^a sweep that is no grid has no end of its own: trials must be given$"):
        SweepConfig(study="x")
    with pytest.raises(ConfigError, match=r"^trials must be at least 1, got 0$"):
        SweepConfig(study="x", trials=0, sampler="grid")
    for settings, message in (
        ({"threads": 0}, "threads must be"),
        ({"processes": -1}, "processes must be"),
        ({"seconds": float("nan")}, "seconds must be"),
    ):
        with pytest.raises(ConfigError, match=message):
            SweepConfig(study="x", trials=1, **settings)


def command(study, *files, cwd, cache, trials=12):
    """A sweep as a user types it, in a process of its own."""
    words = ["sweep", *files, "--workload", "tests.workloads:tiny_workload", "--study", study, "--grid"]
    words += ["--seconds", "0.05", "--processes", "0", "--trials", str(trials), "--set"]
    words += ["prune_weights.sparsity=" + ",".join(str(sparsity / 20) for sparsity in range(1, 13))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "compress", *map(str, words)],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def workers(journal: Path) -> list[int]:
    """Process of each trial that was claimed, by the study's own lines."""
    lines = [json.loads(line) for line in journal.read_bytes().splitlines()]
    return [line["user_attr"]["worker"][1] for line in lines if "worker" in line.get("user_attr", {})]


def test_models_of_another_task_are_weighed_by_its_own_quality(tmp_path, dense, workload):
    """The first one that it is judged by, which way better may be: in the table, in files, and among the best."""
    share = Quality(name="share_right", rows=_right, better="higher", unit="fraction")
    other = dataclasses.replace(workload, quality=[share, topk_error(1)])
    plans = plan_sweep([recipe(tmp_path, "zero", ZERO)], {"prune_weights.sparsity": Choices(values=(0.1, 0.99))})
    config = SweepConfig(study=str(tmp_path / "study.journal"), sampler="grid", seconds=0.001, processes=0)
    found = run_sweep(plans, dense, other, config, progress=False)
    right = 1 - other.judge(dense)["top1_error"].value
    assert (found.dense.metric.name, found.dense.quality) == ("share_right", pytest.approx(right))
    assert found.dense.badness == -found.dense.quality
    assert len(found.candidates) == 3
    for ending in ENDINGS:
        write_sweep(found, tmp_path / f"found{ending}")
    again = read_sweep(tmp_path / "found.json")
    assert again.dense == found.dense
    assert again.candidates == found.candidates
    assert "share right" in (tmp_path / "found.md").read_text()
    assert "share right, %" in (tmp_path / "found.svg").read_text()
    assert "share_right" in (tmp_path / "found.csv").read_text().splitlines()[0]
    assert run_sweep(plans, dense, other, config, progress=False).candidates == found.candidates


def _right(outputs, targets):
    return outputs.argmax(dim=1) == targets


def test_two_processes_share_one_study(tmp_path, dense, workload):
    """One as a user starts it, and, once that has begun, this one: each does a part, nothing is done twice."""
    file, study = write_recipe(tmp_path, "zero", ZERO), tmp_path / "study.journal"
    other = command(study, file, cwd=tmp_path, cache=Path(os.environ["XDG_CACHE_HOME"]))
    values = tuple(sparsity / 20 for sparsity in range(1, 13))
    plans = plan_sweep([recipe(tmp_path, "zero", ZERO)], {"prune_weights.sparsity": Choices(values=values)})
    while other.poll() is None and not (study.exists() and workers(study)):
        time.sleep(0.02)
    config = SweepConfig(study=str(study), sampler="grid", seconds=0.05, processes=0)
    here = run_sweep(plans, dense, workload, config, progress=False)
    output, errors = other.communicate(timeout=120)
    assert other.returncode == 0, errors
    assert set(workers(study)) == {other.pid, os.getpid()}
    again = run_sweep(plans, dense, workload, config, progress=False)
    assert len(again.candidates) == 12
    assert len({one.label for one in again.candidates}) == 12
    assert len(here.candidates) + len(here.running) == 12
    assert output.count("prune_weights.sparsity=") >= 10


@pytest.mark.nightly
def test_two_processes_share_one_database(tmp_path):
    """Both started at once on a SQLite file that neither finds there: in the end every point is done once."""
    file, study = write_recipe(tmp_path, "zero", ZERO), f"sqlite:///{tmp_path}/study.db"
    both = [command(study, file, cwd=tmp_path, cache=tmp_path / "cache") for _ in range(2)]
    for one in both:
        _, errors = one.communicate(timeout=300)
        assert one.returncode == 0, errors
    last = command(study, file, cwd=tmp_path, cache=tmp_path / "cache")
    output, _ = last.communicate(timeout=300)
    assert output.count("zero: prune_weights.sparsity=") == 11
