from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

from compress import train
from compress.artifacts import artifact
from compress.errors import ConfigError
from compress.pruning.recalibration import recalibrate
from compress.pruning.structured import prune_channels
from compress.recipe import load_recipe, pruning_steps, run_recipe
from compress.recipe.context import Context
from compress.recipe.pruning_steps import (
    PruneChannels,
    PruneRounds,
    PruneWeights,
    Recalibrate,
    apply_prune_channels,
    apply_prune_rounds,
    apply_prune_weights,
    apply_recalibrate,
)
from compress.recipe.training_batches import TrainingBatches
from tests.workloads import tiny_net, tiny_workload


@pytest.fixture
def net():
    """The tiny network, sixteen channels wide, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return tiny_net(width=16).eval()


@pytest.fixture
def context(net, tmp_path):
    """What a recipe on the tiny workload hands to its steps."""
    workload = dataclasses.replace(tiny_workload(), model_args={"width": 16})
    return Context(dense=net, workload=workload, checkpoint=tmp_path / "x.step1.checkpoint", progress=False)


def widths(model: nn.Module) -> tuple[int, int]:
    """Output channels of both convolutions."""
    return model.features[0].out_channels, model.features[3].out_channels


def test_a_cut_is_recalibrated(net, context):
    """The step prunes and then recalibrates on training images, augmented; with 0 batches it only prunes."""
    settings = PruneChannels(pruning_ratio=0.5, recalibration_batches=2, batch_size=8, seed=3)
    cut = prune_channels(net, context.workload.example_input, 0.5)
    plain = apply_prune_channels(dataclasses.replace(settings, recalibration_batches=0), net, context)
    assert artifact.digest(plain) == artifact.digest(cut)
    batches = TrainingBatches(split=context.workload.dataset.train, batches=2, batch_size=8, seed=3, augmented=True)
    fresh = apply_prune_channels(settings, net, context)
    assert artifact.digest(fresh) == artifact.digest(recalibrate(cut, batches))
    assert not fresh.features[1].running_mean.equal(cut.features[1].running_mean)


@pytest.mark.parametrize("importance", ["taylor", "activation"])
def test_importances_get_their_data_from_the_training_split(net, context, importance):
    """A recipe names the importance, and that is all; the same images give the same model."""
    settings = PruneChannels(pruning_ratio=0.5, importance=importance, calibration_batches=2, batch_size=16)
    first, second = (apply_prune_channels(settings, net, context) for _ in range(2))
    assert widths(first) == (8, 16)
    assert artifact.digest(first) == artifact.digest(second)


def test_targets_scope_floor_and_rounding_are_passed_on(net, context):
    """What a recipe says is what the technique does."""
    dense = sum(parameter.numel() for parameter in net.parameters())
    settings = PruneChannels(
        max_params=int(0.6 * dense), scope="global", round_to=4, min_kept=0.5, ignore=("features.0",)
    )
    small = apply_prune_channels(settings, net, context)
    assert sum(parameter.numel() for parameter in small.parameters()) <= 0.6 * dense
    assert widths(small) == (16, 16)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (PruneChannels, {"pruning_ratio": 0.2, "max_macs": 3}, "exactly one of pruning_ratio, max_macs, max_params"),
        (PruneChannels, {"importance": "l3"}, "importance must be one of l1, "),
        (
            PruneChannels,
            {"recalibration_batches": -1},
            "recalibration_batches must be a whole number at least 0, got -1",
        ),
        (PruneChannels, {"calibration_batches": 0}, "calibration_batches must be a whole number at least 1, got 0"),
        (PruneChannels, {"batch_size": 0}, "batch_size must be a whole number at least 1, got 0"),
        (PruneRounds, {"rounds": 0}, "rounds must be a whole number at least 1, got 0"),
        (PruneRounds, {"epochs": 0}, "epochs must be a whole number at least 1, got 0"),
        (PruneRounds, {"learning_rate": -1.0}, "learning_rate must be positive, got -1.0"),
        (PruneRounds, {"reconstruction_batches": -1}, "reconstruction_batches must be a whole number at least 0, got"),
        (
            PruneRounds,
            {"reconstruction_batches": 2},
            "prune_rounds repairs with reconstruction_batches = 2 in place of",
        ),
        (PruneRounds, {"max_params": 9}, "prune_rounds goes by pruning_ratio, a target can only be met at once by"),
        (PruneWeights, {"pattern": "4:2"}, "pattern must be 'n:m' with 0 < n < m"),
        (Recalibrate, {"batches": 0}, "batches must be a whole number at least 1, got 0"),
    ],
)
def test_settings_are_checked_when_a_recipe_is_read(kind, settings, message):
    """Not after hours of training."""
    with pytest.raises(ConfigError) as caught:
        kind(**settings)
    assert str(caught.value).startswith(message)


def test_recalibrating_is_a_step_of_its_own(net, context):
    """It gives what the function gives on the drawn images, as training sees them."""
    split = context.workload.dataset.train
    batches = TrainingBatches(split=split, batches=2, batch_size=16, seed=1, augmented=True)
    fresh = apply_recalibrate(Recalibrate(batches=2, batch_size=16, seed=1), net, context)
    assert artifact.digest(fresh) == artifact.digest(recalibrate(net, batches))


def test_patterns_are_passed_on(net, context):
    """Half of the second convolution's weights are zero."""
    masked = apply_prune_weights(PruneWeights(pattern="2:4"), net, context)
    assert int((masked.features[3].weight == 0).sum()) == masked.features[3].weight.numel() // 2


