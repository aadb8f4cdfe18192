from __future__ import annotations

from types import SimpleNamespace

from compress.gate.checks import precise_enough
from compress.pytest_plugin.benchmarking import Looks
from compress.pytest_plugin.run import RUN


def test_each_pair_of_models_has_a_test_s_time_of_its_own():
    """A second look at the same models takes what is left; other models, or these the other way round, begin anew."""
    looks = Looks(
        SimpleNamespace(stash={RUN: SimpleNamespace(settings=SimpleNamespace(seconds=20.0), recording=False)})
    )
    dense, compressed = object(), object()
    first = looks.effort(compressed, dense)
    assert (first.seconds, first.enough) == (10.0, precise_enough)
    assert looks.effort(compressed, dense).enough is None
    assert looks.effort(dense, compressed).enough is precise_enough
    assert looks.effort(object(), dense).seconds == 10.0
