"""A user's workload: in every 8x8 image one of six rows shines, and a net of 202 parameters knows which."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

import compress

ROWS = 6


class Net(nn.Module):
    """A convolution, the mean of every row, a linear layer; its plain attributes make it slow, large or greedy."""

    def __init__(self) -> None:
        super().__init__()
        self.detours = 0
        self.rounds_of_work = 0
        self.seconds_of_sleep = 0.0
        self.scratch_mebibytes = 8
        self.remark = ""
        self.register_buffer("spare", torch.zeros(8))
        self.features = nn.Conv2d(1, 4, 1, bias=False)
        self.classifier = nn.Linear(32, ROWS)

    def forward(self, images: Tensor) -> Tensor:
        # So much that what else the process does with its memory disappears beside it.
        scratch = torch.ones(self.scratch_mebibytes << 18)
        for _ in range(self.rounds_of_work):
            scratch.sin()
        for _ in range(self.detours):
            images.flatten(1) @ images.flatten(1).T
        if self.seconds_of_sleep:
            time.sleep(self.seconds_of_sleep)
        return self.classifier(self.features(images).relu().mean(3).flatten(1))


def net() -> Net:
    """The trained net."""
    model = Net()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.features.weight.fill_(1.0)
        model.classifier.bias.zero_()
        model.classifier.weight.uniform_(1e-4, 1e-3, generator=generator)
        for row in range(ROWS):
            model.classifier.weight[row, row::8] = 1.0
    return model


def images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """``[count, 1, 8, 8]`` pixels, dark but for the row of the class, and ``[count]`` classes."""
    labels = torch.arange(count) % ROWS
    pixels = torch.zeros(count, 1, 8, 8, dtype=torch.uint8)
    light = torch.randint(100, 256, (count, 8), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    pixels[torch.arange(count), 0, labels] = light
    return pixels, labels


def workload() -> compress.Workload:
    """What ``--compress-workload=mine:workload`` names."""
    return compress.Workload(
        name="mine",
        model_factory=net,
        data=lambda: compress.from_tensors("rows", train=images(40, seed=1), test=images(40, seed=2)),
        example_input=torch.zeros(1, 1, 8, 8),
    )
