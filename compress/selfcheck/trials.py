"""Trials of the gate: the same model twice, one of the two slowed down by a known amount or by none.

Each trial is what a gated latency test does: fresh processes, pairs in turn, a second look where the first one does not
pass, all within the test's time. Its pairs go into a file as soon as they are taken, so that an interrupted self-check
goes on where it stopped, and so that other rules can be held against the very same samples.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from compress.calling.pairs import Pairs
from compress.errors import CompressError
from compress.gate.checks import Status, precise_enough
from compress.gate.judge import RECORDED_LOOKS
from compress.measure.children import Children, Conditions
from compress.measure.latency import looks, runs_in, time_measurement
from compress.results import Measurement
from compress.selfcheck.rates import recorded, status_against
from compress.selfcheck.trial import Trial

SLOWDOWNS = (0.02, 0.03, 0.05, 0.10)

_METRIC = "cpu_latency_ms"
# Ends with whoever started it, in whatever way that ends.
_BUSY = "import os; parent = os.getppid()\nwhile os.getppid() == parent: sum(range(100_000))"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a self-check measures; two of the same plan may share a file.

    Attributes:
        workload: whose model is measured.
        device: class of device, ``cpu-avx2-1t``.
        identical_trials: how many trials without a slow-down.
        slowed_trials: how many with each of :data:`SLOWDOWNS`.
        seconds: what a gated test may take.
        processes: fresh processes of each trial.
        busy: whether another process keeps a core busy all the while.
        seed: of the order of the trials.
    """

    workload: str
    device: str
    identical_trials: int = 200
    slowed_trials: int = 50
    seconds: float = 10.0
    processes: int = 3
    busy: bool = False
    seed: int = 0

    def order(self) -> list[float]:
        """The slow-down of each trial, shuffled, so that a machine's better hours favour none; the first have none."""
        slowed = [slowdown for slowdown in SLOWDOWNS for _ in range(self.slowed_trials)]
        trials = np.array([*slowed, *[0.0] * self.identical_trials])
        np.random.default_rng(self.seed).shuffle(trials)
        # What the first trial is compared with.
        return [*[0.0] * RECORDED_LOOKS, *trials.tolist()]


def run_trials(
    plan: Plan, model: nn.Module, conditions: Conditions, results: Path
) -> Iterator[tuple[int, Sequence[Trial]]]:
    """Take the trials of ``plan`` that are not in ``results`` yet, and add each to that file.

    Args:
        plan: how many of what.
        model: what is measured.
        conditions: how fresh processes find it.
        results: the file, begun if it is missing.

    Yields:
        How many trials there will be, and those there are so far.

    Raises:
        CompressError: if the file is of another plan or cannot be written, or a trial cannot be measured.
    """
    order = plan.order()
    trials = _begin(results, plan)
    yield len(order), trials
    with _neighbour(busy=plan.busy):
        for slowdown in order[len(trials) :]:
            trial = _take(plan, model, conditions, slowdown=slowdown, before=recorded(trials))
            _append(results, _to_json(trial))
            trials.append(trial)
            yield len(order), trials


def _take(
    plan: Plan, model: nn.Module, conditions: Conditions, *, slowdown: float, before: Measurement | None
) -> Trial:
    start = time.monotonic()
    efforts = looks(plan.seconds, precise_enough)
    models = {"dense": model, "compressed": model}

    def measure(children: Children) -> Measurement:
        runs = runs_in(children, models, conditions, next(efforts), slowdown=slowdown)
        return time_measurement(_METRIC, runs, plan.device)

    second = None
    with Children(plan.processes, threads=conditions.threads) as children:
        first = measure(children)
        if before is not None and status_against(before, first) is not Status.PASSED:
            second = measure(children)
    return Trial(slowdown=slowdown, first=first, second=second, seconds=round(time.monotonic() - start, 3))


@contextmanager
def _neighbour(*, busy: bool) -> Iterator[None]:
    """A process that keeps one core busy, if there is to be one."""
    if not busy:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", _BUSY])  # noqa: S603 - this interpreter, on a line of our own
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _begin(results: Path, plan: Plan) -> list[Trial]:
    """The trials in the file, which is made if there is none."""
    header = {"selfcheck": 1, **asdict(plan)}
    if not results.exists():
        _append(results, header)
        return []
    try:
        text = results.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CompressError(f"cannot read the results of a self-check: {error} ({results})") from error
    lines = text.splitlines(keepends=True)
    if not lines or _parse(lines[0], results, 1) != header:
        raise CompressError(
            f"the file of results belongs to another self-check; name another one with --results ({results})"
        )
    if not lines[-1].endswith("\n"):
        # It was interrupted while it wrote; that trial is taken again.
        lines.pop()
        results.write_text("".join(lines), encoding="utf-8")
    return [_from_json(_parse(line, results, i), plan, results, i) for i, line in enumerate(lines[1:], 2)]


def _append(results: Path, line: Mapping[str, Any]) -> None:
    try:
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, separators=(",", ":")) + "\n")
    except OSError as error:
        raise CompressError(f"cannot write the results of a self-check: {error.strerror} ({results})") from error


def _parse(line: str, results: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise CompressError(
            f"the results of a self-check must be one JSON object a line ({results}:{number})"
        ) from error


def _to_json(trial: Trial) -> dict[str, Any]:
    return {
        "slowdown": trial.slowdown,
        "first": _rounded(trial.first),
        "second": None if trial.second is None else _rounded(trial.second),
        "seconds": trial.seconds,
    }


def _rounded(measurement: Measurement) -> list[list[list[float]]]:
    """Each process's pairs, to the nanosecond."""
    return [[[round(time, 6) for time in pair] for pair in run] for run in measurement.runs]


def _from_json(line: Any, plan: Plan, results: Path, number: int) -> Trial:
    try:
        first = _measurement(line["first"], plan)
        second = None if line["second"] is None else _measurement(line["second"], plan)
        return Trial(slowdown=line["slowdown"], first=first, second=second, seconds=line["seconds"])
    except (KeyError, TypeError, ValueError) as error:
        raise CompressError(f"a line of the self-check's results is damaged: {error!r} ({results}:{number})") from error


def _measurement(runs: Any, plan: Plan) -> Measurement:
    pairs: list[Pairs] = [tuple((float(dense), float(compressed)) for dense, compressed in run) for run in runs]
    return replace(time_measurement(_METRIC, pairs, plan.device), info={})
