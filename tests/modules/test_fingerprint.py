from __future__ import annotations

import copy
import re
import subprocess
import sys

import pytest
import torch
from torch import nn

from compress.artifacts import artifact
from compress.exported import ExportedModel, capture
from compress.modules.fingerprint import fingerprint
from compress.modules.masks import make_permanent_
from compress.pruning.structured import prune_channels
from compress.pruning.unstructured import prune_weights
from compress.quantization.half import to_half
from tests.workloads import tiny_net

IMAGE = torch.zeros(1, 3, 8, 8)


def net(**changes):
    """A small network of seeded weights, with some of the settings of its first layer changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 5))
    for name, value in changes.items():
        setattr(model[0], name, value)
    return model.eval()


def test_it_is_a_sha256_that_repeats_in_another_process():
    """64 hexadecimal digits, the same for a copy, and nothing in it depends on the process."""
    found = fingerprint(net())
    assert re.fullmatch(r"[0-9a-f]{64}", found)
    assert fingerprint(copy.deepcopy(net())) == found
    code = "from tests.modules.test_fingerprint import net, fingerprint; print(fingerprint(net()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == found


def test_a_known_network_keeps_its_fingerprint():
    """What stands in a file that is kept must not change with a release, of this package or of PyTorch."""
    model = nn.Sequential(nn.Linear(2, 1), nn.ReLU())
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -2.0]]))
        model[0].bias.fill_(0.5)
    assert fingerprint(model) == "71ed6660b050ff8a0c8e6a5364530bb759df33fc478752d74c9f0f72c1648909"


def test_the_last_bit_of_one_weight_changes_it():
    """It is over bytes, not over rounded numbers."""
    model, other = net(), net()
    with torch.no_grad():
        weight = other[3].weight
        weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(9.0))
    assert fingerprint(model) != fingerprint(other)


@pytest.mark.parametrize(
    "change", [{"stride": (2, 2)}, {"padding_mode": "circular"}, {"groups": 2}, {"remark": "x"}, {"padding": "same"}]
)
def test_another_setting_of_a_layer_changes_it(change):
    """The same tensors computed with otherwise are another model; PyTorch's own bookkeeping is none."""
    same = "remark" in change
    assert (fingerprint(net(**change)) == fingerprint(net())) is same


class Named(nn.Module):
    """A module of a user's own, with an attribute."""

    def __init__(self, heads):
        super().__init__()
        self.heads = heads
        self._private = object()


def test_any_attribute_of_a_users_module_counts():
    """A head count is no argument of a constructor that could be looked up; 1 is not True, nor is a list a tuple."""
    found = {fingerprint(Named(heads)) for heads in (1, 2, True, "1", (1,), [1], None, b"1")}
    assert len(found) == 8
    assert fingerprint(Named(object())) == fingerprint(Named(object()))


class Keeping(nn.Module):
    """Keeps a grid for the last image size."""

    def __init__(self):
        super().__init__()
        self.size = None
        self.grid = torch.zeros(0)

    def forward(self, images):
        self.size, self.grid = images.shape[-1], torch.arange(images.shape[-1])
        return images * self.grid


def test_a_forward_pass_does_not_change_it():
    """What a pass leaves in the model is none of what the model is, be it a tensor or the size it is for."""
    model = Keeping()
    before = fingerprint(model)
    model(IMAGE)
    assert fingerprint(model) == before


def test_names_shapes_and_types_count():
    """The same bytes under another name, in another shape or of another type are another model."""
    values = torch.arange(4, dtype=torch.int32)
    models = []
    for name, tensor in (
        ("a", values),
        ("b", values),
        ("a", values.reshape(2, 2)),
        ("a", values.view(torch.float32)),
    ):
        module = nn.Module()
        module.register_buffer(name, tensor)
        models.append(fingerprint(module))
    assert len(set(models)) == 4


def test_a_parameter_is_no_buffer():
    """The same tensor under the same name, counted or not."""
    parameter, buffer = nn.Module(), nn.Module()
    parameter.register_parameter("a", nn.Parameter(torch.ones(2)))
    buffer.register_buffer("a", torch.ones(2))
    assert fingerprint(parameter) != fingerprint(buffer)


def test_mode_and_memory_layout_do_not_count():
    """Whoever runs a model sets its mode, and channels last are the same numbers."""
    model = net()
    assert fingerprint(net().train()) == fingerprint(model)
    assert fingerprint(net().to(memory_format=torch.channels_last)) == fingerprint(model)


def test_a_shared_tensor_is_not_two_equal_ones():
    """Training would tell them apart."""
    shared, equal = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    shared[1].weight = shared[0].weight
    equal.load_state_dict(shared.state_dict())
    assert fingerprint(shared) != fingerprint(equal)


def test_masks_count_as_the_zeros_they_stand_for():
    """A masked model is the one that is saved, also where two layers share a masked weight; it keeps its masks."""
    model = net()
    model.append(nn.Linear(5, 5)).append(nn.Linear(5, 5))
    model[5].weight = model[4].weight
    masked = prune_weights(model, 0.5)
    with torch.no_grad():
        masked[0].weight += 1  # what the last step of an optimizer does
    found = fingerprint(masked)
    assert "weight_mask" in masked[0]._buffers
    assert found == fingerprint(make_permanent_(copy.deepcopy(masked)))
    assert found != fingerprint(model)


@pytest.mark.parametrize("compress", [lambda net: prune_channels(net, IMAGE, 0.5), to_half, copy.deepcopy])
def test_it_survives_a_file(tmp_path, tiny_dense, compress):
    """What is saved and loaded is the same model."""
    model = compress(tiny_dense)
    artifact.save(model, tmp_path / "m.safetensors")
    assert fingerprint(artifact.load(tmp_path / "m.safetensors", tiny_net)) == fingerprint(model)


def test_a_graph_survives_a_file_and_counts_its_operations(tmp_path, tiny_dense):
    """A graph's structure is its operations; the names of its values are not."""
    model = ExportedModel(capture(tiny_dense, IMAGE))
    artifact.save(model, tmp_path / "m.pt2")
    found = fingerprint(model)
    assert fingerprint(artifact.load(tmp_path / "m.pt2")) == found
    node = next(node for node in model.graph.graph.nodes if "relu" in str(node.target))
    node._rename("another")
    assert fingerprint(model) == found
    node.target = torch.ops.aten.sigmoid.default
    assert fingerprint(model) != found


def test_int8_survives_a_file(tmp_path, tiny_int8):
    """Integer weights and scales count."""
    artifact.save(tiny_int8.model, tmp_path / "m.pt2")
    found = fingerprint(tiny_int8.model)
    assert fingerprint(artifact.load(tmp_path / "m.pt2")) == found
    other = copy.deepcopy(tiny_int8.model)
    integers = next(buffer for buffer in other.graph.buffers() if buffer.dtype == torch.int8)
    integers.view(-1)[0] ^= 1
    assert fingerprint(other) != found


class Packed(nn.Module):
    """Keeps its weights in a state of its own kind, as PyTorch's eager int8 layers do."""

    def __init__(self, value):
        super().__init__()
        self._packed = (torch.full((2,), value), {"scale": torch.tensor(value)}, "int8")

    def get_extra_state(self):
        return self._packed


def test_weights_that_are_neither_parameter_nor_buffer_count():
    """What a state holds in tuples and tables."""
    assert fingerprint(Packed(1.0)) == fingerprint(Packed(1.0)) != fingerprint(Packed(2.0))
