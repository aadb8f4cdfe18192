from __future__ import annotations

import dataclasses

import pytest
import torch

from compress.device.connection import Device
from compress.device.measuring import _notes, remote_latency, remote_memory, request_for
from compress.errors import MeasureError
from compress.measure.children import Conditions
from compress.measure.latency import Effort
from compress.measure.memory import model_bytes
from compress.system.cpu import cpu_class
from tests.device.places import this_machine
from tests.workloads import tiny_net

pytest.importorskip("onnxruntime")

COOL = {"governor": None, "clock_mhz": None, "temperature_c": None, "throttled": None}


@pytest.fixture
def conditions(tiny_images):
    """The tiny network, run as a file."""
    return Conditions(model_factory=tiny_net, example_input=tiny_images[:1], runtime="onnxruntime", threads=1)


@pytest.fixture
def device():
    """A device that is this machine."""
    with Device(this_machine()) as device:
        yield device


def test_latency_is_taken_in_pairs_in_fresh_processes_there(device, conditions, tiny_dense, tiny_int8):
    """As many in each, under the class of the device."""
    measured = remote_latency(
        tiny_int8.model, tiny_dense, conditions, device=device, processes=2, effort=Effort(seconds=0.0)
    )
    assert measured.metric == "cpu_latency_ms"
    assert measured.run_lengths == (30, 30)
    assert measured.device == cpu_class(1)
    assert measured.dense > 0
    assert measured.compressed > 0


def test_the_files_go_there_once(device, conditions, tiny_dense, monkeypatch):
    """A second look at the same models sends nothing."""
    request_for(device, {"dense": tiny_dense, "compressed": tiny_dense}, conditions)
    monkeypatch.setattr("compress.measure.children.prepare", None)
    sent = dict.fromkeys(device._sent)
    assert len(sent) == 2
    again = request_for(device, {"model": tiny_dense}, conditions)
    assert again["model"] in sent
    assert device._sent == sent.keys()


def test_memory_is_that_of_the_tensors_and_of_a_forward_pass(device, conditions, tiny_dense, tiny_int8):
    """In a process for each model, whose whole resident set is told too."""
    measured = remote_memory(tiny_int8.model, tiny_dense, conditions, device=device)
    assert measured.dense >= model_bytes(tiny_dense)
    assert measured.device == cpu_class(1)
    assert measured.info["dense_resident_bytes"] > 10_000_000


def test_a_runtime_that_needs_pytorch_is_not_for_devices(device, conditions, tiny_dense):
    """What could not be measured is said."""
    with pytest.raises(
        MeasureError,
        match=r"^on a device models run under onnxruntime, openvino, executorch, but the recipe's runtime is 'eager'$",
    ):
        remote_memory(tiny_dense, tiny_dense, dataclasses.replace(conditions, runtime="eager"), device=device)


def test_a_model_that_does_not_run_there_is_one_sentence(device, conditions, tiny_dense):
    """And the device measures the next one."""
    named = request_for(device, {"model": tiny_dense}, conditions)
    broken = device.send(b"no model", ".onnx")
    with pytest.raises(MeasureError, match=r"^the device here could not measure: "):
        device.ask({"do": "memory", **named, "model": broken})
    assert "peak_delta_bytes" in device.ask({"do": "memory", **named})


@pytest.mark.parametrize("runtime", ["openvino", "executorch"])
def test_the_other_runtimes_measure_too(runtime, device, conditions, tiny_dense):
    """Where they are installed."""
    pytest.importorskip(runtime)
    there = dataclasses.replace(conditions, runtime=runtime)
    measured = remote_latency(tiny_dense, tiny_dense, there, device=device, processes=1, effort=Effort(seconds=0.0))
    assert measured.run_lengths == (30,)
    assert remote_memory(tiny_dense, tiny_dense, there, device=device).dense > 0


@pytest.mark.parametrize(
    ("before", "after", "note"),
    [
        ({}, {}, None),
        ({"throttled": 0}, {"throttled": 0x4}, "throttled while it was measured (get_throttled=0x4)"),
        ({"throttled": 0}, {"throttled": 0x50000}, "throttled while it was measured (get_throttled=0x50000)"),
        ({"throttled": 0x50000}, {"throttled": 0x50000}, None),
        ({"clock_mhz": 2400.0}, {"clock_mhz": 1500.0}, "clock fell from 2400 to 1500 MHz"),
        ({"clock_mhz": 2400.0}, {"clock_mhz": 2390.0}, None),
        ({}, {"governor": "ondemand"}, "governed by 'ondemand'"),
        ({}, {"governor": "performance"}, None),
    ],
)
def test_a_note_says_where_the_device_slowed_down(before, after, note):
    """Not where it had throttled at some time before."""
    notes = _notes(COOL | before, COOL | after)
    assert len(notes) == (note is not None)
    assert all(note in one for one in notes)


def test_a_time_there_is_a_time_here(device, conditions, tiny_dense):
    """The runner calls what this machine calls: both of a pair are the same model, and so the ratio is near 1."""
    measured = remote_latency(
        tiny_dense, tiny_dense, conditions, device=device, processes=1, effort=Effort(seconds=0.0)
    )
    assert torch.tensor(measured.pairs).shape == (30, 2)
