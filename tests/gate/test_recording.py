from __future__ import annotations

import dataclasses
import errno
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import compress
from compress.errors import BaselineError
from compress.gate.baseline import load_baseline
from compress.gate.recording import Provenance, record
from compress.results import Environment, Measurement
from tests.gate.samples import DEVICE, ENVIRONMENT, IDENTITY, PROVENANCE, bits, latency, memory, params, top1

EXPECTED = """\
{
  "data_sha256": "0123456789ab0000000000000000000000000000000000000000000000000000",
  "environments": {
    "cpu-avx2-1t": {
      "cpu": "Test CPU",
      "python": "3.11.9",
      "torch": "2.15.0"
    }
  },
  "models": {
    "structured": {
      "built_on": "cpu-avx2-1t",
      "compressed": "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc",
      "dense": "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd",
      "recipe": "5555555555555555555555555555555555555555555555555555555555555555"
    }
  },
  "num_examples": 10,
  "recipes": {
    "structured": {
      "cpu_latency_ms": {
        "cpu-avx2-1t": {
          "compressed": 4.1,
          "dense": 5.25,
          "ratio": 0.781,
          "ratio_interval": [
            0.781,
            0.781
          ]
        }
      },
      "cpu_peak_bytes": {
        "cpu-avx2-1t": {
          "compressed": 46980096,
          "dense": 58659840
        }
      },
      "num_params": {
        "compressed": 4089523,
        "dense": 6402564
      },
      "top1_error": {
        "compressed": 0.2,
        "correct": "n8A=",
        "dense": 0.1,
        "dense_correct": "v8A="
      }
    }
  },
  "schema": 4,
  "workload": "digits"
}
"""


MODELS = {"structured": IDENTITY}


def timed(dense=5.251, compressed=4.1011):
    """A time whose pairs are all the same."""
    pairs = ((dense, compressed),) * 8
    return Measurement(metric="cpu_latency_ms", dense=dense, compressed=compressed, device=DEVICE, pairs=pairs)


def run(*measurements, recipe="structured"):
    """One recipe's measurements."""
    return {recipe: measurements}


@pytest.fixture
def path(tmp_path):
    """Where the file will be, in a folder that does not exist yet."""
    return tmp_path / "baselines" / "digits.json"


def test_file_is_sorted_rounded_and_indented(path):
    """The file is exactly what a reviewer should see, and its folder is made."""
    provenance = dataclasses.replace(PROVENANCE, num_examples=10)
    recorded = record(
        path, run(timed(), memory(), top1([1], [1, 2], 10), params()), provenance=provenance, models=MODELS
    )
    assert path.read_text() == EXPECTED
    assert recorded.changed
    assert recorded.replaced is None


def test_recording_twice_changes_nothing(path):
    """The same measurements give the same bytes, and the file is not touched."""
    measured = run(params(), memory(), latency(), top1([1], [2, 3]))
    record(path, measured, provenance=PROVENANCE)
    before, written = path.read_bytes(), path.stat().st_mtime_ns
    assert not record(path, measured, provenance=PROVENANCE).changed
    assert path.read_bytes() == before
    assert path.stat().st_mtime_ns == written


def test_other_times_change_their_lines_only(path):
    """When only the clock differs, only lines of times differ."""
    others = (params(), memory(), top1([1], [2, 3]))
    record(path, run(timed(), *others), provenance=PROVENANCE)
    before = path.read_text().splitlines()
    record(path, run(timed(5.5, 4.9), *others), provenance=PROVENANCE)
    after = path.read_text().splitlines()
    assert len(before) == len(after)
    changed = [new.strip() for old, new in zip(before, after, strict=True) if old != new]
    assert changed == ['"compressed": 4.9,', '"dense": 5.5,', '"ratio": 0.891,', "0.891,", "0.891"]


def test_memory_within_a_kibibyte_changes_nothing(path):
    """Some bytes more or less do not show up in a review."""
    record(path, run(memory(46_980_000)), provenance=PROVENANCE)
    assert not record(path, run(memory(46_980_200)), provenance=PROVENANCE).changed


