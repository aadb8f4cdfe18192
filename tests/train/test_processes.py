from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from compress.errors import ConfigError
from compress.train import FitConfig, fit
from compress.train.processes import Processes, alone

# What each of two processes runs: weights that differ at first, a run that is interrupted, its resumption, a whole one;
# then the same with a teacher.
SCRIPT = """
import dataclasses, hashlib, json, os, sys
from pathlib import Path
import torch
from torch import nn
from compress.data import from_tensors
from compress.errors import ConfigError
from compress.train import FitConfig, fit

torch.set_num_threads(1)
rank, folder = int(os.environ["RANK"]), Path(sys.argv[1])
generator = torch.Generator().manual_seed(0)

def split(count):
    labels = torch.arange(count) % 3
    images = torch.randint(0, 200, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    images[torch.arange(count), labels] += 25
    return images, labels

class Stopping:
    def __init__(self, split, calls):
        self.split, self.calls = split, calls
        self.labels, self.num_classes = split.labels, split.num_classes
    def __len__(self):
        return len(self.split)
    def subset(self, indices):
        return Stopping(self.split.subset(indices), self.calls)
    def batches(self, batch_size, *, training=False, **settings):
        if training:
            self.calls -= 1
            if self.calls < 0:
                raise KeyboardInterrupt
        return self.split.batches(batch_size, training=training, **settings)

def digest(model):
    state = model.state_dict()
    return hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in sorted(state))).hexdigest()

data = from_tensors("bright", train=split(61), test=split(9))
torch.manual_seed(rank)
net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(144, 3))
net.register_buffer("mask", torch.ones(3, dtype=torch.bool))
config = FitConfig(epochs=3, batch_size=16, learning_rate=0.05, validation_fraction=0.2, autocast="off")
results = [fit(net, data, config, progress=rank == 1)]
try:
    fit(net, dataclasses.replace(data, train=Stopping(data.train, 2)), config, checkpoint=folder / "run")
except KeyboardInterrupt:
    pass
results.append(fit(net, data, config, checkpoint=folder / "run"))
teacher = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))
try:
    stopping = dataclasses.replace(data, train=Stopping(data.train, 2))
    fit(net, stopping, config, teacher=teacher, checkpoint=folder / "run", progress=False)
except KeyboardInterrupt:
    pass
results.append(fit(net, data, config, teacher=teacher, checkpoint=folder / "run", progress=False))
results.append(fit(net, data, config, teacher=teacher, progress=False))
try:
    fit(net, data, dataclasses.replace(config, batch_size=15))
    refused = ""
except ConfigError as error:
    refused = str(error)
report = {
    "digests": [digest(result.model) for result in results],
    "histories": [[str(record) for record in result.history] for result in results],
    "refused": refused,
    "left": (folder / "run").exists(),
}
(folder / f"rank{rank}.json").write_text(json.dumps(report))
"""


def test_two_processes_end_with_the_same_bits(tmp_path):
    """Under torchrun all ranks return the same weights and buffers, also with a teacher, and also after a resume."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[2]
    finished = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script, tmp_path],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first["digests"][0] == first["digests"][1]
    assert first["histories"][0] == first["histories"][1]
    assert first["digests"][2] == first["digests"][3] != first["digests"][0]
    assert first["refused"] == "batch_size must be a multiple of the number of processes, got 15 for 2"
    assert not first["left"]


def test_torchruns_environment_without_a_group_is_one_process(net, data, monkeypatch):
    """A world of one process forms no group: nothing needs an address to meet at."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    config = FitConfig(epochs=1, batch_size=16, learning_rate=0.05, autocast="off")
    fit(net, data, config, progress=False)
    assert not torch.distributed.is_initialized()


def test_a_batch_smaller_than_the_world_is_refused():
    """The number of processes must divide the batch size; none would get an example otherwise."""
    with pytest.raises(ConfigError, match="a multiple of the number of processes, got 2 for 4"):
        Processes(0, 4, torch.device("cpu")).share_of(2)


def test_a_lone_process_agrees_with_itself():
    """Without others, sums are the values themselves and nothing is waited for."""
    processes = alone(torch.device("cpu"))
    assert processes.agree(3)
    assert processes.total(torch.tensor(5)).item() == 5
    processes.wait()
