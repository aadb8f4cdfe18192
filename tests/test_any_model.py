"""Every entry point takes any model, or refuses it in one sentence before it does anything."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import compress
from compress.errors import ModelError
from compress.train import FitConfig

X = torch.linspace(-1, 1, 32 * 3 * 64).reshape(32, 3, 8, 8)


def net() -> nn.Sequential:
    """A convolution with a norm, and a classifier."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    return nn.Sequential(*layers).eval()


def fitted(model, _path):
    """The model after one epoch."""
    images = (X * 100).to(torch.uint8), torch.arange(32) % 4
    data = compress.from_tensors("few", train=images, test=images)
    config = FitConfig(epochs=1, batch_size=8, validation_fraction=0)
    return compress.fit(model, data, config, progress=False, device="cpu").model


def reloaded(model, path):
    """The model out of its file."""
    compress.save(model, path / "m.safetensors")
    return compress.load(path / "m.safetensors", net)


STEPS = {
    "prune_weights": lambda model, _: compress.prune_weights(model, 0.3),
    "prune_channels": lambda model, _: compress.prune_channels(model, X[:1], 0.3),
    "recalibrate": lambda model, _: compress.recalibrate(model, [X]),
    "quantize": lambda model, _: compress.quantize(model, X, max_accuracy_drop=1.0),
    "factorize": lambda model, _: compress.factorize(
        model, X[:1], compress.LowRankConfig(by="ratio", target=0.5), progress=False
    ),
    "to_half": lambda model, _: compress.to_half(model),
    "fit": fitted,
    "save": reloaded,
    "export": lambda model, path: compress.save(model, path / "m.pt2", X[:2]),
}
every_step = pytest.mark.parametrize("step", STEPS)


@every_step
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda: net().to("meta"), "must have its weights .*'0.weight' is on the meta device"),
        (lambda: torch.jit.script(net()), r"must not be scripted: \w+ the original"),
        (lambda: nn.Sequential(nn.LazyConv2d(8, 3), nn.Flatten(), nn.LazyLinear(4)), "lazy layers must be initialized"),
        (lambda: "a path", "must be a torch.nn.Module, got str"),
    ],
)
@pytest.mark.filterwarnings("ignore:`torch.jit.script`", "ignore:Lazy modules")
def test_what_is_no_model_of_its_own_is_refused(step, damage, message, tmp_path):
    """Without weights, without code, or without shapes there is nothing to work on."""
    with pytest.raises(ModelError, match=message):
        STEPS[step](damage(), tmp_path)


@every_step
def test_a_model_that_cannot_be_copied_is_refused(step, tmp_path):
    """The message says what in it is in the way."""
    model = net()
    model[0].guard = threading.Lock()
    with pytest.raises(ModelError, match=r"cannot be copied: .*layer '0'"):
        STEPS[step](model, tmp_path)


@every_step
@pytest.mark.filterwarnings("ignore:this CPU has no VNNI")
def test_a_model_under_masks_of_torch_is_taken_or_refused(step, tmp_path):
    """What cuts or rewrites layers asks for permanent masks; all else works, and leaves the given masks."""
    model = net()
    prune.l1_unstructured(model[5], "weight", 0.5)
    zero = (model[5].weight == 0).clone()
    if step in {"prune_channels", "factorize"}:
        with pytest.raises(ModelError, match=r"make masks permanent|masks must be made permanent"):
            STEPS[step](model, tmp_path)
    else:
        result = STEPS[step](model, tmp_path)
        if isinstance(result, nn.Sequential):
            result(X)
            assert bool((result[5].weight == 0)[zero].all())
    assert prune.is_pruned(model)


class Restless(nn.Module):
    """It normalizes its input, in place if told so, adds noise, and keeps what it saw."""

    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.net, self.in_place = net(), in_place
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        x = x.sub_(0.5).div_(0.25) if self.in_place else (x - 0.5) / 0.25
        self.calls += 1
        self.last = x.mean()
        noise = torch.randn_like(x) + random.random() + np.random.random()  # noqa: S311, NPY002 - as networks do
        return self.net(input=x + 0.001 * noise)


def pruned(importance, **settings):
    """One way to prune."""

    def step(model, x, batches):
        options = compress.PruneOptions(batches=batches, **settings)
        ratio = None if settings else 0.3
        return compress.prune_channels(model, x, pruning_ratio=ratio, importance=importance, options=options)

    return step


LOOKS = {
    "l1": pruned("l1"),
    "taylor": pruned("taylor"),
    "activation": pruned("activation"),
    "obs": pruned("obs"),
    "max_macs": pruned("l1", max_macs=20_000),
    "budget": pruned("obs", max_macs=20_000, scope="budget"),
    "max_latency_ms": pruned("l1", max_latency_ms=1000.0),
    "recalibrate": lambda model, _, batches: compress.recalibrate(model, batches),
    "reconstruct": lambda model, x, batches: compress.reconstruct(
        compress.prune_channels(model, x, pruning_ratio=0.3), model, batches
    ),
    "factorize": lambda model, x, _: compress.factorize(model, x, HALF, progress=False),
    "factorize by data": lambda model, x, batches: compress.factorize(
        model, x, HALF, calibration=batches, progress=False
    ),
}
HALF = compress.LowRankConfig(by="ratio", target=0.5)


@pytest.mark.parametrize("look", LOOKS)
def test_whatever_a_forward_pass_does_what_was_given_stays(look):
    """The model, inputs, and the random state; and a model that writes into its inputs becomes what another does."""
    made = []
    for in_place in (False, True):
        model = Restless(in_place=in_place).eval()
        batches = [X.clone(), X.flip(0)]
        example = X[:1].clone()
        torch.manual_seed(1)
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
        made.append(LOOKS[look](model, example, batches))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert random.getstate() == before[1]
        assert np.array_equal(np.random.get_state()[1], before[2])  # noqa: NPY002
        assert torch.equal(example, X[:1])
        assert torch.equal(batches[0], X)
        assert torch.equal(batches[1], X.flip(0))
        assert float(model.calls) == 0
        assert not hasattr(model, "last")
    first, second = (dict(one.named_parameters()) for one in made)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