def test_rounds_end_at_the_ratio_that_was_asked():
    """Every round keeps the same fraction of what the one before left."""
    settings = PruneRounds(pruning_ratio=0.7, rounds=3)
    gone = [settings.ratio_after(number) for number in (1, 2, 3)]
    kept = [1 - ratio for ratio in (0.0, *gone)]
    assert gone[-1] == 0.7
    assert [after / before for before, after in itertools.pairwise(kept)] == pytest.approx([0.3 ** (1 / 3)] * 3)
    assert PruneRounds().ratio_after(3) == 0.2


ROUNDS = PruneRounds(pruning_ratio=0.7, rounds=3, epochs=1, batch_size=16, recalibration_batches=1)


@pytest.fixture
def trainings(monkeypatch):
    """The widths of every model that was trained."""
    seen = []
    fit = train.fit

    def noted(model, *args, **settings):
        seen.append(widths(model))
        return fit(model, *args, **settings)

    monkeypatch.setattr(train, "fit", noted)
    return seen


def test_rounds_train_between_cuts(net, context, trainings):
    """Three cuts, two trainings, as many channels in the end as after one cut, and no file is left over."""
    small = apply_prune_rounds(ROUNDS, net, context)
    assert trainings == [(10, 21), (7, 14)]
    assert widths(small) == widths(prune_channels(net, context.workload.example_input, 0.7)) == (4, 9)
    assert list(context.checkpoint.parent.iterdir()) == []
    assert widths(net) == (16, 32)


def test_rounds_repair_between_cuts(net, context, trainings):
    """To what the network before the first cut puts out; nothing is trained, and as many channels go."""
    settings = dataclasses.replace(ROUNDS, epochs=0, reconstruction_batches=2, importance="obs")
    small = apply_prune_rounds(settings, net, context)
    assert trainings == []
    assert widths(small) == (4, 9)
    x = _images(context)
    once = prune_channels(net, context.workload.example_input, 0.7)
    with torch.no_grad():
        ours, cut = (((model(x) - net(x)).square().mean()) for model in (small, once))
    assert ours < cut / 2


def _images(context: Context) -> torch.Tensor:
    return next(iter(TrainingBatches(split=context.workload.dataset.train, batches=1, batch_size=32, seed=9)))[0]


@pytest.mark.parametrize("damaged", [False, True])
def test_rounds_go_on_where_they_stopped(net, context, trainings, monkeypatch, damaged):
    """Interrupted in the last round, a rerun trains no finished round again and comes to the same bits."""
    expected = artifact.digest(apply_prune_rounds(ROUNDS, net, context))
    trainings.clear()
    cuts = []
    cut = pruning_steps.prune_channels

    def stopped_at_the_third(*args, **settings):
        cuts.append(1)
        if len(cuts) == 3:
            raise KeyboardInterrupt
        return cut(*args, **settings)

    monkeypatch.setattr(pruning_steps, "prune_channels", stopped_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        apply_prune_rounds(ROUNDS, net, context)
    rounds = sorted(context.checkpoint.parent.iterdir())
    assert [file.name for file in rounds] == ["x.step1.round1.safetensors", "x.step1.round2.safetensors"]
    if damaged:
        rounds[1].write_bytes(b"half of it")
    assert artifact.digest(apply_prune_rounds(ROUNDS, net, context)) == expected
    assert len(trainings) == (3 if damaged else 2)
    assert list(context.checkpoint.parent.iterdir()) == []


def test_a_recipe_says_it_all(tmp_path):
    """Every new step and setting is read from TOML and run."""
    path = tmp_path / "mine.toml"
    path.write_text(
        """
        [[steps]]
        use = "prune_rounds"
        pruning_ratio = 0.5
        rounds = 2
        batch_size = 16
        scope = "global"
        importance = "taylor"
        ignore = ["features.3"]

        [[steps]]
        use = "prune_channels"
        max_macs = 8000
        round_to = 2

        [[steps]]
        use = "prune_weights"
        pattern = "1:2"

        [[steps]]
        use = "recalibrate"
        batches = 1
        batch_size = 16
        """,
        encoding="utf-8",
    )
    recipe = load_recipe(path)
    assert [type(step) for step in recipe.steps] == [PruneRounds, PruneChannels, PruneWeights, Recalibrate]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dense = tiny_net(width=4).eval()
    small = run_recipe(recipe, dense, tiny_workload(), progress=False)
    assert Path(path).exists()
    assert small.features[0].out_channels <= 4
