from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from compress.errors import BaselineError, ConfigError
from compress.gate.baseline import load_baseline
from compress.gate.checks import Status
from compress.gate.limits import Limit, parse_limits
from compress.gate.recording import record
from compress.quality.reductions import mean
from compress.results import METRICS, Kind, Measurement, Metric, Scores, Unit
from tests.gate.samples import IDENTITY, PROVENANCE, held

MIOU = Metric(
    name="miou", title="mean IoU", short="mean IoU", unit=Unit.FRACTION, kind=Kind.SCORE, tolerance=0.005,
    higher_is_better=True,
)  # fmt: skip
LOSS = Metric(name="loss", title="loss", short="loss", unit=Unit.NUMBER, kind=Kind.SCORE, tolerance=0.01)


def score(metric=MIOU, lost=0.0, *, n=500, noise=0.01, seed=0, only=1.0):
    """Two models of which the compressed one is worse by ``lost`` on a share ``only`` of the examples, and noise."""
    generator = np.random.default_rng(seed)
    dense = generator.uniform(0.6, 1.0, (n, 1))
    worse = lost * (generator.random((n, 1)) < only) + noise * generator.normal(size=(n, 1))
    compressed = dense - worse if metric.higher_is_better else dense + worse
    return Measurement(
        metric=metric.name,
        declared=metric,
        dense=float(dense.mean()),
        compressed=float(compressed.mean()),
        scores=Scores(dense=dense, compressed=compressed, reduce=mean),
        num_examples=n,
    )


def limit(metric=MIOU, **bounds):
    """A recipe's limit of it."""
    return parse_limits({metric.name: bounds}, where="r.toml", metrics={**METRICS, metric.name: metric})[metric.name]


def test_a_loss_within_the_margin_is_proven():
    """The text says by how much it may be worse."""
    verdict = held(score(lost=0.002), limit=limit(max_drop=0.01))
    assert verdict.status is Status.PASSED
    assert "proven: worse by at most 0." in verdict.checks[0].text
    assert verdict.checks[0].interval[0] < verdict.checks[0].interval[1] < 0


def test_a_loss_beyond_the_margin_has_regressed():
    """With its exact chance; of the other direction too."""
    verdict = held(score(lost=0.03), limit=limit(max_drop=0.01))
    assert verdict.status is Status.REGRESSED
    assert "at least dense - 1.00 pt" in verdict.checks[0].text
    assert "p = 0.0002" in verdict.checks[0].text
    assert held(score(LOSS, lost=0.1), limit=limit(LOSS, max_ratio=1.02)).status is Status.REGRESSED
    assert held(score(LOSS, lost=0.001), limit=limit(LOSS, max_ratio=1.02)).status is Status.PASSED


def test_a_loss_that_chance_explains_is_undecided():
    """Six examples cannot tell, whatever they show; the note says so."""
    verdict = held(score(lost=0.3, n=6, noise=0.1), limit=limit(max_drop=0.0))
    assert verdict.status is Status.INCONCLUSIVE
    assert (
        "6 examples cannot tell it from chance: the minimum detectable effect is out of their reach" in verdict.notes[0]
    )


def test_without_rows_the_margin_alone_decides():
    """And that is said."""
    bare = dataclasses.replace(score(lost=0.03), scores=None)
    verdict = held(bare, limit=limit(max_drop=0.01))
    assert verdict.status is Status.REGRESSED
    assert "held by its margin alone" in verdict.checks[0].notes[0]


def recorded(tmp_path, measurement, identity=IDENTITY):
    """A baseline of it."""
    path = tmp_path / "own.json"
    record(path, {"structured": [measurement]}, provenance=PROVENANCE, models={"structured": identity})
    return load_baseline(path)


@pytest.mark.parametrize("identity", [IDENTITY, dataclasses.replace(IDENTITY, dense="e" * 64, compressed="f" * 64)])
def test_rows_of_other_columns_are_not_compared(tmp_path, identity):
    """A quality that gives others than when it was recorded is held by its figure, and the note says so."""
    before = score(lost=0.01)
    wide = [np.concatenate([rows, rows**2], axis=1) for rows in (before.scores.dense, before.scores.compressed)]
    recorded_wide = dataclasses.replace(
        before, scores=dataclasses.replace(before.scores, dense=wide[0], compressed=wide[1])
    )
    baseline = recorded(tmp_path, recorded_wide, identity)
    verdict = held(before, baseline=baseline)
    assert verdict.status is Status.PASSED
    assert any("held by its margin alone" in note for note in verdict.notes)


