from __future__ import annotations

import functools
import itertools
import statistics

import pytest
import torch

from compress.calling import pairs
from compress.calling.pairs import pinned_threads, ratio_of


def timer(times):
    """Tells these times, one at each call."""
    return functools.partial(next, iter(times))


def test_pairs_alternate_their_order():
    """Dense first, compressed first, dense first, ...; and every pair holds the dense one's time first."""
    called = []

    def called_as(name, milliseconds):
        called.append(name)
        return milliseconds + len(called)

    dense, compressed = functools.partial(called_as, "dense", 10.0), functools.partial(called_as, "compressed", 20.0)
    taken = pairs.take_pairs(dense, compressed, 3)
    assert called == ["dense", "compressed", "compressed", "dense", "dense", "compressed"]
    assert taken == ((11.0, 22.0), (14.0, 23.0), (15.0, 26.0))


def test_a_drifting_clock_favours_neither():
    """Of equal models on a machine that slows down steadily, the median ratio is 1 where a fixed order's is not."""
    clock = timer(map(float, itertools.count(100)))
    taken = pairs.take_pairs(clock, clock, 30)
    assert statistics.median(b / a for a, b in taken) == pytest.approx(1.0, abs=5e-4)
    assert statistics.median(b / a for a, b in zip(range(100, 160, 2), range(101, 160, 2), strict=True)) > 1.005


def test_a_call_is_timed_in_milliseconds(monkeypatch):
    """The host's clock tells seconds, figures are milliseconds."""
    monkeypatch.setattr(pairs.time, "perf_counter", itertools.count(0, 0.25).__next__)
    assert pairs.elapsed_ms(lambda: None) == pytest.approx(250.0)


def test_the_ratio_is_the_median_over_pairs():
    """One disturbed pair says nothing."""
    assert ratio_of([(2.0, 1.0), (4.0, 2.0), (1.0, 50.0)]) == 0.5


def test_threads_are_given_back():
    """As many as before, after an error too."""
    before = torch.get_num_threads()

    def fail() -> None:
        with pinned_threads(before + 1):
            assert torch.get_num_threads() == before + 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == before
