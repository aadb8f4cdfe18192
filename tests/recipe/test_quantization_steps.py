from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from compress.errors import ConfigError, ModelError
from compress.pruning.unstructured import prune_weights
from compress.quantization import search
from compress.quantization.half import HalfModel
from compress.quantization.model import QuantizedModel
from compress.quantization.static import Quantized
from compress.recipe import load_recipe, quantization_steps, run_recipe
from compress.recipe.context import Context
from compress.recipe.quantization_steps import Quantize, apply_quantize
from compress.train import evaluate
from tests.workloads import tiny_net, tiny_workload


class Untouchable:
    """A split that must not be looked at."""

    def __len__(self) -> int:
        return 1

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"the test images were asked for their {name}")


@pytest.fixture
def context(tmp_path):
    """The tiny workload, whose test images nobody may see."""
    workload = tiny_workload()
    data = dataclasses.replace(workload.dataset, test=Untouchable())
    workload = dataclasses.replace(workload, data=lambda: data)
    return Context(dense=tiny_net(), workload=workload, checkpoint=tmp_path / "checkpoint", progress=False)


def images_of(split) -> torch.Tensor:
    """All images of a split, normalized."""
    return torch.cat([images for images, _ in split.batches(16)])


def test_contract_and_calibration_see_different_training_images(context):
    """As many as asked for on each side, none on both, all of the training split."""
    held, batches = quantization_steps._apart(
        context.workload.dataset.train, Quantize(num_calibration_images=20, num_holdout_images=12)
    )
    calibration, contract = torch.cat([batch.args[0] for batch in batches]), images_of(held)
    assert (len(calibration), len(contract)) == (20, 12)
    known = {image.numpy().tobytes() for image in images_of(context.workload.dataset.train)}
    seen = [image.numpy().tobytes() for image in (*calibration, *contract)]
    assert len(set(seen)) == 32
    assert set(seen) <= known


def test_few_images_are_shared_out(context):
    """Where there are fewer than asked for, half of them hold the contract."""
    held, batches = quantization_steps._apart(context.workload.dataset.train, Quantize())
    assert (len(held), sum(len(batch.args[0]) for batch in batches)) == (24, 24)


def test_the_step_never_sees_a_test_image(monkeypatch, context):
    """It hands on settings, calibration inputs and an accuracy, all from training images."""
    given = {}

    def quantize_by(config, model, batches, accuracy, *, progress):
        given.update(config=config, batches=batches, accuracy=accuracy(model), progress=progress)
        return Quantized(model, None)

    monkeypatch.setattr(quantization_steps, "quantize_by", quantize_by)
    model = tiny_net()
    apply_quantize(Quantize(max_accuracy_drop=0.25, observer="minmax"), model, context)
    assert (given["config"].max_accuracy_drop, given["config"].observer) == (0.25, "minmax")
    assert not given["progress"]
    held, _ = quantization_steps._apart(context.workload.dataset.train, Quantize())
    assert given["accuracy"] == 1 - evaluate(model, held).top1_error


def test_a_model_elsewhere_than_on_the_cpu_is_refused(context):
    """Before any image is loaded."""
    with pytest.raises(ModelError, match=r"^the model must have its weights to quantize it, 'weight' is on"):
        apply_quantize(Quantize(), nn.Linear(2, 2, device="meta"), context)


def test_a_half_recipe_makes_a_half_model_that_is_kept(tmp_path):
    """The second run takes it from the cache; it is as accurate as the float model."""
    path = tmp_path / "half.toml"
    path.write_text('[[steps]]\nuse = "half"\nprecision = "bfloat16"\n')
    workload = tiny_workload()
    dense = tiny_net(width=4).eval()
    first, second = (run_recipe(load_recipe(path), dense, workload, progress=False) for _ in range(2))
    assert isinstance(first, HalfModel)
    images = images_of(workload.dataset.test)
    assert first(images).equal(second(images))
    assert evaluate(first, workload.dataset.test).num_examples == 24


def test_pruned_and_factorized_networks_are_quantized(tmp_path):
    """Prune, factorize to a rank of one, quantize: every factor runs as an int8 kernel."""
    path = tmp_path / "all.toml"
    path.write_text(
        """
        [[steps]]
        use = "prune_channels"
        pruning_ratio = 0.25
        [[steps]]
        use = "factorize"
        by = "rank"
        target = 1
        kinds = ["spatial"]
        [[steps]]
        use = "quantize"
        max_accuracy_drop = 1.0
        """
    )
    model = run_recipe(load_recipe(path), tiny_net(width=8).eval(), tiny_workload(), progress=False)
    assert isinstance(model, QuantizedModel)
    assert [layer.name for layer in model.report.layers][:2] == ["features.0.0", "features.0.1"]
    assert model.report.float_layers == ()
    assert model.report.int8_kernels == len(model.report.layers)
    assert evaluate(model, tiny_workload().dataset.test).num_examples == 24


@pytest.mark.parametrize("setting", [{"num_holdout_images": 0}, {"max_accuracy_drop": 2.0}, {"observer": "mean"}])
def test_a_setting_that_breaks_its_rule_is_refused(setting):
    """When the recipe is read."""
    with pytest.raises(ConfigError, match=f"^{next(iter(setting))} must be "):
        Quantize(**setting)


def test_masks_are_zeros_before_they_are_quantized(monkeypatch, context):
    """A masked model comes without its masks and hooks; the given one keeps them."""
    given = []

    def prepare(model, *_, **__):
        given.append(model)
        raise ModelError("seen")

    monkeypatch.setattr(search, "prepare", prepare)
    masked = prune_weights(tiny_net(), 0.5)
    with pytest.raises(ModelError, match="seen"):
        apply_quantize(Quantize(), masked, context)
    assert not given[0].classifier._forward_pre_hooks
    assert int((given[0].classifier.weight == 0).sum()) == 15
    assert masked.classifier._forward_pre_hooks
