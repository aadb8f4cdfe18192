from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from compress.report.pareto import Candidate, Failure, dominated, on_front

POINTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), max_size=12)


def candidate(error: float, size: float, ratio: float | None) -> Candidate:
    """A model with these three costs."""
    return Candidate(recipe="r", quality=error, file_bytes=size, num_params=1, latency_ratio=ratio)


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], []),
        ([(1.0, 2.0)], [False]),
        ([(1.0, 2.0), (2.0, 1.0)], [False, False]),
        ([(1.0, 2.0), (1.0, 3.0)], [False, True]),
        ([(1.0, 1.0), (1.0, 1.0)], [False, False]),
        ([(1.0, 5.0), (2.0, 2.0), (3.0, 3.0)], [False, False, True]),
    ],
)
def test_who_is_dominated(points, expected):
    """Worse in one and no better in any is dominated; equal points are not."""
    assert dominated(points) == expected


@given(POINTS)
def test_the_rest_dominates_every_dominated_point(points):
    """Whoever is dominated is so by one that is not: nothing is lost by looking at those alone."""
    beaten = dominated(points)
    best = [point for point, lost in zip(points, beaten, strict=True) if not lost]
    assert bool(best) == bool(points)
    for point, lost in zip(points, beaten, strict=True):
        if lost:
            assert any(all(a <= b for a, b in zip(other, point, strict=True)) for other in best)


def test_without_a_time_nobody_is_on_the_front():
    """What was not timed beats nobody, and is not called best."""
    models = [candidate(0.1, 10, 0.5), candidate(0.05, 5, None), candidate(0.2, 20, 0.6), candidate(0.2, 5, 0.6)]
    assert on_front(models) == [True, False, False, True]


def test_labels():
    """A recipe alone is a seed, settings follow a colon."""
    seed = candidate(0.1, 1, 1.0)
    assert (seed.label, seed.is_seed) == ("r", True)
    settings = {"fit.epochs": 3, "prune_weights.scope": "layer"}
    trial = Failure(recipe="r", settings=settings, reason="no")
    assert trial.label == "r: fit.epochs=3, prune_weights.scope=layer"
