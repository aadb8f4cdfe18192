"""A run at another size needs no labels where it makes the same calls with the same channels."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.calling.inputs import inputs_of
from compress.channels.sketch import is_alike, is_cut_alike, sketch
from compress.channels.trace import retrace, trace
from compress.channels.view import View
from compress.errors import ModelError
from compress.pruning.structured import apply_plan, plan_pruning
from tests.nets import Net, conv, head, lively

X = torch.randn(1, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def heads(n: Net, x: Tensor) -> Tensor:
    """Channels in 4 heads, each scaled by what the positions make of it."""
    x = n.a(x).flatten(2).transpose(1, 2)
    split = x.reshape(*x.shape[:2], 4, -1)
    return n.h(torch.relu(split * split.sum(1, keepdim=True)).flatten(2).mean(1))


def mixed(n: Net, x: Tensor) -> Tensor:
    """Rows of channels read as maps of positions."""
    x = n.a(x)
    return n.h((x + x.flatten(2).transpose(1, 2).reshape(x.shape)).mean((2, 3)))


def picked(n: Net, x: Tensor) -> Tensor:
    """As many channels as there are rows are taken twice."""
    x = n.a(x)
    return n.h(torch.cat([x[:, : x.shape[2]], x[:, x.shape[2] :]], 1).mean((2, 3)))


def resized(n: Net, x: Tensor) -> Tensor:
    """Heads behind an image made as large as another one."""
    return heads(n, functional.interpolate(x[..., ::2, ::2], x.shape[-2:]))


def net(forward) -> nn.Module:
    """A convolution of 32 channels and a head."""
    return lively(Net(forward, a=conv(3, 32), h=head(32))).eval()


def at(size: int, batch: int = 2) -> View:
    """Other images."""
    return View(example=inputs_of(torch.randn(batch, 3, size, size).double()))


@pytest.mark.parametrize(("forward", "alike"), [(heads, True), (resized, True), (mixed, False), (picked, False)])
def test_labels_go_alike_where_channels_are_taken_apart_alike(forward, alike):
    """More or fewer positions change nothing, unless they say which channels are picked, or how those are factored."""
    model = net(forward)
    found = trace(model, inputs_of(X))
    assert is_alike(found.seen, sketch(model, at(6), writes=False).lines) is alike
    assert is_alike(found.seen, sketch(model, at(4, batch=1), writes=False).lines)


def test_a_cut_network_is_like_the_uncut_one_at_another_size():
    """Its channels are as many as at the first size; a network cut otherwise is another."""
    model = net(heads)
    found = trace(model, inputs_of(X))
    small, smaller = (apply_plan(model, plan_pruning(model, X, ratio)) for ratio in (0.25, 0.5))
    steps = retrace(small, found.slots, found).steps
    dense, now, other = (sketch(one, at(6), writes=False) for one in (model, small, smaller))
    assert is_cut_alike(steps, found.seen, dense, now, [])
    assert not is_cut_alike(steps, found.seen, dense, other, [])


def test_what_does_not_run_is_an_error():
    """In one sentence."""
    with pytest.raises(ModelError, match="the forward pass at another size failed"):
        sketch(net(lambda n, x: n.a(x.flatten())), at(6), writes=False)
