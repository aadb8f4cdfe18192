"""A fake of NVIDIA's module answers in place of the driver."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace

import pytest

from compress.measure.nvml import GpuState, gpu_state, load_nvml


class NVMLError(Exception):
    """NVML's own error."""


def nvml(*, pids=(1,), reasons=0, broken=""):
    """A driver with one GPU on which these processes compute; the function called ``broken`` fails."""
    asked = []

    def answer(name, value):
        def call(*args):
            asked.append((name, *args))
            if name == broken:
                raise NVMLError("driver not loaded")
            return value

        return call

    answers = {
        "nvmlInit": None,
        "nvmlShutdown": None,
        "nvmlDeviceGetHandleByUUID": "handle",
        "nvmlDeviceGetCurrentClocksThrottleReasons": reasons,
        "nvmlDeviceGetEnforcedPowerLimit": 700_000,
        "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=pid) for pid in pids],
    }
    module = SimpleNamespace(**{name: answer(name, value) for name, value in answers.items()})
    clocks = {"sm": 1980, "memory": 2619}
    module.nvmlDeviceGetClockInfo = lambda _handle, kind: clocks[kind]
    module.NVML_CLOCK_SM, module.NVML_CLOCK_MEM, module.NVMLError = "sm", "memory", NVMLError
    module.asked = asked
    return module


def test_a_gpu_s_state_is_read_by_its_uuid():
    """Clocks in MHz, the cap in watts; a UUID as torch gives it lacks the prefix that NVML wants."""
    module = nvml()
    assert gpu_state(module, "1234-abcd") == GpuState(
        sm_clock_mhz=1980.0, memory_clock_mhz=2619.0, power_limit_w=700.0, slowed_by=(), num_others=0
    )
    assert ("nvmlDeviceGetHandleByUUID", "GPU-1234-abcd") in module.asked
    assert module.asked[-1] == ("nvmlShutdown",)


@pytest.mark.parametrize("uuid", ["GPU-1", "MIG-1"])
def test_a_uuid_with_its_prefix_stays(uuid):
    """Of a GPU or of a part of one."""
    module = nvml()
    gpu_state(module, uuid)
    assert ("nvmlDeviceGetHandleByUUID", uuid) in module.asked


@pytest.mark.parametrize(("pids", "others"), [((), 0), ((7,), 0), ((7, 7), 0), ((7, 8), 1), ((7, 8, 9), 2)])
def test_one_of_the_processes_is_this_one(pids, others):
    """Under whatever number the driver knows it; some drivers list nobody to a container."""
    assert gpu_state(nvml(pids=pids), "1").num_others == others


def test_reasons_are_put_into_words():
    """Every bit that holds clocks down has a name; being idle is none of them."""
    assert gpu_state(nvml(reasons=0x01), "1").slowed_by == ()
    assert gpu_state(nvml(reasons=0x44), "1").slowed_by == ("power cap", "hardware thermal slow-down")


@pytest.mark.parametrize("broken", ["nvmlInit", "nvmlDeviceGetHandleByUUID"])
def test_a_driver_that_does_not_answer_is_quoted(broken):
    """No driver, or a GPU it does not know: the state is the reason why there is none."""
    assert gpu_state(nvml(broken=broken), "1") == "NVML does not answer: driver not loaded"


def test_without_the_library_there_is_no_module(monkeypatch):
    """It is optional."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert load_nvml() is None


def test_the_library_has_what_is_asked_of_it():
    """The names used here are NVIDIA's own, where its module is installed."""
    pynvml = pytest.importorskip("pynvml")
    names = [name for name, _ in vars(nvml()).items() if name != "asked"]
    assert [name for name in names if not hasattr(pynvml, name)] == []
    assert load_nvml() is importlib.import_module("pynvml")
