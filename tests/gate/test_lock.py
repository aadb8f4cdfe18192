from __future__ import annotations

import fcntl
import threading

import pytest

from compress.gate.lock import locked


def test_lock_keeps_others_out(tmp_path):
    """Of many writers never two are inside at once, though each removes the lock file behind itself."""
    target = tmp_path / "file.json"
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
    assert list(tmp_path.iterdir()) == []


def test_failure_inside_frees_the_lock(tmp_path):
    """Whatever happens to its holder, the next one gets in."""
    target = tmp_path / "file.json"
    with pytest.raises(RuntimeError, match="inside"), locked(target):
        raise RuntimeError("inside")
    with locked(target):
        assert (tmp_path / ".file.json.lock").exists()
    assert list(tmp_path.iterdir()) == []


def test_lock_on_a_removed_file_is_tried_again(tmp_path, monkeypatch):
    """Who waited for a holder that removed its lock file locks the file that others will see, not the removed one."""
    lock = tmp_path / ".file.json.lock"
    calls = []

    def flock(descriptor, operation):
        calls.append(operation)
        if len(calls) == 1:
            lock.unlink()
        real(descriptor, operation)

    real = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path / "file.json"):
        assert lock.exists()
    assert calls == [fcntl.LOCK_EX, fcntl.LOCK_EX]


def test_lock_file_left_by_a_killed_process_is_harmless(tmp_path):
    """A lock belongs to a process, not to the file that it left behind."""
    (tmp_path / ".file.json.lock").touch()
    with locked(tmp_path / "file.json"):
        pass
    assert list(tmp_path.iterdir()) == []
