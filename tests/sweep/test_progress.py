from __future__ import annotations

import io

import pytest

from compress.report.pareto import Candidate, Failure
from compress.sweep.progress import sweep_progress
from compress.system.progress import track

ONE = Candidate(recipe="cut", quality=0.02, file_bytes=16e6, num_params=4e6, latency_ratio=0.8)
OTHER = Failure(recipe="cut", settings={"fit.epochs": 9}, reason="the loss is no number")


class Terminal(io.StringIO):
    """A stderr that a user looks at."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def stderr(monkeypatch):
    """Puts a stream in the place of stderr, as a fresh process would see it."""

    def put(stream: io.StringIO) -> io.StringIO:
        monkeypatch.setattr("sys.stderr", stream)
        monkeypatch.setenv("TERM", "xterm-256color")
        return stream

    return put


def test_a_line_for_each_model_that_is_new(stderr):
    """What the study held before is counted, what comes is described once, whoever made it and in whatever order."""
    stream = stderr(io.StringIO())
    with sweep_progress(total=3, shown=True) as shown:
        shown.begin([ONE])
        shown.update([ONE])
        shown.update([OTHER, ONE])
        shown.update([OTHER, ONE])
    assert stream.getvalue().splitlines() == [
        "the study holds 1 models already",
        "2: cut: fit.epochs=9: failed: the loss is no number",
    ]


def test_nothing_is_shown_unless_asked_for(stderr):
    """Not even that there is something already."""
    stream = stderr(Terminal())
    with sweep_progress(total=3, shown=False) as shown:
        shown.begin([ONE])
        shown.update([ONE, OTHER])
    assert stream.getvalue() == ""


def test_a_bar_within_the_bar(stderr):
    """On a terminal the sweep's bar stays, and below it the bar of what a trial is doing."""
    stream = stderr(Terminal())
    with sweep_progress(total=3, shown=True) as shown:
        shown.begin([])
        for _ in track(range(2), total=2, description="evaluating", shown=True):
            pass
        shown.update([ONE])
    text = stream.getvalue()
    assert "1: cut: top-1 error 2.00 %, 16.0 MB, 4,000,000 parameters, time x0.800" in text
    assert "sweep" in text
    assert "evaluating" in text
    assert text.index("sweep") < text.index("evaluating")
