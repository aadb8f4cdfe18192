from __future__ import annotations

import io

from rich.progress import Progress

from compress.system.progress import stderr_console, track, working


def look_at(monkeypatch):
    """A stderr that a user looks at; put in its place by the test itself, for pytest has one of its own until then."""
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    return stream


def test_a_bar_within_a_bar_is_on_the_same_console(monkeypatch):
    """A shown bar stands before stderr: what asks for the console then still gets the one that the bar is on."""
    look_at(monkeypatch)
    with Progress(console=stderr_console()) as bar:
        assert stderr_console() is bar.console


def test_what_knows_its_length_need_not_be_told(monkeypatch):
    """A list is counted to its end; an iterator where it is said how long it is."""
    terminal = look_at(monkeypatch)
    assert list(track([1, 2], "counting", shown=True)) == [1, 2]
    assert list(track(iter([1, 2]), "counting", total=2, shown=True)) == [1, 2]
    assert terminal.getvalue().count("100%") >= 2


def test_nothing_is_shown_unless_asked_for(monkeypatch):
    """Nor where stderr is no terminal."""
    terminal = look_at(monkeypatch)
    with working("compiling", shown=False):
        assert list(track([1], "counting", shown=False)) == [1]
    assert terminal.getvalue() == ""
    terminal.isatty = lambda: False
    with working("compiling", shown=True):
        assert list(track([1], "counting", shown=True)) == [1]
    assert terminal.getvalue() == ""
