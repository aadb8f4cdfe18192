from __future__ import annotations

import pytest

from compress.errors import BaselineError, CompressError
from compress.gate.checks import Status
from compress.gate.judge import RECORDED_LOOKS
from compress.gate.limits import Limit
from compress.pytest_plugin.gate_session import GateSession
from tests.gate.samples import PROVENANCE, latency, memory, params

SLOW, CLOSE, FAST = 1.5, 1.0, 0.5
LIMIT = Limit(metric="cpu_latency_ms", max_ratio=1.0)


@pytest.fixture
def session(tmp_path):
    """A run of the gate that has not judged anything yet."""
    return GateSession(folder=tmp_path, provenance=PROVENANCE)


def check(session, measurements, limit):
    """Check a metric whose measurements come in this order; the verdict, and how many were taken."""
    queue = list(measurements)
    verdict = session.check(lambda: queue.pop(0), recipe="structured", limit=limit, baseline=None)
    return verdict, len(measurements) - len(queue)


@pytest.mark.parametrize(
    ("ratios", "status", "taken"),
    [
        ([FAST, SLOW], Status.PASSED, 1),
        ([SLOW, SLOW], Status.REGRESSED, 2),
        ([CLOSE, SLOW], Status.INCONCLUSIVE, 2),
        ([SLOW, CLOSE], Status.INCONCLUSIVE, 2),
        ([CLOSE, CLOSE], Status.INCONCLUSIVE, 2),
        ([CLOSE, FAST], Status.PASSED, 2),
        ([SLOW, FAST], Status.PASSED, 2),
    ],
)
def test_a_time_regresses_only_if_it_does_twice(session, ratios, status, taken):
    """What does not pass is measured once more, and no more than that; only twice beyond the limit is regressed."""
    measurements = [latency(ratio, seed=seed) for seed, ratio in enumerate(ratios)]
    verdict, count = check(session, measurements, LIMIT)
    assert (verdict.status, count) == (status, taken)


def test_two_measurements_of_a_time_count_together(session):
    """Every check leaves one verdict, on the pairs of both measurements, process by process."""
    verdict, _ = check(session, [latency(CLOSE), latency(SLOW)], LIMIT)
    assert session.verdicts == [verdict]
    assert verdict.measurement.runs == (latency(CLOSE).pairs, latency(SLOW).pairs)
    assert verdict.measurement.ratio == pytest.approx((CLOSE * SLOW) ** 0.5, rel=0.01)
    assert any("only the second of two measurements" in note for note in verdict.notes)


@pytest.mark.parametrize(("measurement", "looks"), [(latency(FAST), RECORDED_LOOKS), (params(), 1)])
def test_a_time_that_is_recorded_is_measured_more_often(session, measurement, looks):
    """Every later run is held against it, and all its processes share the error that is left; a count has none."""
    session.recording = True
    verdict, count = check(session, [measurement] * (looks + 1), None)
    assert count == looks
    assert verdict.measurement.pairs == measurement.pairs * looks


@pytest.mark.parametrize(
    ("measurement", "limit"),
    [
        (params(), Limit(metric="num_params", max_ratio=0.5)),
        (memory(), Limit(metric="cpu_peak_bytes", max_ratio=0.5)),
    ],
)
def test_what_is_no_time_is_measured_once(session, measurement, limit):
    """Counts and peaks come out the same again, so a second look at them would only cost time."""
    verdict, count = check(session, [measurement, measurement], limit)
    assert (verdict.status, count) == (Status.REGRESSED, 1)


def test_the_baseline_is_the_one_asked_for(session, tmp_path):
    """True means the workload's own, a name means that one, None means no comparison."""
    check(session, [params()], None)
    session.record("digits")
    session.record("other")
    assert session.load_baseline("digits") is None
    for compare, workload, file in ((True, "digits", "digits.json"), ("other", "digits", "other.json")):
        session.compare = compare
        assert session.load_baseline(workload).path == tmp_path / file


def test_a_missing_baseline_is_an_error(session, tmp_path):
    """Comparing with nothing must not look like a comparison that held."""
    session.compare = "absent"
    with pytest.raises(BaselineError, match=str(tmp_path / "absent.json")):
        session.load_baseline("digits")


def test_data_of_another_hash_compares_with_nothing(session):
    """The hash of the data that this run measured on goes into every comparison."""
    check(session, [params()], None)
    session.record("digits")
    session.compare = True
    baseline = session.load_baseline("digits")
    statuses = []
    for other in (False, True):
        if other:
            session.provenance = None
        statuses.append(session.check(params, recipe="structured", limit=None, baseline=baseline).status)
    assert statuses == [Status.PASSED, Status.NOT_MEASURED]


def test_recording_nothing_is_refused(tmp_path):
    """A run without provenance judged nothing, so there is nothing to write."""
    with pytest.raises(CompressError, match="nothing was measured"):
        GateSession(folder=tmp_path).record("digits")
    assert list(tmp_path.iterdir()) == []


def test_recording_keeps_recipes_apart(session):
    """Each recipe's measurements go under its own name."""
    for recipe in ("structured", "unstructured"):
        session.check(params, recipe=recipe, limit=None, baseline=None)
    session.record("digits")
    session.compare = "digits"
    baseline = session.load_baseline("digits")
    assert set(baseline.recipes) == {"structured", "unstructured"}


def test_what_another_process_judged_is_held_against_the_same_baseline(session):
    """What it tells leaves the baseline out, which this one has too; without one it is heard all the same."""
    check(session, [params()], None)
    session.record("digits")
    session.compare = "digits"
    baseline = session.load_baseline("digits")
    session.check(params, recipe="structured", limit=None, baseline=baseline, node_id="t")
    for compare, expected in (("digits", baseline), (None, None), ("absent", None)):
        other = GateSession(folder=session.folder, compare=compare)
        other.hear("t", session.tell("t"))
        assert [verdict.baseline for verdict in other.verdicts] == [expected]


def test_the_report_shows_what_was_judged(session, tmp_path):
    """The Markdown names the workload, the recipe and the metric."""
    check(session, [params()], None)
    session.write_markdown(tmp_path / "table.md")
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    for part in ("workload: digits", "structured", "parameters", "4,089,523"):
        assert part in text
