from __future__ import annotations

import dataclasses

import pytest
import torch

from compress.artifacts import artifact
from compress.errors import ConfigError
from compress.pruning.reconstruct import reconstruct, report_of
from compress.pruning.structured import prune_channels
from compress.recipe import load_recipe, run_recipe
from compress.recipe.context import Context
from compress.recipe.reconstruct_step import Reconstruct, apply_reconstruct
from compress.recipe.training_batches import TrainingBatches
from tests.workloads import tiny_net, tiny_workload


@pytest.fixture
def net():
    """The tiny network, sixteen channels wide, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return tiny_net(width=16).eval()


def test_the_step_fits_to_the_model_before_the_first_step(net, tmp_path):
    """On plain images of the training split, drawn by the seed."""
    workload = dataclasses.replace(tiny_workload(), model_args={"width": 16})
    context = Context(dense=net, workload=workload, checkpoint=tmp_path / "x.checkpoint", progress=False)
    small = prune_channels(net, workload.example_input, 0.5)
    mended = apply_reconstruct(Reconstruct(batches=2, batch_size=8, seed=3), small, context)
    batches = TrainingBatches(split=workload.dataset.train, batches=2, batch_size=8, seed=3)
    assert artifact.digest(mended) == artifact.digest(reconstruct(small, net, batches, seed=3))
    assert report_of(mended).examples == 16


def test_a_recipe_cuts_and_reconstructs(net, tmp_path):
    """Whether the cut was recalibrated makes no difference."""
    made = []
    for recalibration in (0, 2):
        path = tmp_path / f"mine{recalibration}.toml"
        path.write_text(
            f'[[steps]]\nuse = "prune_channels"\nrecalibration_batches = {recalibration}\nbatch_size = 8\n'
            '[[steps]]\nuse = "reconstruct"\nbatches = 2\nbatch_size = 8\n'
        )
        workload = dataclasses.replace(tiny_workload(), model_args={"width": 16})
        made.append(run_recipe(load_recipe(path), net, workload, progress=False))
    first, second = (dict(model.named_parameters()) for model in made)
    assert all(parameter.equal(second[name]) for name, parameter in first.items())


@pytest.mark.parametrize("name", ["batches", "batch_size"])
def test_counts_below_one_are_refused(name):
    """Before anything is trained."""
    with pytest.raises(ConfigError, match=rf"^{name} must be a whole number at least 1, got 0$"):
        Reconstruct(**{name: 0})
