from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from compress.artifacts import artifact
from compress.errors import ArtifactError
from compress.modules.substitute import Substitute, replace_, type_name

CONV = "torch.nn.modules.conv.Conv2d"


@pytest.fixture
def path(tmp_path):
    """Where a model is saved."""
    return tmp_path / "model.safetensors"


def net() -> nn.Module:
    """A layer under two names, and others around it."""
    conv = nn.Conv2d(4, 4, 3, padding=1)
    return nn.Sequential(conv, nn.ReLU(), conv, nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6))


def chain(*layers: nn.Module) -> Substitute:
    """Two layers in the place of a convolution."""
    return Substitute(*(layers or (nn.Conv2d(4, 2, 1, bias=False), nn.Conv2d(2, 4, 1))), replaces=CONV)


def substituted() -> nn.Module:
    """The network with chains of every sort in the places of its convolutions."""
    last = (
        nn.Conv2d(4, 2, (3, 1), padding="same", padding_mode="circular", bias=False),
        nn.Conv2d(2, 6, (1, 3), padding=(0, 1), padding_mode="reflect"),
    )
    return replace_(net(), {"0": chain(), "3": chain(*last)}).eval()


def rewrite(path, change) -> None:
    """Let ``change`` edit what the file's header says."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[artifact.FORMAT])
    change(header)
    save_file(load_file(path), path, {artifact.FORMAT: json.dumps(header)})


def test_a_replacement_goes_to_every_name_of_its_place():
    """A module under two names is replaced under both; the model itself can be replaced too."""
    model = substituted()
    assert model[0] is model[2]
    assert isinstance(model[0], Substitute)
    layer = nn.Linear(2, 2)
    assert replace_(layer, {"": nn.ReLU()}).__class__ is nn.ReLU


def test_substitutes_come_back_from_a_file(path):
    """The factory's layers give way to those of the file: same outputs to the bit, modes, padding and sharing."""
    model = substituted()
    artifact.save(model, path)
    loaded = artifact.load(path, net)
    x = torch.randn(2, 4, 7, 7)
    assert loaded(x).equal(model(x))
    assert loaded[0] is loaded[2]
    assert not any(module.training for module in loaded.modules())
    assert [repr(part) for part in loaded[3]] == [repr(part) for part in model[3]]
    assert artifact.serialize(loaded) == path.read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "shape"),
    [
        (nn.Linear(4, 4), (nn.Linear(4, 2, bias=False), nn.Linear(2, 4)), (3, 4)),
        (nn.Conv1d(4, 4, 3), (nn.Conv1d(4, 2, 3, dilation=2), nn.Conv1d(2, 4, 1)), (3, 4, 9)),
        (nn.Conv3d(4, 4, 2), (nn.Conv3d(4, 2, 2, stride=2), nn.Conv3d(2, 4, 1)), (3, 4, 4, 4, 4)),
        (
            nn.ConvTranspose2d(4, 4, 3),
            (nn.ConvTranspose2d(4, 2, 3, stride=2, output_padding=1), nn.Conv2d(2, 4, 1)),
            (3, 4, 5, 5),
        ),
    ],
)
def test_a_model_that_is_one_layer_comes_back(path, old, new, shape):
    """Where the whole model was replaced the substitute is what load returns; every kind of layer is known."""
    model = Substitute(*new, replaces=type_name(old))
    artifact.save(model, path)
    loaded = artifact.load(path, lambda: old)
    assert isinstance(loaded, Substitute)
    assert loaded(torch.ones(shape)).equal(model(torch.ones(shape)))


def test_weights_shared_by_two_substitutes_stay_shared(path):
    """Stored once, one parameter again after loading."""
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    one, other = chain(), chain()
    other[0].weight = one[0].weight
    artifact.save(replace_(model, {"0": one, "1": other}), path)
    loaded = artifact.load(path, lambda: nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)))
    assert loaded[0][0].weight is loaded[1][0].weight
    assert "1.0.weight" not in load_file(path)


def test_a_model_without_substitutes_has_the_file_it_always_had(path):
    """The header says nothing of them."""
    artifact.save(net(), path)
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()[artifact.FORMAT]).keys() == {"version", "modules", "aliases"}


def test_a_slice_of_a_substitute_is_a_sequence_of_its_layers():
    """As of any nn.Sequential."""
    model = chain()
    assert list(model[1:]) == [model[1]]


@pytest.mark.parametrize(
    ("factory", "found"),
    [
        (lambda: replace_(net(), {"3": nn.Linear(4, 6)}), "torch.nn.modules.linear.Linear"),
        (lambda: net()[:3], "missing"),
        (substituted, "compress.modules.substitute.Substitute"),
    ],
)
def test_a_factory_that_builds_something_else_there_is_refused(path, factory, found):
    """A substitute takes the place of the very type that it replaced, and of no other."""
    artifact.save(replace_(net(), {"3": chain()}), path)
    with pytest.raises(ArtifactError) as caught:
        artifact.load(path, factory)
    assert str(caught.value) == (
        f"{path} holds another network than the factory builds: module '3' stands for a {CONV} in the file and is"
        f" {found} in the model"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: header.update(substitutes=["3"]), "a substitute stands for a module that is not there"),
        (lambda header: header.update(substitutes={"9": CONV}), "a substitute stands for a module that is not there"),
        (
            lambda header: header["modules"]["3.0"].update(_type="os.system"),
            "a substitute cannot hold a os.system (module '3')",
        ),
        (lambda header: header["modules"]["3.0"].pop("stride"), "'stride' (module '3')"),
        (lambda header: header["modules"]["3.0"].update(in_channels="four"), ""),
        (lambda header: header["modules"]["3.0"].update(padding_mode="none"), ""),
    ],
)
def test_a_file_whose_substitutes_make_no_sense_is_damaged(path, change, message):
    """Only known layers with sound arguments are ever built from a file."""
    artifact.save(substituted(), path)
    rewrite(path, change)
    with pytest.raises(ArtifactError) as caught:
        artifact.load(path, net)
    assert str(caught.value).startswith(f"{path} is damaged or no saved model: {message}")
    assert "\n" not in str(caught.value)


def test_a_layer_more_or_less_than_saved_is_refused(path):
    """The strict comparison of module trees holds for rebuilt places too."""
    artifact.save(substituted(), path)
    rewrite(path, lambda header: header["modules"].pop("3.1"))
    with pytest.raises(ArtifactError, match="differs"):
        artifact.load(path, net)
