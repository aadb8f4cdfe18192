from __future__ import annotations

import threading

import pytest

from compress.errors import BaselineError
from compress.gate.lock import locked


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_lock_keeps_others_out(tmp_path):
    """Of many writers never two are inside at once, and beside the file nothing is left."""
    target = tmp_path / "folder" / "file.json"
    target.parent.mkdir()
    inside, most, entered = 0, 0, 0
    counting = threading.Lock()
    start = threading.Barrier(6)

    def enter():
        nonlocal inside, most, entered
        start.wait()
        for _ in range(20):
            with locked(target):
                with counting:
                    inside += 1
                    entered += 1
                    most = max(most, inside)
                with counting:
                    inside -= 1

    threads = [threading.Thread(target=enter) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, entered) == (1, 120)
    assert list(target.parent.iterdir()) == []


def test_two_files_do_not_wait_for_each_other(tmp_path):
    """A lock is of one file; by whatever way it is named."""
    with locked(tmp_path / "one.json"), locked(tmp_path / "other.json"):
        pass


def test_failure_inside_frees_the_lock(tmp_path):
    """Whatever happens to its holder, the next one gets in."""
    target = tmp_path / "file.json"
    with pytest.raises(RuntimeError, match="inside"), locked(target):
        raise RuntimeError("inside")
    with locked(target):
        pass


def test_a_cache_that_cannot_be_made_is_an_error(tmp_path, monkeypatch):
    """Without a lock nothing is written."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(BaselineError, match="cannot make the cache folder"), locked(tmp_path / "file.json"):
        pass
