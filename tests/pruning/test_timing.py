from __future__ import annotations

import torch
from torch import nn

from compress.calling.inputs import Inputs
from compress.pruning.timing import paired_latency


class Counting(nn.Module):
    """Notes each call, and whether it was one without gradients in eval mode."""

    def __init__(self, name: str, calls: list[str]) -> None:
        super().__init__()
        self.name, self.calls = name, calls

    def forward(self, x: torch.Tensor, *, scale: float) -> torch.Tensor:
        assert torch.is_inference_mode_enabled()
        assert not self.training
        self.calls.append(self.name)
        return x * scale


def test_models_are_called_in_turn_the_order_alternating():
    """After a warm-up dense and compressed alternate in who is first, and every pair holds times of both."""
    calls: list[str] = []
    small, large = Counting("small", calls), Counting("large", calls)
    pairs = paired_latency(small, large, Inputs(args=(torch.zeros(2),), kwargs={"scale": 2.0}))
    assert 15 <= len(pairs) <= 200
    timed = calls[-2 * len(pairs) :]
    assert timed[:8] == ["large", "small", "small", "large"] * 2
    assert all(first > 0 and second > 0 for first, second in pairs)
