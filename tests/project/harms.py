"""One way for each metric to make a net worse."""

from __future__ import annotations

import os

import torch
from torch import nn


def num_params_(model: nn.Module) -> None:
    """A buffer becomes a parameter; nothing else changes, not even the file's size."""
    spare = model.spare
    del model.spare
    model.spare = nn.Parameter(spare)


def num_nonzero_params_(model: nn.Module) -> None:
    """Where pruning left zeros there is a little of something again."""
    weight = model.classifier.weight.data
    weight[weight == 0] = 1e-6


def macs_(model: nn.Module) -> None:
    """A product that nobody uses."""
    model.detours = 1


def file_bytes_(model: nn.Module) -> None:
    """More to write down."""
    model.remark = "remarkable " * 200


def compressed_file_bytes_(model: nn.Module) -> None:
    """As many bytes, and harder to pack."""
    model.spare.copy_(torch.rand(model.spare.shape, generator=torch.Generator().manual_seed(0)))


def top1_error_(model: nn.Module) -> None:
    """Two classes are mistaken for one another; both stay among the five likeliest."""
    rows = model.classifier.weight.data
    rows[[0, 1]] = rows[[1, 0]]


def top5_error_(model: nn.Module) -> None:
    """The true class is the least likely of six."""
    model.classifier.weight.data.neg_()


def cpu_peak_bytes_(model: nn.Module) -> None:
    """Four times the memory while it runs."""
    model.scratch_mebibytes = 32


def peak_tensor_bytes_(model: nn.Module) -> None:
    """A mebibyte more of tensors while it runs."""
    model.scratch_mebibytes += 1


def cpu_latency_ms_(model: nn.Module) -> None:
    """It sleeps, which no profiler counts as work."""
    model.seconds_of_sleep = 0.01


def cpu_time_ms_(model: nn.Module) -> None:
    """It works for many times as long."""
    model.rounds_of_work = 3


def nan_(model: nn.Module) -> None:
    """It puts out no numbers."""
    model.classifier.bias.data.fill_(torch.nan)


def harmed(model: nn.Module) -> nn.Module:
    """``model`` after the harm that the environment variable HARM names, if any."""
    name = os.environ.get("HARM")
    if name:
        globals()[f"{name}_"](model)
    return model
