from __future__ import annotations

import dataclasses
import json
import os
import subprocess

import pytest
import torch

from compress.errors import CompressError
from compress.gate.judge import RECORDED_LOOKS
from compress.measure.children import Conditions
from compress.selfcheck import trials
from compress.selfcheck.trials import SLOWDOWNS, Plan, run_trials
from tests.workloads import tiny_net

PLAN = Plan(workload="tiny", device="cpu-avx2-1t", identical_trials=4, slowed_trials=1, processes=2)
CONDITIONS = Conditions(model_factory=tiny_net, example_input=torch.zeros(1, 3, 8, 8))


@pytest.fixture
def measured(monkeypatch):
    """Processes that never start, and take just the slow-down they are asked for; the slow-downs asked for so far."""
    asked = []

    def runs_in(children, models, conditions, effort, *, slowdown):
        assert (children.count, set(models), conditions) == (2, {"dense", "compressed"}, CONDITIONS)
        asked.append((slowdown, effort.enough is not None))
        return (((5.0, 5.0 * (1 + slowdown)),) * 8,) * children.count

    monkeypatch.setattr(trials, "runs_in", runs_in)
    return asked


def take(path, plan=PLAN, stop_after=None):
    """All trials of a plan, or so many of them."""
    taken = []
    for total, taken in run_trials(plan, tiny_net(), CONDITIONS, path):
        assert total == len(plan.order())
        if stop_after is not None and len(taken) == stop_after:
            break
    return taken


def test_a_plan_s_trials_are_shuffled_by_its_seed():
    """So many of each, the first ones identical, for the others are compared with them."""
    order = PLAN.order()
    assert order[:RECORDED_LOOKS] == [0.0] * RECORDED_LOOKS
    assert sorted(order[RECORDED_LOOKS:]) == sorted([0.0] * 4 + list(SLOWDOWNS))
    assert PLAN.order() == order
    assert dataclasses.replace(PLAN, seed=1).order() != order


def test_what_does_not_pass_is_looked_at_again(measured, tmp_path):
    """Identical models pass at once, large slow-downs take a second look, which has no reason to end early."""
    taken = take(tmp_path / "results.jsonl")
    assert [trial.slowdown for trial in taken] == PLAN.order()
    assert {trial.slowdown for trial in taken if trial.second is not None} == {0.03, 0.05, 0.10}
    assert {first for slowdown, first in measured if slowdown == 0} == {True}
    assert [first for slowdown, first in measured if slowdown == 0.10] == [True, False]


def test_an_interrupted_self_check_goes_on_where_it_stopped(measured, tmp_path):
    """What is in the file is not measured again, and comes out as it went in."""
    path = tmp_path / "results.jsonl"
    before = take(path, stop_after=7)
    measured.clear()
    after = take(path)
    assert after[:7] == before
    assert [slowdown for slowdown, first in measured if first] == PLAN.order()[7:]
    measured.clear()
    assert take(path) == after
    assert measured == []


def test_a_torn_last_line_is_taken_again(measured, tmp_path):
    """Whoever was killed while writing has lost one trial."""
    path = tmp_path / "results.jsonl"
    take(path, stop_after=4)
    path.write_text(path.read_text()[:-20])
    measured.clear()
    take(path, stop_after=4)
    assert [slowdown for slowdown, first in measured if first] == [PLAN.order()[3]]
    assert len(path.read_text().splitlines()) == 5


@pytest.mark.parametrize("change", [{"busy": True}, {"identical_trials": 5}, {"device": "cpu-avx2-2t"}, {"seed": 3}])
@pytest.mark.usefixtures("measured")
def test_trials_of_another_plan_are_not_mixed_in(tmp_path, change):
    """A file belongs to the plan that began it."""
    path = tmp_path / "results.jsonl"
    take(path, stop_after=2)
    with pytest.raises(CompressError, match=r"belongs to another self-check; name another one with --results \(.*\)$"):
        take(path, dataclasses.replace(PLAN, **change))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "must be one JSON object a line"),
        (json.dumps({"slowdown": 0}), "is damaged: KeyError"),
        (json.dumps({"slowdown": 0, "first": 3, "second": None, "seconds": 1}), "is damaged: TypeError"),
    ],
)
@pytest.mark.usefixtures("measured")
def test_a_damaged_line_is_named(tmp_path, line, said):
    """Its number is in the message, and nothing is measured on top of it."""
    path = tmp_path / "results.jsonl"
    take(path, stop_after=2)
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(CompressError, match=said) as caught:
        take(path)
    assert str(caught.value).endswith(f"({path}:4)")


def test_a_file_that_cannot_be_is_no_crash(tmp_path):
    """A folder in its place, a missing folder around it, another kind of file."""
    for path in (tmp_path, tmp_path / "missing" / "results.jsonl"):
        with pytest.raises(CompressError, match=r"cannot (read|write) the results of a self-check"):
            take(path)
    (tmp_path / "empty").touch()
    with pytest.raises(CompressError, match="belongs to another self-check"):
        take(tmp_path / "empty")


def test_a_busy_neighbour_is_there_only_meanwhile(monkeypatch):
    """It runs while trials are taken and is gone afterwards, and without --busy nothing is started."""
    started = []

    class Watched(subprocess.Popen):
        def __init__(self, *args, **settings) -> None:
            super().__init__(*args, **settings)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Watched)
    with trials._neighbour(busy=False):
        assert started == []
    with trials._neighbour(busy=True):
        assert started[0].poll() is None
    with pytest.raises(ProcessLookupError):
        os.kill(started[0].pid, 0)
