"""Files that are no model, or not this one: each is refused in one sentence that names the file."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from compress.artifacts import artifact
from compress.errors import ArtifactError
from tests.workloads import tiny_net


@pytest.fixture
def path(tmp_path):
    """Where a model is saved."""
    return tmp_path / "model.safetensors"


def rewrite(path, change) -> None:
    """Let ``change`` edit what the file's header says."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[artifact.FORMAT])
    save_file(load_file(path), path, {artifact.FORMAT: json.dumps(change(header) or header)})


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda: nn.Linear(2, 2), "module '' is a "),
        (lambda: nn.Sequential(tiny_net()), "module '' is a "),
        (lambda: replaced("features.2", nn.SiLU()), "module 'features.2' is a torch.nn.modules.activation.ReLU in the"),
        (lambda: replaced("features.extra", nn.ReLU()), "module 'features.extra' is in the model, not in the file"),
        (lambda: replaced("classifier", nn.Linear(10, 3, bias=False)), "tensor 'classifier.bias' differs"),
        (lambda: replaced("dropout", unlike(nn.Dropout())), "module 'dropout' differs in its attributes: extra"),
    ],
)
def test_a_file_of_another_network_is_refused(path, factory, message):
    """The first module or tensor that differs is named, by its path and by what is different."""
    artifact.save(tiny_net(), path)
    with pytest.raises(ArtifactError) as caught:
        artifact.load(path, factory)
    assert str(caught.value).startswith(f"{path} holds another network than the factory builds: ")
    assert message in str(caught.value)


def replaced(name: str, module: nn.Module) -> nn.Module:
    """The tiny network with another module at ``name``."""
    model = tiny_net()
    parent, _, leaf = name.rpartition(".")
    model.get_submodule(parent).add_module(leaf, module)
    return model


def unlike(module: nn.Module) -> nn.Module:
    """``module`` with one more attribute."""
    module.extra = 1
    return module


def test_a_missing_file_is_named(path, tmp_path):
    """No file, or a folder, is no saved model."""
    for place in (path, tmp_path):
        with pytest.raises(ArtifactError, match=f"^no saved model at {place}$"):
            artifact.load(place, tiny_net)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_a_truncated_file_is_damaged(path, keep):
    """Whatever part of a file is left, loading says that it is damaged."""
    artifact.save(tiny_net(), path)
    path.write_bytes(path.read_bytes()[:keep])
    assert_damaged(path)


@pytest.mark.parametrize("content", [b"not a model" * 50, b"\x80\x04\x95pickle" + bytes(100), b"\xff" * 200])
def test_garbage_is_damaged(path, content):
    """Text, a pickle or noise is no saved model."""
    path.write_bytes(content)
    assert_damaged(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda _: ["a list"],
        lambda header: header.pop("modules") and None,
        lambda header: header.pop("aliases") and None,
        lambda header: header.update(modules=[]),
        lambda header: header["modules"].update({"": 3}),
        lambda header: header["modules"]["pool"].update(output_size={"tuple": []}),
        lambda header: header.update(aliases={"classifier.weight": "no such tensor"}),
        lambda header: header.update(kept={"pool": [["output_size"]]}),
        lambda header: header.update(kept=["pool"]),
        lambda header: header.update(objects={"pool": "output_size"}),
        lambda header: header.update(fleeting=[{}]),
        lambda header: header.update(fleeting=["pool.forward"], aliases={"pool.forward": "classifier.weight"}),
    ],
)
def test_a_header_of_another_form_is_damaged(path, change):
    """JSON that is well formed and yet not what saving writes is told apart from a model."""
    artifact.save(tiny_net(), path)
    rewrite(path, change)
    assert_damaged(path)


def assert_damaged(path) -> None:
    """Loading fails with one sentence that names the file."""
    with pytest.raises(ArtifactError) as caught:
        artifact.load(path, tiny_net)
    assert str(caught.value).startswith(f"{path} is damaged or no saved model: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("classifier.bias"), "tensor 'classifier.bias' is in the model, not in the file"),
        (lambda state: state.update(spare=torch.zeros(1)), "tensor 'spare' is in the file, not in the model"),
        (
            lambda state: state.update({"classifier.bias": torch.zeros(2)}),
            "tensor 'classifier.bias' is [2] of float32 in the file, [3] of float32 in the model",
        ),
        (
            lambda state: state.update({"classifier.bias": torch.zeros(3).half()}),
            "tensor 'classifier.bias' is [3] of float16 in the file, [3] of float32 in the model",
        ),
    ],
)
def test_a_state_dict_of_another_network_is_refused(path, change, message):
    """One that another program wrote must be the factory's network: the first tensor that differs is named."""
    state = tiny_net().state_dict()
    change(state)
    save_file(state, path)
    with pytest.raises(ArtifactError) as caught:
        artifact.load(path, tiny_net)
    assert str(caught.value) == f"{path} holds another network than the factory builds: {message}"


def test_what_torch_save_wrote_is_refused(tmp_path):
    """It would have to be unpickled."""
    path = tmp_path / "net.pt"
    torch.save(tiny_net().state_dict(), path)
    with pytest.raises(ArtifactError, match="would have to be unpickled, which is never done"):
        artifact.load(path, tiny_net)


def test_a_file_of_a_newer_version_is_refused(path):
    """Both versions are named, rather than a format guessed at."""
    newer = artifact.VERSION + 1
    artifact.save(tiny_net(), path)
    rewrite(path, lambda header: header.update(version=newer))
    with pytest.raises(ArtifactError, match=f"has format version {newer}, this release reads version {newer - 1}$"):
        artifact.load(path, tiny_net)
