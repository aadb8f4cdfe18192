from __future__ import annotations

import torch
from torch import nn

from compress.macs import macs_of


def test_every_pass_counts_in_convolutions_and_matrix_products_alone():
    """Of two passes of two rows a linear layer's weights count four times; bias, norm and activation are free."""
    model = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.ReLU())

    def twice():
        model(torch.zeros(2, 3))
        model(torch.zeros(2, 3))

    assert macs_of(twice) == 2 * 2 * 3 * 5
    assert macs_of(lambda: nn.Conv2d(4, 6, 3, groups=2)(torch.zeros(1, 4, 5, 5))) == 6 * 2 * 3 * 3 * 3 * 3
    assert macs_of(lambda: None) == 0