def test_other_recipes_metrics_and_devices_are_kept(path):
    """A recording adds to what others recorded, of other recipes, metrics and machines."""
    record(path, run(params(), latency()), provenance=PROVENANCE)
    record(path, run(params(5), recipe="lowrank"), provenance=PROVENANCE)
    other = Environment(python="3.12.1", torch="2.15.0", cpu="Other CPU", cpu_class="cpu-avx512-2t")
    record(
        path,
        run(latency(0.5, device="cpu-avx512-2t"), memory()),
        provenance=dataclasses.replace(PROVENANCE, environment=other),
    )
    baseline = load_baseline(path)
    assert sorted(baseline.entries("structured", "cpu_latency_ms")) == [DEVICE, "cpu-avx512-2t"]
    assert baseline.entries("structured", "num_params")[""].compressed == 4_089_523
    assert baseline.entries("lowrank", "num_params")[""].compressed == 5
    assert sorted(baseline.entries("structured", "cpu_peak_bytes")) == [DEVICE]
    assert baseline.environments == {DEVICE: ENVIRONMENT, "cpu-avx512-2t": other}


def test_other_test_data_replaces_everything_and_says_so(path):
    """Numbers of another test set are dropped, aloud."""
    record(path, run(params(), memory()), provenance=PROVENANCE)
    other = dataclasses.replace(PROVENANCE, data_sha256="f" * 64)
    recorded = record(path, run(params(7), recipe="lowrank"), provenance=other)
    assert recorded.replaced == (
        f"{path} was recorded on other test data (sha256 0123456789ab, now ffffffffffff), "
        "so everything in it was replaced"
    )
    assert list(load_baseline(path).recipes) == ["lowrank"]


def test_other_number_of_examples_replaces_everything_and_says_so(path):
    """Single results of another number of examples do not compare."""
    record(path, run(top1([1], [2])), provenance=PROVENANCE)
    fewer = dataclasses.replace(PROVENANCE, num_examples=100)
    recorded = record(path, run(params()), provenance=fewer)
    assert recorded.replaced == (f"{path} was recorded on 500 test examples, now 100, so everything in it was replaced")


def test_other_workload_is_refused(path):
    """One file holds one workload."""
    record(path, run(params()), provenance=PROVENANCE)
    before = path.read_bytes()
    with pytest.raises(BaselineError, match="one workload, got 'cifar100' for that of 'digits'"):
        record(path, run(params()), provenance=dataclasses.replace(PROVENANCE, workload="cifar100"))
    assert path.read_bytes() == before


def test_damaged_file_is_never_overwritten(path):
    """What cannot be read is left for a person to look at."""
    path.parent.mkdir()
    path.write_text("{ broken")
    with pytest.raises(BaselineError, match="not valid JSON"):
        record(path, run(params()), provenance=PROVENANCE)
    assert path.read_text() == "{ broken"


def test_unmeasured_metrics_are_skipped_and_named(path):
    """What has no value is not recorded, and the caller learns why."""
    missing = Measurement(metric="cuda_latency_ms", unmeasured="there is no CUDA device")
    recorded = record(path, run(params(), missing), provenance=PROVENANCE)
    assert recorded.skipped == (("structured", "cuda_latency_ms", "there is no CUDA device"),)
    assert load_baseline(path).entries("structured", "cuda_latency_ms") == {}


def test_nothing_measured_is_no_baseline(path):
    """A run that measured nothing leaves no file that would look like one."""
    missing = Measurement(metric="cuda_latency_ms", unmeasured="there is no CUDA device")
    with pytest.raises(BaselineError, match="at least one measured metric, got none"):
        record(path, run(missing), provenance=PROVENANCE)
    assert not path.exists()


@pytest.mark.parametrize(
    ("measurement", "said"),
    [
        (params(math.nan), "a value must be a number of 0 or more to be recorded, got nan"),
        (params(-1), "a value must be a number of 0 or more to be recorded, got -1"),
        (Measurement(metric="macs", dense=1.0), "a value must be a number of 0 or more to be recorded, got None"),
        (memory(device=""), "cpu_peak_bytes must state its class of device, got ''"),
        (dataclasses.replace(params(), device=DEVICE), "num_params holds on every device, got 'cpu-avx2-1t'"),
        (dataclasses.replace(timed(), pairs=()), "cpu_latency_ms is recorded from pairs of times, got none"),
        (dataclasses.replace(timed(), pairs=((0.0, 1.0),)), "a time must be a positive number to be recorded"),
        (top1([], [], n=400), "the results of 400 examples in 50 bytes are not those of 500"),
        (
            dataclasses.replace(top1([], [], n=400), num_examples=500),
            "the results of 500 examples in 50 bytes are not those of 500",
        ),
        (
            Measurement(metric="top1_error", dense=22.9, compressed=0.2),
            "an error must be in [0, 1] to be recorded, got 22.9",
        ),
        (Measurement(metric="watts", dense=1, compressed=1), "metric 'watts' is unknown, known are num_params"),
    ],
)
def test_impossible_value_is_refused_before_anything_is_written(path, measurement, said):
    """A run that is wrong in one value records none."""
    with pytest.raises(BaselineError) as caught:
        record(path, run(params(), measurement), provenance=PROVENANCE)
    assert str(caught.value).startswith(said)
    assert str(caught.value).endswith(f"({path}, recipes.structured.{measurement.metric})")
    assert not path.exists()


