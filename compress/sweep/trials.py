"""One study, several processes: who tries what, what was left off, what is done.

Optuna hands out trials, with ever higher numbers, to whichever process asks; of two that are to try the same point the
lower one counts.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from compress.report.pareto import Candidate, Failure
from compress.results import metric_of
from compress.sweep.parameters import Choices, Parameter, own_settings
from compress.sweep.plans import Plan, Point, all_points
from compress.system.processes import start_time, still_runs

_POINT, _WORKER, _RESULT, _REASON = "point", "worker", "result", "reason"
_RECIPE = "recipe"
_CLAIMED_WITHIN = timedelta(minutes=1)


def enqueue(study: optuna.Study, points: Sequence[Point]) -> None:
    """Have these tried next, those left out that anybody has tried or is to try."""
    known = {point.key for trial in _counted(study) if (point := point_of(trial)) is not None}
    for point in points:
        if point.key not in known:
            settings = {_optuna_name(point.recipe, name): value for name, value in point.settings.items()}
            params = {_RECIPE: point.recipe, **settings}
            study.enqueue_trial(params, user_attrs={_POINT: asdict(point)})


def draw(trial: optuna.Trial, plans: Sequence[Plan]) -> Point:
    """What this trial tries: what was enqueued for it, or else what the study's sampler comes up with."""
    given = point_of(trial)
    name = trial.suggest_categorical(_RECIPE, [plan.recipe.name for plan in plans])
    plan = next(plan for plan in plans if plan.recipe.name == name)
    if given is not None and not given.settings:
        return given
    drawn = {parameter.name: _suggest(trial, name, parameter) for parameter in plan.parameters}
    # What equals the recipe as it stands is that recipe, under whatever name.
    settings = {} if drawn == own_settings(plan.recipe, plan.parameters) else drawn
    return Point(recipe=name, settings=settings)


def claim(study: optuna.Study, trial: optuna.Trial, point: Point, *, most: int) -> bool:
    """Take the point on; whether it is this trial's to try.

    It is not if a trial with a lower number has it, or if ``most`` trials with lower numbers are done or being done.
    """
    trial.set_user_attr(_POINT, asdict(point))
    trial.set_user_attr(_WORKER, _this_worker())
    earlier = [other for other in _counted(study) if other.number < trial.number]
    known = {other.key for one in earlier if (other := point_of(one)) is not None}
    begun = [one for one in earlier if one.state is not TrialState.WAITING]
    return point.key not in known and len(begun) < most


def unseen(study: optuna.Study, plans: Sequence[Plan], *, seed: int) -> list[Point]:
    """A point that no trial has, if there is one; only where they can be counted."""
    known = {point.key for trial in _counted(study) if (point := point_of(trial)) is not None}
    left = [point for point in all_points(plans) if point.key not in known]
    return random.Random(seed).sample(left, min(1, len(left)))  # noqa: S311 - no secret


def finish(study: optuna.Study, trial: optuna.Trial, candidate: Candidate) -> None:
    """Keep what a trial came to."""
    trial.set_user_attr(_RESULT, asdict(candidate))
    study.tell(trial, [candidate.badness, candidate.latency_ratio or 0.0, candidate.file_bytes])


def fail(study: optuna.Study, trial: optuna.Trial, reason: str) -> None:
    """Keep why a trial made no model."""
    trial.set_user_attr(_REASON, reason)
    study.tell(trial, state=TrialState.FAIL)


def drop(study: optuna.Study, trial: optuna.Trial) -> None:
    """Leave a trial that is not this process's to try."""
    study.tell(trial, state=TrialState.PRUNED)


def hand_back(study: optuna.Study, number: int, point: Point | None) -> None:
    """Have what an interrupted trial tried be tried again, after what waits already."""
    # Another process may have seen first that its worker is gone.
    with contextlib.suppress(ValueError, RuntimeError, optuna.exceptions.UpdateFinishedTrialError):
        study.tell(number, state=TrialState.FAIL)
        if point is not None:
            enqueue(study, [point])


def hand_back_orphans(study: optuna.Study) -> None:
    """Hand back what a process of this machine had begun that is no longer there."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not _is_alive(trial):
            hand_back(study, trial.number, point_of(trial))


def point_of(trial: FrozenTrial | optuna.Trial) -> Point | None:
    """What a trial tries; None if that is not known yet."""
    point = trial.user_attrs.get(_POINT)
    return None if point is None else Point(recipe=point["recipe"], settings=point["settings"])


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a study is at one moment.

    Attributes:
        done: what is done, in the order of the trials.
        running: who is trying something, as far as this machine can know.
    """

    done: tuple[Candidate | Failure, ...]
    running: tuple[str, ...]


def progress_of(study: optuna.Study) -> Progress:
    """How far all are that work on it; each trial is either done or running, for others may finish one meanwhile."""
    trials = study.get_trials(deepcopy=False)
    return Progress(done=tuple(_results(trials)), running=tuple(_running(trials)))


def _results(trials: Sequence[FrozenTrial]) -> list[Candidate | Failure]:
    done: list[Candidate | Failure] = []
    for trial in trials:
        point = point_of(trial)
        if trial.state is TrialState.COMPLETE:
            result = dict(trial.user_attrs[_RESULT])
            interval, metric = result.pop("latency_interval"), metric_of(result.pop("metric"))
            interval = None if interval is None else tuple(interval)
            done.append(Candidate(**result, metric=metric, latency_interval=interval))
        elif trial.state is TrialState.FAIL and _REASON in trial.user_attrs and point is not None:
            done.append(Failure(recipe=point.recipe, settings=point.settings, reason=trial.user_attrs[_REASON]))
    return done


def _running(trials: Sequence[FrozenTrial]) -> list[str]:
    begun = [trial for trial in trials if trial.state is TrialState.RUNNING]
    workers = [trial.user_attrs[_WORKER] for trial in begun if _WORKER in trial.user_attrs and _is_alive(trial)]
    return [f"process {pid} on {host}" for host, pid, _ in workers]


def _counted(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that stand for their point: waiting, being done, or done."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state in (TrialState.WAITING, TrialState.COMPLETE)
        or (trial.state is TrialState.RUNNING and _is_alive(trial))
        or (trial.state is TrialState.FAIL and _REASON in trial.user_attrs)
    ]


def _suggest(trial: optuna.Trial, recipe: str, parameter: Parameter) -> Any:
    name, space = _optuna_name(recipe, parameter.name), parameter.space
    if isinstance(space, Choices):
        return trial.suggest_categorical(name, space.values)
    if space.is_whole:
        return trial.suggest_int(name, int(space.low), int(space.high), log=space.log)
    return trial.suggest_float(name, space.low, space.high, log=space.log)


def _optuna_name(recipe: str, parameter: str) -> str:
    """Two recipes may each have a parameter of one name, with other values."""
    return f"{recipe}: {parameter}"


def _this_worker() -> tuple[str, int, float]:
    return socket.gethostname(), os.getpid(), start_time(os.getpid())


def _is_alive(trial: FrozenTrial) -> bool:
    """Whether a trial's process still runs; of another machine's that cannot be known, and is believed."""
    if _WORKER not in trial.user_attrs:
        # Between being asked for and being claimed lie milliseconds.
        return trial.datetime_start is None or datetime.now() - trial.datetime_start < _CLAIMED_WITHIN  # noqa: DTZ005
    host, pid, start = trial.user_attrs[_WORKER]
    return bool(host != socket.gethostname() or still_runs(pid, start))
