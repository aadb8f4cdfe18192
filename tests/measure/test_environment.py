from __future__ import annotations

import platform

import torch

from compress.measure.environment import environment
from compress.system.cpu import cpu_class, cpu_name


def test_versions_are_those_of_this_process():
    """Python and torch are named as they run here, the processor as it calls itself and by its class."""
    here = environment(3)
    assert (here.python, here.torch) == (platform.python_version(), torch.__version__)
    assert (here.cpu, here.cpu_class) == (cpu_name(), cpu_class(3))


def test_a_cuda_device_is_named_by_its_compute_capability(monkeypatch):
    """``cuda-sm90`` and the device's own name, as torch tells them."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    assert (environment(1).cuda_class, environment(1).gpu) == ("cuda-sm90", "NVIDIA H100")


def test_without_a_cuda_device_there_is_no_class_of_it(monkeypatch):
    """None, not an empty string or another device's name."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (environment(1).cuda_class, environment(1).gpu) == (None, None)
