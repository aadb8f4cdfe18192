from __future__ import annotations

import importlib.metadata
import json
import platform

import pytest
import torch

from compress.commands import doctor
from compress.commands.cli import main
from compress.measure import memory
from compress.selfcheck.quiet import Quietness
from compress.system.cpu import cpu_class

QUIET = Quietness(latency_ms=2.0, ratio=1.0, low=0.999, high=1.001, processes=((0.998, 1.002),), bound=1.025)
NOISY = Quietness(latency_ms=2.0, ratio=1.1, low=0.9, high=1.2, processes=((0.9, 1.2),), bound=1.025)


def test_what_is_here_is_shown(capsys):
    """Versions, the class of the processor, and a line for whatever can be measured or not."""
    assert main(["doctor", "--no-timing"]) == 0
    text = capsys.readouterr().out
    assert f"torch                {torch.__version__.partition('+')[0]}" in text
    assert cpu_class(1) in text
    assert ("yes  CUDA time and memory" in text) == torch.cuda.is_available()
    assert "timing" not in text


def test_a_machine_is_told_in_json(capsys):
    """One object, whatever is missing."""
    assert main(["doctor", "--no-timing", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["versions"]["python"] == platform.python_version()
    assert told["machine"]["cpu_class"] == cpu_class(1)
    assert {"what", "works", "note"} == set(told["abilities"][0])
    assert told["timing"] is None


@pytest.mark.parametrize(("quiet", "status", "word"), [(QUIET, 0, "\nQuiet enough"), (NOISY, 3, "NOT quiet enough")])
def test_the_status_says_whether_times_can_be_held(monkeypatch, capsys, quiet, status, word):
    """A script can ask a machine before it measures on it."""
    monkeypatch.setattr(doctor, "_quietness", lambda *_: quiet)
    assert main(["doctor"]) == status
    assert word in capsys.readouterr().out
    assert main(["doctor", "--json"]) == status
    assert json.loads(capsys.readouterr().out)["timing"]["quiet"] is (status == 0)


def test_what_is_missing_is_named_with_how_to_get_it(monkeypatch, capsys):
    """An extra that is not installed, a compiler that is not there, a system that cannot measure memory."""
    real = importlib.metadata.version

    def version(name):
        if name == "torchao":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(
        importlib.metadata, "requires", lambda _: ['torchao>=0.18; extra == "quantization"', "torch>=2.11"]
    )
    monkeypatch.setattr(doctor, "_compiler", lambda: None)
    monkeypatch.setattr(memory, "why_no_cpu_memory", lambda: "this system has none")
    assert main(["doctor", "--no-timing"]) == 0
    text = capsys.readouterr().out
    assert "NO   int8: lacks torchao>=0.18: pip install 'pytest-compress[quantization]'" in text
    assert "NO   runtimes inductor, aotinductor: no C++ compiler" in text
    assert "NO   CPU memory: this system has none" in text