def test_padding_bits_do_not_change_the_file(path):
    """Only the bits of examples are kept, so that the same results are the same text."""
    measured = top1([], [1])
    padded = measured.correct[1][:-1] + bytes([measured.correct[1][-1] | 0x0F])
    record(path, run(measured), provenance=PROVENANCE)
    assert padded != measured.correct[1]
    again = dataclasses.replace(measured, correct=(measured.correct[0], padded))
    assert not record(path, run(again), provenance=PROVENANCE).changed


def test_error_without_single_results_is_recorded_without_them(path):
    """Single results are optional."""
    record(path, run(dataclasses.replace(top1([1], [2]), correct=None)), provenance=PROVENANCE)
    assert load_baseline(path).entries("structured", "top1_error")[""].correct is None


def test_full_disk_leaves_the_old_file(path, monkeypatch):
    """If writing fails, the file is as it was, nothing lies beside it, and one sentence says what happened."""
    record(path, run(params()), provenance=PROVENANCE)
    before = path.read_bytes()

    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BaselineError, match="No space left on device"):
        record(path, run(params(1)), provenance=PROVENANCE)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_folder_that_cannot_be_made(tmp_path):
    """A file in place of the folder is said in one sentence."""
    (tmp_path / "baselines").write_text("")
    path = tmp_path / "baselines" / "digits.json"
    with pytest.raises(BaselineError, match=r"^cannot record a baseline: File exists \(.*digits.json\)$"):
        record(path, run(params()), provenance=PROVENANCE)


def test_link_stays_a_link(path, tmp_path):
    """A baseline kept elsewhere is replaced there."""
    record(path, run(params()), provenance=PROVENANCE)
    link = tmp_path / "link.json"
    link.symlink_to(path)
    record(link, run(params(1)), provenance=PROVENANCE)
    assert link.is_symlink()
    assert load_baseline(path).entries("structured", "num_params")[""].compressed == 1


def test_recordings_at_once_do_not_lose_one_another(path):
    """Of many recordings at the same moment each one's recipe is in the file, and no lock file stays."""
    failures = []
    start = threading.Barrier(8)

    def one(number):
        try:
            start.wait()
            record(path, run(params(number), recipe=f"recipe{number}"), provenance=PROVENANCE)
        except Exception as error:  # noqa: BLE001 - a thread's exception would be lost
            failures.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(load_baseline(path).recipes) == [f"recipe{number}" for number in range(8)]
    assert list(path.parent.iterdir()) == [path]


RECORDER = """
import sys
from pathlib import Path
from compress.gate.recording import Provenance, record
from compress.results import Environment, Measurement

where = Environment(python="3", torch="2", cpu="c", cpu_class="cpu-x")
provenance = Provenance(workload="digits", data_sha256="0", num_examples=8, environment=where)
path, worker = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for number in range(10):
    measured = Measurement(metric="num_params", dense=2, compressed=1)
    record(path, {f"recipe-{worker}-{number}": [measured]}, provenance=provenance)
"""


def test_processes_that_record_at_once_do_not_lose_one_another(path):
    """As of jobs that share a folder: all that each of them recorded is in the file."""
    root = Path(compress.__file__).parents[1]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", RECORDER, str(path), str(worker)],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for worker in range(3)
    ]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        worker.communicate()
    assert [worker.returncode for worker in workers] == [0] * 3
    expected = {f"recipe-{worker}-{number}" for worker in range(3) for number in range(10)}
    assert set(load_baseline(path).recipes) == expected
    assert list(path.parent.iterdir()) == [path]


def test_provenance_without_graphics_card_has_no_empty_lines(path):
    """Only what is known of the machine is written."""
    provenance = Provenance(workload="digits", data_sha256="a", num_examples=8, environment=ENVIRONMENT)
    record(path, run(params()), provenance=provenance)
    assert "gpu" not in path.read_text()
    assert bits([], 8) == b"\xff"
