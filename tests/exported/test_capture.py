from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.errors import ModelError
from compress.exported import capture
from tests.workloads import tiny_net


@pytest.mark.parametrize("example", [1, 3])
def test_the_batch_is_free_whatever_the_example(example):
    """A graph captured with any number of inputs runs on any number."""
    model = tiny_net().eval()
    graph = capture(model, torch.randn(example, 3, 8, 8)).module(check_guards=False)
    with torch.no_grad():
        for count in (1, 2, 7):
            images = torch.randn(count, 3, 8, 8)
            assert graph(images).equal(model(images))


def test_the_batch_is_fixed_where_that_is_asked_for():
    """No size in the graph is left open."""
    program = capture(tiny_net().eval(), torch.zeros(1, 3, 8, 8), fixed=True)
    assert program.range_constraints == {}


class Two(nn.Module):
    """Works for two inputs."""

    def forward(self, x):
        return x.view(2, -1)


class Values(nn.Module):
    """Goes one way or the other, by what it sees."""

    def forward(self, x):
        return x if x.mean() > 0 else -x


class Wrong(nn.Module):
    """Fails on anything."""

    def forward(self, x):
        return x @ torch.zeros(17, 2)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Two(), "^Two cannot be exported: its code fixes the batch size$"),
        (Values(), r"^Values cannot be exported: .*test_capture\.py, line \d+: return x if x\.mean\(\) > 0 else -x\)$"),
        (Wrong(), r"^Wrong cannot be exported: .*test_capture\.py, line \d+: return x @ torch\.zeros\(17, 2\)\)$"),
    ],
)
def test_what_cannot_be_captured_is_said_with_its_line(model, message):
    """One sentence: the reason, and the line of the model's own code."""
    with pytest.raises(ModelError, match=message) as caught:
        capture(model, torch.ones(1, 6))
    assert "\n" not in str(caught.value)