def test_the_same_model_equals_its_baseline(tmp_path):
    """Rows rounded as they were kept differ in nothing, so that no chance is needed to explain it."""
    baseline = recorded(tmp_path, score(lost=0.01))
    entry = baseline.entries("structured", "miou")[""]
    assert entry.about == MIOU
    assert entry.scores[1] == pytest.approx(score(lost=0.01).scores.compressed, abs=1e-5)
    verdict = held(score(lost=0.01), baseline=baseline)
    assert verdict.status is Status.PASSED
    assert "+0.00 pt" in verdict.checks[0].text


def test_a_worse_model_of_the_same_fingerprint_is_found_by_its_baseline(tmp_path):
    """Beyond half a point, and chance does not explain it."""
    verdict = held(score(lost=0.03), baseline=recorded(tmp_path, score(lost=0.01)))
    assert verdict.status is Status.REGRESSED
    better = held(score(lost=-0.03), baseline=recorded(tmp_path, score(lost=0.01)))
    assert better.status is Status.PASSED
    assert better.checks[0].stale


def test_another_build_is_held_by_what_it_lost(tmp_path):
    """A dense model that is better by chance excuses nothing, and one that is worse costs nothing."""
    other = dataclasses.replace(IDENTITY, dense="e" * 64, compressed="f" * 64)
    baseline = recorded(tmp_path, score(lost=0.01))
    assert held(score(lost=0.01, seed=5), baseline=baseline, identity=other).status is Status.PASSED
    worse = held(score(lost=0.05, seed=5), baseline=baseline, identity=other)
    assert worse.status is Status.REGRESSED
    assert "over dense" in worse.checks[0].text


def test_rows_are_small_kept_beside_the_file_and_held_against_their_hash(tmp_path):
    """Recording again gives the same bytes; a changed file of rows is refused, and so is a missing one."""
    baseline = recorded(tmp_path, score(lost=0.01))
    rows = baseline.path.with_suffix(".npz")
    before = rows.read_bytes()
    assert len(before) < 20 * 500
    recorded(tmp_path, score(lost=0.01))
    assert rows.read_bytes() == before
    other = recorded(tmp_path / "other", score(lost=0.02)).path.with_suffix(".npz")
    rows.write_bytes(other.read_bytes())
    with pytest.raises(BaselineError, match="are not those of their baseline"):
        load_baseline(baseline.path)
    rows.unlink()
    with pytest.raises(BaselineError, match="lie beside it, and there is no such file"):
        load_baseline(baseline.path)
    assert load_baseline(baseline.path, rows=False).entries("structured", "miou")[""].scores is None


def test_rows_too_many_to_review_leave_their_hash_and_quantiles(tmp_path):
    """Forty noisy columns would take more than 20 bytes an example."""
    generator = np.random.default_rng(0)
    wide = Scores(dense=generator.normal(size=(500, 40)), compressed=generator.normal(size=(500, 40)), reduce=mean)
    measurement = dataclasses.replace(
        score(), scores=wide, dense=float(wide.dense[:, 0].mean()), compressed=float(wide.compressed[:, 0].mean())
    )
    baseline = recorded(tmp_path, measurement)
    entry = baseline.entries("structured", "miou")[""]
    assert entry.scores is None
    assert len(entry.rows_sha256) == 64
    assert entry.quantiles[1][2] == pytest.approx(float(np.median(wide.compressed[:, 0])), abs=1e-3)
    assert not baseline.path.with_suffix(".npz").exists()


@pytest.mark.parametrize(
    ("metric", "bounds", "message"),
    [
        (MIOU, {"max_increase": 0.1}, "of miou higher is better: it is limited by max_drop, got max_increase"),
        (LOSS, {"max_drop": 0.1}, "of loss lower is better: it is limited by max_increase, got max_drop"),
        (MIOU, {"max_drop": 1.5}, r"max_drop of the share miou must be in \[0, 1\)"),
        (MIOU, {}, "must state min_ratio or max_drop or build_tolerance"),
    ],
)
def test_a_bound_of_the_other_direction_is_refused(metric, bounds, message):
    """It would hold nothing."""
    with pytest.raises(ConfigError, match=message):
        limit(metric, **bounds)


def test_higher_counts_are_held_from_below():
    """Tokens a second may not fall: by a limit, and by a baseline with its tolerance."""
    speed = Metric(
        name="tokens", title="tokens", short="tokens", unit=Unit.COUNT, kind=Kind.EXACT, higher_is_better=True
    )
    measured = Measurement(metric="tokens", declared=speed, dense=100, compressed=90)
    bound = Limit(metric="tokens", declared=speed, min_ratio=0.95)
    verdict = held(measured, limit=bound)
    assert verdict.status is Status.REGRESSED
    assert "at least 0.95 x dense = 95" in verdict.checks[0].text
    assert "missed by 5" in verdict.checks[0].text
