"""Running a sweep: trial after trial until there are enough, alone or beside other processes on the same study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import optuna
from torch import nn

from compress.artifacts import artifact
from compress.errors import ConfigError, ModelError
from compress.gate.checks import precise_enough, recorded_ratio
from compress.measure.children import Children, Conditions
from compress.measure.latency import Effort, cpu_latency
from compress.measure.size import count_file_bytes, count_params
from compress.recipe import run_recipe
from compress.report.pareto import Candidate, Failure, Sweep
from compress.sweep import trials
from compress.sweep.parameters import with_settings
from compress.sweep.plans import Plan, Point, all_points, is_finite, seeds
from compress.sweep.progress import sweep_progress
from compress.sweep.study import fingerprint, open_study
from compress.system.cpu import cpu_class
from compress.workload.workload import Workload

Sampler = Literal["tpe", "random", "grid"]

# What goes wrong because of what was tried, and would again.
_OF_THE_SETTINGS = (ConfigError, ModelError)


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """How a sweep goes about it.

    Attributes:
        study: path of a journal file, or URL of a database.
        trials: how many models to make in all, the recipes as they stand among them; None for all of a grid.
        sampler: what comes next: "tpe" learns from what was measured, "random" does not, "grid" takes all in turn.
        seed: of "tpe" and "random".
        threads: that times are measured with.
        seconds: how long each time may be measured.
        processes: fresh ones that times are measured in; 0 measures in this one.
    """

    study: str
    trials: int | None = None
    sampler: Sampler = "tpe"
    seed: int = 0
    threads: int = 1
    seconds: float = 4.0
    processes: int = 3

    def __post_init__(self) -> None:
        if self.trials is None and self.sampler != "grid":
            raise ConfigError("a sweep that is no grid has no end of its own: trials must be given")
        if self.trials is not None and self.trials < 1:
            raise ConfigError(f"trials must be at least 1, got {self.trials}")
        if self.processes < 0:
            raise ConfigError(f"processes must be at least 0, got {self.processes}")
        if self.threads < 1:
            raise ConfigError(f"threads must be at least 1, got {self.threads}")
        if not 0 < self.seconds < math.inf:
            raise ConfigError(f"seconds must be a number above 0, got {self.seconds}")


def run_sweep(
    plans: Sequence[Plan], dense: nn.Module, workload: Workload, config: SweepConfig, *, progress: bool = True
) -> Sweep:
    """Try settings until ``config.trials`` models are made, and return all that the study holds.

    A study goes on where it was left off, whoever left it; several processes share one.

    Raises:
        ConfigError: if the study is another one's, or a grid is asked for over a range.
    """
    points = all_points(plans) if config.sampler == "grid" or is_finite(plans) else seeds(plans)
    most = config.trials or len(points)
    if is_finite(plans):
        most = min(most, len(points))
    study = open_study(config.study, fingerprint(plans, _about(dense, workload, config)))
    trials.hand_back_orphans(study)
    trials.enqueue(study, points if config.sampler == "grid" else seeds(plans))
    with (
        Children(config.processes, threads=config.threads) as children,
        sweep_progress(total=most, shown=progress) as shown,
    ):
        attempt = _Attempt(
            plans=plans, dense=dense, workload=workload, config=config, children=children, progress=progress
        )
        now = trials.progress_of(study)
        shown.begin(now.done)
        while len(now.done) + len(now.running) < most:
            _try_next(study, plans, attempt, most)
            now = trials.progress_of(study)
            shown.update(now.done)
        return _collect(study, attempt)


def _about(dense: nn.Module, workload: Workload, config: SweepConfig) -> dict[str, str]:
    """What a study has in common with all that work on it, beside the plans."""
    return {
        "workload": workload.name,
        "data_sha256": workload.dataset.sha256,
        "dense": artifact.digest(dense),
        "device": cpu_class(config.threads),
    }


def _collect(study: optuna.Study, attempt: _Attempt) -> Sweep:
    """All that the study holds."""
    now, workload = trials.progress_of(study), attempt.workload
    candidates = [one for one in now.done if isinstance(one, Candidate)]
    return Sweep(
        workload=workload.name,
        data_sha256=workload.dataset.sha256,
        device=cpu_class(attempt.config.threads),
        num_examples=len(workload.dataset.test),
        dense=replace(attempt.measure(attempt.dense), recipe="dense", latency_ratio=1.0),
        candidates=tuple(sorted(candidates, key=lambda one: not one.is_seed)),
        failures=tuple(one for one in now.done if isinstance(one, Failure)),
        running=now.running,
    )


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """Makes and measures the model of a point."""

    plans: Sequence[Plan]
    dense: nn.Module
    workload: Workload
    config: SweepConfig
    children: Children
    progress: bool

    def __call__(self, point: Point) -> Candidate:
        plan = next(plan for plan in self.plans if plan.recipe.name == point.recipe)
        recipe = with_settings(plan.recipe, plan.parameters, point.settings)
        compressed = run_recipe(recipe, self.dense, self.workload, progress=self.progress)
        conditions = Conditions(
            model_factory=self.workload.model_factory,
            model_args=self.workload.model_args,
            example_input=self.workload.inputs,
            runtime=recipe.runtime,
            threads=self.config.threads,
        )
        effort = Effort(seconds=self.config.seconds, enough=precise_enough)
        ratio = recorded_ratio(cpu_latency(compressed, self.dense, conditions, effort=effort, children=self.children))
        return replace(
            self.measure(compressed),
            recipe=point.recipe,
            settings=dict(point.settings),
            latency_ratio=ratio.median,
            latency_interval=(ratio.low, ratio.high),
        )

    def measure(self, model: nn.Module) -> Candidate:
        """The workload's first quality and size, of nobody's yet."""
        first = self.workload.qualities[0]
        judged = self.workload.judge(model, dense=self.dense, progress=self.progress)
        return Candidate(
            recipe="",
            quality=judged[first.name].value,
            metric=first.metric,
            file_bytes=count_file_bytes(model),
            num_params=count_params(model),
        )


def _try_next(study: optuna.Study, plans: Sequence[Plan], attempt: _Attempt, most: int) -> None:
    """Ask for a trial, and try it if it is this process's to try."""
    trial = study.ask()
    # The same whichever process asks, and another for each trial.
    seed = attempt.config.seed + trial.number
    study.sampler = _sampler(attempt.config.sampler, seed)
    point = None
    try:
        point = trials.draw(trial, plans)
        if not trials.claim(study, trial, point, most=most):
            trials.drop(study, trial)
            if is_finite(plans):
                # However often the same is drawn again, in the end all is tried.
                trials.enqueue(study, trials.unseen(study, plans, seed=seed))
            return
        candidate = attempt(point)
    except _OF_THE_SETTINGS as error:
        trials.fail(study, trial, str(error))
    except BaseException:
        # Ctrl-C, a full disk, a process that was killed: whoever goes on tries it again.
        trials.hand_back(study, trial.number, point)
        raise
    else:
        trials.finish(study, trial, candidate)


def _sampler(name: Sampler, seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(seed=seed) if name == "tpe" else optuna.samplers.RandomSampler(seed=seed)
