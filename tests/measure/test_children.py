"""Real processes: a few, for each takes seconds to start."""

from __future__ import annotations

import functools
import importlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from compress.errors import MeasureError
from compress.measure import children, latency, memory
from compress.measure.children import Children, Conditions, RebuildError, importable_name, saved
from compress.pruning.structured import prune_channels
from tests.workloads import tiny_net

FAILED = "the child process that measures time failed"

# Lies where only this process's import path leads: a child finds it by that path alone.
NETS = """
import os
import signal
import subprocess
import time

from torch import nn


class Net(nn.Module):
    def __init__(self, ending):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.ending = ending

    def forward(self, x):
        print("a model may print what it likes")
        if self.ending == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.ending == "hangs":
            # With a process of its own, as a compiler has.
            subprocess.run(["sleep", "600"])
        if self.ending == "fails":
            raise ValueError("cannot run")
        if self.ending == "slow":
            time.sleep(0.002)
        return self.layer(x)


def net(ending=""):
    return Net(ending)


def failing(ending=""):
    raise OSError("no such weights")


class Home:
    net = staticmethod(lambda: Net(""))
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """A module of networks that a fresh process can import."""
    (tmp_path / "timed_nets.py").write_text(NETS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timed_nets", raising=False)
    return importlib.import_module("timed_nets")


@pytest.fixture
def clean(tmp_path, monkeypatch):
    """Whatever is started and written meanwhile must be gone afterwards."""
    started = []

    class Watched(subprocess.Popen):
        def __init__(self, *args, **settings) -> None:
            super().__init__(*args, **settings)
            started.append(self.pid)

    monkeypatch.setattr(subprocess, "Popen", Watched)
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield
    assert started
    assert [pid for pid in started if _is_running_in_group(pid)] == []
    assert list(folder.iterdir()) == []


def _is_running_in_group(group: int) -> bool:
    """Whether any process of that group is left, zombies aside."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, process_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(process_group) == group and state != "Z":
            return True
    return False


def conditions(nets, ending="", **changes):
    """The module's network."""
    settings = {"model_factory": nets.net, "model_args": {"ending": ending}, "example_input": torch.zeros(1, 4)}
    return Conditions(**{**settings, **changes})


@pytest.mark.usefixtures("clean")
def test_several_processes_measure_a_pair_of_models_and_then_another(nets):
    """Two processes rebuild both models, time them in turn, and serve the next pair too; then they are gone.

    The next pair is one model twice, with the known slow-down of a self-check: a real delay of every call.
    """
    slow, quick = nets.net("slow"), nets.net()
    effort = latency.Effort(seconds=0.0)
    with Children(2) as processes:
        measured = latency.cpu_latency(quick, slow, conditions(nets), effort=effort, children=processes)
        pids = [child.process.pid for child in processes._children]
        models = {"dense": slow, "compressed": slow}
        again = latency.runs_in(processes, models, conditions(nets), effort, slowdown=0.5)
        assert [child.process.pid for child in processes._children] == pids
    assert [len(run) for run in measured.runs] == [len(run) for run in again] == [30, 30]
    assert measured.notes == ()
    assert min(dense for dense, _ in measured.pairs) > 2 > measured.compressed
    assert min(compressed for run in again for _, compressed in run) >= 3


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    ("ending", "said"),
    [
        ("killed", r"was killed by signal 9, as when memory runs out"),
        ("hangs", r"was stopped after 2 s"),
    ],
)
def test_a_process_that_comes_to_grief_is_no_measurement(nets, monkeypatch, ending, said):
    """Killed or hanging: it is said how, nothing is measured, and neither process nor file is left."""
    monkeypatch.setattr(children, "TIMEOUT_S", 2 if ending == "hangs" else 300)
    model = nets.net(ending)
    with Children(1) as processes, pytest.raises(MeasureError) as caught:
        latency.cpu_latency(
            model, model, conditions(nets, ending), effort=latency.Effort(seconds=0.0), children=processes
        )
    assert re.fullmatch(f"the child process that measures time {said}", str(caught.value))
    assert processes._children == []


class Unable(Children):
    """Processes that answer every request like this."""

    def __init__(self, error):
        super().__init__(3)
        self.error = error

    def load(self, _request):
        raise self.error


