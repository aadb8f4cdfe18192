from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compress.measure.live_tensors import peak_live_bytes
from tests.workloads import tiny_net

X = torch.zeros(1, 256)  # a kibibyte of floats
KIB = 1024


class Net(nn.Module):
    """Without weights: does to its input what it is given."""

    def __init__(self, body) -> None:
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x)


def freed(x):
    """Each sum dies before the next one is made."""
    for _ in range(5):
        y = x + 1
        del y
    return x


BODIES = {
    "nothing is made": (lambda x: x, 1),
    "one is made": (lambda x: x + 1, 2),
    "what is freed counts no more": (freed, 2),
    "what is kept goes on counting": (lambda x: [x + i for i in range(5)], 6),
    "a view is no second tensor": (lambda x: (x + 1).view(-1).reshape(16, 16)[3:], 2),
    "in place nothing is made": (lambda x: (x + 1).relu_().mul_(2), 2),
    "an operation's several results count each": (torch.sort, 1 + 1 + 2),  # indices are twice as wide
    "a chain needs two at a time": (lambda x: (((x + 1) + 1) + 1) + 1, 3),
}


@pytest.mark.parametrize("name", BODIES)
def test_what_lives_at_once_is_counted(name):
    """In units of the input's own size."""
    body, expected = BODIES[name]
    assert peak_live_bytes(Net(body), X) == expected * KIB


def test_shared_weights_count_once():
    """Two layers of one weight hold one weight."""
    model = nn.Sequential(nn.Linear(256, 256, bias=False), nn.Linear(256, 256, bias=False))
    model[1].weight = model[0].weight
    assert peak_live_bytes(model, X) == 256 * KIB + 3 * KIB


@given(width=st.integers(1, 12), batch=st.integers(1, 4))
@settings(deadline=None, max_examples=20)
def test_the_same_model_gives_the_same_number(width, batch):
    """Three times over, to the byte; and it grows with the batch."""
    model, x = tiny_net(width=width).eval(), torch.zeros(batch, 3, 8, 8)
    peaks = {peak_live_bytes(model, x) for _ in range(3)}
    assert len(peaks) == 1
    assert peaks.pop() < peak_live_bytes(model, torch.zeros(batch + 1, 3, 8, 8))
