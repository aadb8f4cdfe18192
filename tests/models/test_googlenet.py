from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from compress import models
from compress.errors import ArtifactError, ConfigError
from compress.models import googlenet


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("num_classes", "expected"), [(100, 6_402_564), (10, 6_402_564 - 90 * 1025)])
def test_number_of_parameters_is_that_of_the_reference_network(num_classes, expected):
    """100 classes make exactly the 6,402,564 parameters of the reference; a class less, 1024 weights and a bias."""
    assert sum(parameter.numel() for parameter in googlenet(num_classes).parameters()) == expected


def test_every_batch_norm_has_torchs_own_eps():
    """No batch norm was given its channel count for an eps, as in a well-known public version of this network."""
    norms = [module for module in googlenet(10).modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 3 + 9 * 7
    assert {norm.eps for norm in norms} == {1e-5}


def test_biases_are_those_of_the_reference_network():
    """The stem's convolutions have no bias, those of the inception blocks all do."""
    convolutions = {name: m for name, m in googlenet(10).named_modules() if isinstance(m, nn.Conv2d)}
    assert {name for name, conv in convolutions.items() if conv.bias is None} == {"stem.0", "stem.3", "stem.6"}
    assert len(convolutions) == 3 + 9 * 7


@pytest.mark.parametrize("size", [8, 16, 32])
def test_images_of_several_sizes_become_one_row_of_logits_each(size):
    """A batch of images gives finite logits [n, num_classes]; in eval mode an image's do not depend on its batch."""
    torch.manual_seed(0)
    model = googlenet(7).eval()
    images = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        logits = model(images)
        assert logits.shape == (2, 7)
        assert logits.isfinite().all()
        torch.testing.assert_close(model(images[:1]), logits[:1], rtol=1e-3, atol=1e-4)


def test_each_block_takes_what_the_one_before_puts_out():
    """The channels of the nine blocks are those of the paper's table, 256 after the first, 1024 after the last."""
    blocks = {name: block for name, block in googlenet(10).blocks.named_children() if not name.startswith("pool")}
    widths = [256, 480, 512, 512, 512, 528, 832, 832, 1024]
    with torch.inference_mode():
        for (name, block), ins, outs in zip(blocks.items(), [192, *widths], widths, strict=False):
            assert block.eval()(torch.zeros(1, ins, 4, 4)).shape == (1, outs, 4, 4), name
    assert len(blocks) == len(widths)


@pytest.mark.parametrize(("width", "expected"), [(0.5, 1_632_692), (0.25, 424_236), (0.001, 1_115)])
def test_a_narrower_network_has_the_square_of_the_width(width, expected):
    """Half the channels make about a quarter of the weights; one channel at least stays everywhere."""
    model = googlenet(100, width=width).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == expected
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 100)


@pytest.mark.parametrize("width", [0, -0.5, float("nan"), float("inf")])
def test_a_width_that_is_none_is_refused(width):
    """It must be a positive number, and the message says what it was."""
    with pytest.raises(ConfigError, match=f"^width must be a positive number, got {width}$"):
        googlenet(width=width)


@pytest.mark.parametrize("num_classes", [0, -1])
def test_a_network_for_no_class_is_refused(num_classes):
    """A number of classes below 1 breaks a rule, and the message says which."""
    with pytest.raises(ConfigError, match=f"^num_classes must be at least 1, got {num_classes}$"):
        googlenet(num_classes)


SHIPPED = Path(models.__file__).with_name("googlenet-cifar100.safetensors")


@pytest.mark.parametrize(("data", "num_classes"), [("digits", 10), ("cifar100", 100)])
def test_trained_weights_come_with_the_package(data, num_classes):
    """They are stored in half precision, in less than 13 MB, and loaded into a network in single precision."""
    model = googlenet(weights=data, num_classes=num_classes)
    path = SHIPPED.with_name(f"googlenet-{data}.safetensors")
    stored = load_file(path)
    assert path.stat().st_size < 13e6
    for name, value in model.state_dict().items():
        assert value.equal(stored[name].to(value.dtype)), name
        assert stored[name].dtype is (torch.float16 if value.is_floating_point() else torch.int64), name
    assert len(stored) == len(model.state_dict())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_trained_weights_have_learned_something():
    """On images of one colour each they are sure of a class more often than a fresh network is of any."""
    shades = torch.linspace(-1.5, 1.5, 8)
    images = torch.stack([torch.full((3, 32, 32), float(shade)) for shade in shades])
    with torch.inference_mode():
        trained, fresh = (
            model.eval()(images).softmax(1).amax(1).mean() for model in (googlenet(weights="cifar100"), googlenet())
        )
    assert trained > 5 * fresh


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": "imagenet"}, "weights must be one of digits, cifar100, got 'imagenet'"),
        ({"weights": "cifar100", "num_classes": 10}, "are for num_classes = 100 and width = 1.0, got 10 and 1.0"),
        ({"weights": "cifar100", "width": 0.5}, "are for num_classes = 100 and width = 1.0, got 100 and 0.5"),
    ],
)
def test_weights_of_another_network_are_refused(settings, message):
    """Another name, number of classes or width than there are weights for is one sentence."""
    with pytest.raises(ConfigError, match=message):
        googlenet(**settings)


def test_damaged_weights_are_refused(tmp_path, monkeypatch):
    """One changed byte, or no file at all, is an error that names the file; nothing is loaded from it."""
    monkeypatch.setattr(sys.modules[googlenet.__module__], "__file__", str(tmp_path / "googlenet.py"))
    with pytest.raises(ArtifactError, match=r"cannot read .*googlenet-cifar100\.safetensors: No such file"):
        googlenet(weights="cifar100")
    shutil.copy(SHIPPED, tmp_path)
    with (tmp_path / SHIPPED.name).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(ArtifactError, match=r"must have the SHA-256 .* install anew"):
        googlenet(weights="cifar100")
