from __future__ import annotations

import os
from datetime import timedelta

import optuna
import pytest
from optuna.trial import TrialState

from compress.report.pareto import Candidate, Failure
from compress.sweep import trials
from compress.sweep.parameters import Choices, Range
from compress.sweep.plans import Point, all_points, plan_sweep, seeds
from compress.sweep.study import fingerprint, open_study
from tests.sweep.recipes import CUT, FIT, ZERO, recipe
from tests.sweep.test_study import ABOUT


@pytest.fixture
def plans(tmp_path):
    """Two recipes, one of which has two values to try beside its own."""
    recipes = [recipe(tmp_path, "zero", ZERO), recipe(tmp_path, "cut", CUT, FIT)]
    return plan_sweep(recipes, {"prune_weights.sparsity": Choices(values=(0.1, 0.5, 0.9))})


@pytest.fixture
def study(tmp_path, plans):
    """A study of theirs."""
    return open_study(str(tmp_path / "study.journal"), fingerprint(plans, ABOUT))


def ask(study, plans, seed=0):
    """The next trial and what it tries."""
    trial = study.ask()
    study.sampler = optuna.samplers.RandomSampler(seed=seed)
    return trial, trials.draw(trial, plans)


def finish(study, trial, point):
    """The trial made a model."""
    done = Candidate(
        recipe=point.recipe,
        settings=point.settings,
        quality=0.1,
        file_bytes=10,
        num_params=5,
        latency_ratio=0.5,
        latency_interval=(0.4, 0.6),
    )
    trials.finish(study, trial, done)
    return done


def test_what_is_enqueued_is_tried_in_its_order(study, plans):
    """The recipes as they stand, then the grid; enqueued again it is not tried again."""
    points = all_points(plans)
    for _ in range(2):
        trials.enqueue(study, points)
    tried = []
    for _ in points:
        trial, point = ask(study, plans)
        assert trials.claim(study, trial, point, most=9)
        tried.append(point)
        finish(study, trial, point)
    assert tried == points
    assert study.get_trials(states=(TrialState.WAITING,)) == []


def test_what_is_drawn_comes_from_the_lists_and_ranges(study, plans, tmp_path):
    """Within them, for the recipe that was drawn; what equals the recipe as it stands is the recipe."""
    ranged = plan_sweep(
        [recipe(tmp_path, "ranged", FIT)],
        {"fit.epochs": Range(low=2, high=4), "fit.learning_rate": Range(low=1e-3, high=1e-1, log=True)},
    )
    for seed in range(20):
        _, point = ask(study, plans, seed)
        assert point in all_points(plans)
    other = optuna.create_study(directions=["minimize"] * 3)
    for seed in range(20):
        settings = ask(other, ranged, seed)[1].settings
        assert settings["fit.epochs"] in (2, 3, 4)
        assert 1e-3 <= settings["fit.learning_rate"] <= 1e-1


def test_of_two_trials_with_one_point_the_lower_counts(study):
    """Also where both processes asked before either said what it tries."""
    first, second = study.ask(), study.ask()
    point = Point(recipe="zero", settings={"prune_weights.sparsity": 0.1})
    assert trials.claim(study, first, point, most=9)
    assert not trials.claim(study, second, point, most=9)
    trials.drop(study, second)
    finish(study, first, point)
    assert len(trials.progress_of(study).done) == 1


def test_no_more_are_begun_than_are_wanted(study, plans):
    """Of trials that were all asked for at once the lowest are tried."""
    begun = [ask(study, plans, seed)[0] for seed in range(3)]
    points = all_points(plans)
    assert [trials.claim(study, trial, point, most=2) for trial, point in zip(begun, points, strict=False)] == [
        True,
        True,
        False,
    ]


def test_what_failed_is_done(study, plans):
    """It is listed with its reason, and not tried again."""
    points = all_points(plans)
    trials.enqueue(study, points[:1])
    trial, point = ask(study, plans)
    trials.claim(study, trial, point, most=9)
    trials.fail(study, trial, "no channel is left")
    assert trials.progress_of(study).done == (Failure(recipe="zero", settings={}, reason="no channel is left"),)
    trials.enqueue(study, points[:1])
    assert study.get_trials(states=(TrialState.WAITING,)) == []


def test_an_interrupted_trial_is_tried_again(study, plans):
    """With the very settings it had; it is no result."""
    point = Point(recipe="zero", settings={"prune_weights.sparsity": 0.9})
    trial = study.ask()
    trials.claim(study, trial, point, most=9)
    trials.hand_back(study, trial.number, point)
    assert trials.progress_of(study).done == ()
    assert ask(study, plans)[1] == point


def test_a_dead_process_leaves_nothing_behind(study, plans):
    """What it had begun is tried again; what a living one, or one elsewhere, has begun is left to it."""
    points = all_points(plans)
    for point in points[:3]:
        trials.claim(study, study.ask(), point, most=9)
    dead, elsewhere, _ = study.get_trials(deepcopy=False)
    study._storage.set_trial_user_attr(dead._trial_id, "worker", [os.uname().nodename, os.getpid(), 1.0])
    study._storage.set_trial_user_attr(elsewhere._trial_id, "worker", ["elsewhere", 1, 1.0])
    assert trials.progress_of(study).running == (
        "process 1 on elsewhere",
        f"process {os.getpid()} on {os.uname().nodename}",
    )
    for _ in range(2):
        trials.hand_back_orphans(study)
    assert ask(study, plans)[1] == points[0]
    assert len(study.get_trials(states=(TrialState.RUNNING,))) == 3


def test_a_process_that_died_before_it_claimed_leaves_nothing_behind_either(study, plans, monkeypatch):
    """A trial that was asked for and never claimed is another's to try, once there is no doubt."""
    points = all_points(plans)
    trials.enqueue(study, points[:1])
    study.ask()
    trials.hand_back_orphans(study)
    assert study.get_trials(states=(TrialState.WAITING,)) == []
    monkeypatch.setattr(trials, "_CLAIMED_WITHIN", timedelta(0))
    trials.hand_back_orphans(study)
    assert ask(study, plans)[1] == points[0]


def test_results_come_back_as_they_were(study, plans):
    """From the file, with intervals and settings."""
    trials.enqueue(study, seeds(plans))
    trial, point = ask(study, plans)
    trials.claim(study, trial, point, most=9)
    done = finish(study, trial, point)
    assert trials.progress_of(study) == trials.Progress(done=(done,), running=())


def test_a_trial_that_ends_meanwhile_is_counted_once(study, plans, monkeypatch):
    """Another process may finish one at any moment: what is done and who is running are read at the same one."""
    trial, point = ask(study, plans)
    trials.claim(study, trial, point, most=9)
    read, ends = study.get_trials, iter([True])

    def and_then_it_ends(**options):
        seen = read(**options)
        if next(ends, False):
            finish(study, trial, point)
        return seen

    monkeypatch.setattr(study, "get_trials", and_then_it_ends)
    now = trials.progress_of(study)
    assert len(now.done) + len(now.running) == 1


def test_the_unseen_is_found_to_the_last(study, plans):
    """As long as there are points that nobody tried, one of them is named."""
    points = all_points(plans)
    trials.enqueue(study, points[:-1])
    assert trials.unseen(study, plans, seed=0) == [points[-1]]
    trials.enqueue(study, points)
    assert trials.unseen(study, plans, seed=0) == []
