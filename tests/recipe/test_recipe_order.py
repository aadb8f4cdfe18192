"""Every two steps, in both orders: they work together, or the recipe is refused with a reason when it is read."""

from __future__ import annotations

import itertools

import pytest
import torch

from compress.artifacts import artifact
from compress.errors import ConfigError
from compress.measure.size import count_macs, count_nonzero_params
from compress.modules.substitute import Substitute
from compress.recipe import load_recipe, order, run_recipe
from compress.recipe.steps import STEPS
from compress.train import evaluate
from compress.workload.workload import dense_model, load_workload
from tests.workloads import tiny_net, tiny_workload

# For each step the settings that suit a network of a few hundred weights.
SETTINGS = {
    "factorize": 'by = "ratio"\ntarget = 0.5\ncalibration_images = 16',
    "fit": 'epochs = 1\nbatch_size = 16\nvalidation_fraction = 0\nautocast = "off"\ndistill = true',
    "prune_channels": "pruning_ratio = 0.25",
    "prune_rounds": "pruning_ratio = 0.25\nrounds = 2\nbatch_size = 16",
    "prune_weights": "sparsity = 0.5",
    "reconstruct": "batches = 2\nbatch_size = 8",
    "quantize": "max_accuracy_drop = 1.0\nnum_calibration_images = 16\nnum_holdout_images = 16",
    "quantize_aware_fit": "epochs = 1\nbatch_size = 16\nvalidation_fraction = 0",
}
# What a real network on real images is given instead.
ON_DIGITS = {
    "factorize": 'by = "macs"\ntarget = 0.6',
    "fit": "epochs = 1\nbatch_size = 64\nlearning_rate = 0.01\nvalidation_fraction = 0\ndistill = true",
    "prune_channels": "pruning_ratio = 0.1",
    "prune_rounds": "pruning_ratio = 0.1\nrounds = 2",
    "prune_weights": "sparsity = 0.2",
    "quantize_aware_fit": "epochs = 1\nbatch_size = 64\nvalidation_fraction = 0",
}
# Most of a point of accuracy a technique may cost on the digits after one epoch of training.
MAX_DROP = 0.02

PAIRS = list(itertools.product(STEPS, repeat=2))
POSSIBLE = [pair for pair in PAIRS if order.refusal(*pair) is None]
# Exporting and calibrating a graph takes seconds for every pair.
SLOW = {"quantize", "quantize_aware_fit"}
MARKED = [
    pytest.param(pair, marks=pytest.mark.nightly if SLOW & {*pair} else (), id="-".join(pair)) for pair in POSSIBLE
]
REFUSED = [pair for pair in PAIRS if order.refusal(*pair) is not None]


@pytest.fixture
def written(tmp_path):
    """Writes a recipe of the named steps and returns its path."""

    def write(names, settings):
        path = tmp_path / "mine.toml"
        path.write_text("".join(f'[[steps]]\nuse = "{name}"\n{settings.get(name, "")}\n' for name in names))
        return path

    return write


@pytest.fixture(scope="module")
def dense():
    """The dense model of the tiny workload, not trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return tiny_net(width=4).eval()


@pytest.mark.parametrize("names", MARKED)
def test_two_steps_work_together(written, dense, names):
    """The model of the second step runs, is what the file of it loads, and has what both steps are for."""
    workload = tiny_workload()
    recipe = load_recipe(written(names, SETTINGS))
    first, again = (run_recipe(recipe, dense, workload, progress=False) for _ in range(2))
    assert artifact.digest(first) == artifact.digest(again)
    with torch.inference_mode():
        logits = first(torch.rand(2, 3, 8, 8))
    assert logits.shape == (2, 3)
    assert logits.isfinite().all()
    if {"factorize", "prune_channels", "prune_rounds"} & set(names) and "half" not in names:
        assert count_macs(first, workload.example_input) < count_macs(dense, workload.example_input)
    if names[-1] == "prune_weights" or set(names) == {"prune_weights", "fit"}:
        assert count_nonzero_params(first) < 0.7 * count_nonzero_params(dense)


@pytest.mark.parametrize("names", REFUSED, ids="-".join)
def test_an_order_that_cannot_work_is_refused_when_it_is_read(written, names):
    """One sentence: which step cannot follow which, why, and where in the file."""
    path = written(names, SETTINGS)
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert str(caught.value) == (
        f"{names[1]} must not come after {names[0]}: {order.refusal(*names)} (recipe {path}, steps 1 and 2)"
    )


def test_steps_between_two_that_cannot_be_do_not_help(written):
    """The order is refused wherever in the recipe the two stand."""
    path = written(["fit", "prune_weights", "fit", "factorize"], SETTINGS)
    with pytest.raises(ConfigError, match=r"factorize must not come after prune_weights: .*, steps 2 and 4\)$"):
        load_recipe(path)


def test_all_techniques_in_one_recipe(written, dense):
    """Pruned, factorized, trained by the dense model, and masked: smaller in every respect, and loaded again."""
    recipe = load_recipe(written(["prune_channels", "factorize", "prune_weights", "fit"], SETTINGS))
    model = run_recipe(recipe, dense, tiny_workload(), progress=False)
    assert model.features[1].num_features == 3
    assert isinstance(model.features[3], Substitute)
    assert count_nonzero_params(model) < 0.5 * count_nonzero_params(dense)


@pytest.mark.nightly
@pytest.mark.parametrize("names", POSSIBLE, ids="-".join)
def test_two_steps_keep_the_accuracy_on_digits(written, names, monkeypatch, tmp_path_factory):
    """On a real network and images, the two steps and one more epoch of training cost at most two points of error."""
    # One dense model for all pairs.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "digits"))
    workload = load_workload("digits")
    dense = dense_model(workload, progress=False)
    healed = names if order.refusal(names[-1], "fit") else (*names, "fit")
    model = run_recipe(load_recipe(written(healed, ON_DIGITS)), dense, workload, progress=False)
    before, after = (evaluate(one, workload.dataset.test).top1_error for one in (dense, model))
    assert after <= before + MAX_DROP