def test_models_that_no_fresh_process_can_rebuild_are_measured_here_and_a_note_says_so():
    """A factory that fails elsewhere costs the fresh processes, not the measurement."""
    model, effort = tiny_net(), latency.Effort(seconds=0.0)
    known = Conditions(model_factory=tiny_net, example_input=torch.zeros(1, 3, 8, 8))
    unable = Unable(RebuildError(f"{FAILED}: OSError: no such weights"))
    measured = latency.cpu_latency(model, model, known, effort=effort, children=unable)
    assert [len(run) for run in measured.runs] == [30]
    assert measured.notes == (f"measured in this process instead of 3 fresh ones: {FAILED}: OSError: no such weights",)
    with pytest.raises(MeasureError, match="cannot run"):
        latency.cpu_latency(model, model, known, effort=effort, children=Unable(MeasureError("cannot run")))


@pytest.mark.parametrize("make", [lambda _: lambda: None, lambda _: functools.partial(tiny_net), lambda n: n.Home.net])
def test_a_factory_without_a_name_is_measured_here_and_no_process_started(nets, make):
    """A lambda, a partial or a member of a class has no name to import it by."""
    model, unnamed = tiny_net(), Conditions(model_factory=make(nets), example_input=torch.zeros(1, 3, 8, 8))
    with pytest.raises(RebuildError, match=r"^model_factory must be a function that a fresh process can import by its"):
        importable_name(unnamed.model_factory)
    with Children(3) as processes:
        measured = latency.cpu_latency(model, model, unnamed, effort=latency.Effort(seconds=0.0), children=processes)
        assert processes._children == []
    assert measured.notes[0].startswith("measured in this process instead of 3 fresh ones: model_factory must be")


def test_a_script_s_own_function_is_no_other_process_s(monkeypatch):
    """What is called __main__ here is something else in every other process."""
    monkeypatch.setattr(tiny_net, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "tiny_net", tiny_net, raising=False)
    with pytest.raises(RebuildError):
        importable_name(tiny_net)


def test_a_child_ends_with_its_parent(tmp_path):
    """However the parent ends, its children do, though nobody is left to close them and their input stays open."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'compress.measure.child'], start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(children.__file__).parents[2])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, script], env=environment, **pipes) as parent:
        child = int(parent.stdout.readline())
        # Once it answers, it has also asked to end with its parent.
        parent.stdin.write(b'{"do": "what it cannot"}\n')
        parent.stdin.flush()
        assert b"KeyError" in parent.stdout.readline()
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        for _ in range(400):
            if not _is_running_in_group(child):
                return
            time.sleep(0.05)
    pytest.fail("the child has outlived its parent")


def test_what_a_child_needs_is_on_disk_for_a_while(tmp_path, monkeypatch):
    """Both models, the example input with its values, and the names to rebuild them by; then nothing is left."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model, cut = tiny_net(), prune_channels(tiny_net(), torch.zeros(1, 3, 8, 8), 0.4)
    example = torch.arange(192.0).reshape(1, 3, 8, 8).to(memory_format=torch.channels_last)
    laid_out = Conditions(model_factory=tiny_net, model_args={"width": 5}, example_input=example, runtime="inductor")
    with saved({"dense": model.to(memory_format=torch.channels_last), "compressed": cut}, laid_out) as request:
        files = [Path(request[role]) for role in ("dense", "compressed", "inputs")]
        assert all(file.is_file() for file in files)
        assert request["factory"] == "tests.workloads:tiny_net"
        assert (request["args"], request["runtime"]) == ({"width": 5}, "inductor")
        assert (request["channels_last"], request["channels_last_inputs"]) == (["dense"], [0])
    assert list(tmp_path.glob("compress-measure-*")) == []


@pytest.mark.nightly  # a package is compiled, as the gate on the digits does several times
def test_a_runtime_that_compiles_ahead_needs_no_factory(tmp_path, monkeypatch):
    """A fresh process loads the package that was made here, once for all that is measured of the model."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model, example = tiny_net().eval(), torch.randn(1, 3, 8, 8)
    ahead = Conditions(model_factory=lambda: None, example_input=example, runtime="aotinductor")
    with Children(1) as fresh:
        effort = latency.Effort(seconds=0.0)
        measured = latency.cpu_latency(model, model, ahead, effort=effort, children=fresh)
        package = ahead.packages[model]
        assert len(measured.pairs) >= latency.MIN_PAIRS
        assert measured.notes == ()
        monkeypatch.setattr(children, "prepare", None)
        assert memory.measure_in_child(model, ahead)["process_peak_bytes"] > 0
        assert len(latency.cpu_time(model, model, ahead, children=fresh).pairs) == latency.MIN_PAIRS
    assert ahead.packages == {model: package}
    assert list(tmp_path.glob("compress-measure-*")) == []
