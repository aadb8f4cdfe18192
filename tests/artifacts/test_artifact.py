from __future__ import annotations

import copy
import json
import resource
import subprocess
import sys
from types import SimpleNamespace

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import load_file, save_file
from torch import nn

from compress.artifacts import artifact
from compress.errors import ArtifactError
from compress.lowrank import LowRankConfig, factorize
from compress.modules.attributes import shape_of
from compress.pruning.structured import prune_channels
from compress.pruning.unstructured import prune_weights
from tests.strategies import networks, ratios
from tests.workloads import TinyNet, tiny_net

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))

# Loads every model in a folder in a process that shares nothing with this one, and runs it on the same images.
FRESH_PROCESS = """
import sys
from pathlib import Path
import torch
from safetensors.torch import load_file
import compress
from tests.workloads import tiny_net

torch.set_num_threads(1)
folder = Path(sys.argv[1])
expected = load_file(folder / "expected")
for name, outputs in expected.items():
    if name == "images":
        continue
    model = compress.load(folder / f"{name}.safetensors", tiny_net)
    assert not model.training
    with torch.inference_mode():
        assert model(expected["images"]).equal(outputs), name
    print(name, *model.classifier.weight.shape)
"""


class Oddments(nn.Module):
    """Tensors and attributes of every sort a file must carry."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.absent = nn.Parameter(torch.zeros(1))
        self.register_parameter("absent", None)
        self.register_buffer("kept", torch.zeros(2))
        self.register_buffer("fleeting", torch.zeros(2), persistent=False)
        self.pair, self.row, self.nested = (1, 2), [1, 2], [(1,), "a"]
        self.ratio, self.flag, self.nothing, self.type = 0.5, False, None, "none"


@pytest.fixture
def path(tmp_path):
    """Where a model is saved."""
    return tmp_path / "model.safetensors"


@pytest.fixture
def net():
    """A network whose statistics are not the initial ones, in eval mode."""
    return trained(0)


def trained(seed: int) -> TinyNet:
    """As if trained: weights and running statistics all differ from those of any other seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = tiny_net()
        model(torch.rand(8, 3, 8, 8))
    return model.eval()


def same_tensors(one: nn.Module, other: nn.Module) -> bool:
    """Equal to the bit, in type too, under the same names; buffers that are not persistent included."""
    first, second = dict(artifact._tensors(one)), dict(artifact._tensors(other))
    return first.keys() == second.keys() and all(
        value.dtype == second[name].dtype and value.equal(second[name]) for name, value in first.items()
    )


def header_of(path) -> dict[str, dict[str, str]]:
    """The JSON at the start of a safetensors file, read by hand."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length])


def test_models_load_to_the_bit_in_a_fresh_process(tmp_path, net):
    """Dense, structurally pruned, masked and factorized models put out the very same logits where they are loaded."""
    models = {"dense": net, "cut": prune_channels(net, IMAGES[:1], 0.4), "masked": prune_weights(net, 0.5)}
    models["factorized"] = factorize(net, IMAGES[:1], LowRankConfig(by="ratio", target=0.4, only=("features",)))
    expected = {"images": IMAGES}
    for name, model in models.items():
        artifact.save(model, tmp_path / f"{name}.safetensors")
        with torch.inference_mode():
            expected[name] = model(IMAGES)
    save_file(expected, tmp_path / "expected")
    command = [sys.executable, "-W", "error", "-c", FRESH_PROCESS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["cut 3 6", "dense 3 10", "factorized 3 10", "masked 3 10"]


def test_the_file_holds_json_and_tensors_and_no_pickle(path, net):
    """Eight bytes of length, JSON, then the bytes of the tensors that the JSON lists, and not one more."""
    artifact.save(net, path)
    header = header_of(path)
    content = path.read_bytes()
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    assert 8 + int.from_bytes(content[:8], "little") + max(ends) == len(content)
    assert header.keys() - {"__metadata__"} == net.state_dict().keys()
    modules = json.loads(header["__metadata__"][artifact.FORMAT])["modules"]
    assert modules["features.0"]["out_channels"] == 5
    assert load_file(path)["classifier.bias"].equal(net.classifier.bias)


def test_equal_models_give_equal_bytes(net):
    """Bytes and digest depend on the model alone, so that a cache finds it again; one changed bit changes them."""
    first = artifact.serialize(net)
    assert {artifact.serialize(copy.deepcopy(net)) for _ in range(20)} == {first}
    other = copy.deepcopy(net)
    other.classifier.bias.data[0] += 1
    assert artifact.digest(net) == artifact.digest(copy.deepcopy(net)) != artifact.digest(other)


def test_shapes_and_attributes_of_a_cut_model_come_back(path, net):
    """A smaller network is rebuilt out of the factory's full-size one, attributes that code reads included."""
    cut = prune_channels(net, IMAGES[:1], 0.4)
    artifact.save(cut, path)
    loaded = artifact.load(path, tiny_net)
    assert same_tensors(loaded, cut)
    assert (loaded.features[0].out_channels, loaded.features[3].in_channels) == (3, 3)
    assert loaded.classifier.in_features == 6
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_every_module_is_in_the_mode_it_was_saved_in(path, net):
    """Train and eval are kept module by module."""
    net.train()
    net.features[1].eval()
    artifact.save(net, path)
    loaded = artifact.load(path, lambda: tiny_net().eval())
    modes = [(name, module.training) for name, module in loaded.named_modules()]
    assert modes == [(name, module.training) for name, module in net.named_modules()]


def test_plain_attributes_come_back_with_their_types(path):
    """Tuples stay tuples and lists lists, nested ones too; an attribute may have any name."""
    model = Oddments()
    model.pair, model.row, model.nested = (3, (4.5, "x")), [5, [None]], [(True,), []]
    model.ratio, model.flag, model.nothing, model.type = float("inf"), True, "something", "some"
    artifact.save(model, path)
    loaded = artifact.load(path, Oddments)
    for key in ("pair", "row", "nested", "ratio", "flag", "nothing", "type"):
        assert getattr(loaded, key) == getattr(model, key), key
        assert type(getattr(loaded, key)) is type(getattr(model, key)), key
    assert type(loaded.row[1]) is list
    assert type(loaded.pair[1]) is tuple


def test_buffers_come_back_persistent_or_not(path):
    """A buffer that a state dict would leave out is in the file, and stays left out of the state dict."""
    model = Oddments()
    model.kept += 1
    model.fleeting += 2
    artifact.save(model, path)
    loaded = artifact.load(path, Oddments)
    assert same_tensors(loaded, model)
    assert loaded.absent is None
    assert loaded.state_dict().keys() == model.state_dict().keys() == {"weight", "kept"}


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.int64, torch.bool, torch.uint8]
)
def test_every_type_of_tensor_comes_back(path, dtype):
    """Parameters and buffers have the type they were saved in, whatever the factory makes them."""
    model = Oddments()
    values = torch.tensor([0.0, 1.0, 3.0]).to(dtype)
    model.weight = nn.Parameter(values, requires_grad=dtype.is_floating_point)
    model.kept = values[:2].clone()
    artifact.save(model, path)
    loaded = artifact.load(path, Oddments)
    assert same_tensors(loaded, model)
    assert isinstance(loaded.weight, nn.Parameter)


def test_shared_tensors_stay_shared(path):
    """A weight and a buffer that two layers share are stored once, and are one again after loading."""

    def tied() -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4))
        model[1].weight = model[0].weight
        model[3].running_mean = model[2].running_mean
        return model

    model = tied()
    artifact.save(model, path)
    loaded = artifact.load(path, tied)
    assert same_tensors(loaded, model)
    assert loaded[1].weight is loaded[0].weight
    assert loaded[3].running_mean is loaded[2].running_mean
    assert "1.weight" not in load_file(path)
    assert loaded[1].bias is not loaded[0].bias


def test_a_module_used_twice_stays_one(path):
    """One module under two names is restored under both."""

    def looped() -> nn.Module:
        layer = nn.Linear(4, 4)
        return nn.Sequential(layer, nn.ReLU(), layer)

    model = looped()
    artifact.save(model, path)
    loaded = artifact.load(path, looped)
    assert loaded[0] is loaded[2]
    assert same_tensors(loaded, model)


def test_views_of_one_tensor_are_saved_apart(path):
    """Buffers that overlap in memory, as slices of one tensor do, are written and read like any others."""

    def sliced() -> nn.Module:
        model = Oddments()
        whole = torch.arange(4.0)
        model.kept, model.fleeting = whole[:3], whole[1:]
        return model

    artifact.save(sliced(), path)
    assert same_tensors(artifact.load(path, Oddments), sliced())


def test_a_model_without_any_tensor_comes_back(path):
    """Nothing to store is not an error."""
    artifact.save(nn.Sequential(nn.ReLU(), nn.Flatten(2)), path)
    assert artifact.load(path, lambda: nn.Sequential(nn.ReLU(), nn.Flatten()))[1].start_dim == 2


def test_masks_become_zeros_in_the_file_and_stay_in_the_model(path, net):
    """The file holds plain zeros, even of weights that a step has just moved; the model keeps masks and values."""
    masked = prune_weights(net, 0.5)
    masked.classifier.weight.data += 1
    artifact.save(masked, path)
    assert masked.classifier.weight.all()
    assert masked.classifier.weight_mask.sum() == 15
    loaded = artifact.load(path, tiny_net)
    assert "weight_mask" not in dict(loaded.classifier.named_buffers())
    assert not loaded.classifier._forward_pre_hooks
    assert loaded.classifier.weight.equal(masked.classifier.weight * masked.classifier.weight_mask)


def test_weights_lie_where_torch_would_put_them(path, net):
    """Loaded tensors are aligned like freshly made ones: convolutions round differently at odd addresses."""
    artifact.save(net, path)
    assert all(tensor.data_ptr() % 64 == 0 for _, tensor in artifact._tensors(artifact.load(path, tiny_net)))


def test_a_full_disk_leaves_the_old_file(path, net):
    """A write that the system cuts short leaves the old file as it was, and no part of the new one."""
    artifact.save(net, path)
    old = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(old) // 2, limits[1]))
    try:
        with pytest.raises(ArtifactError, match=f"^cannot write {path}: File too large$"):
            artifact.save(trained(1), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == old
    assert list(path.parent.iterdir()) == [path]


def layers() -> st.SearchStrategy[list[tuple[int, int, bool, str]]]:
    """Width, groups, norm or not, and type of each of up to four convolutions."""
    layer = st.tuples(
        st.integers(1, 4), st.sampled_from([1, 2]), st.booleans(), st.sampled_from(["float32", "float64", "bfloat16"])
    )
    return st.lists(layer, max_size=4)


def built(widths: list[tuple[int, int, bool, str]]) -> nn.Module:
    """Convolutions of those widths, one after another."""
    model, channels = nn.Sequential(), 2
    for width, groups, norm, dtype in widths:
        layer = nn.Conv2d(channels, 2 * width, 1, groups=groups, bias=not norm)
        model.append(layer.to(getattr(torch, dtype)))
        if norm:
            model.append(nn.BatchNorm2d(2 * width, affine=groups == 1))
        channels = 2 * width
    return model


@settings(deadline=None, max_examples=25)
@given(layers(), st.integers(0, 2**31), st.booleans())
def test_any_network_comes_back_to_the_bit(tmp_path_factory, widths, seed, training):
    """Whatever the layers, widths and types: the same tensors, modes and bytes after one round trip."""
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    torch.manual_seed(seed)
    model = built(widths).train(training)
    artifact.save(model, path)
    # The factory's own widths differ wherever it has two channels or more to give: those of the file must win.
    loaded = artifact.load(path, lambda: built([(1, groups, *rest) for _, groups, *rest in widths]))
    assert same_tensors(loaded, model)
    assert loaded.training is training
    assert artifact.serialize(loaded) == path.read_bytes()


@settings(deadline=None, max_examples=25)
@given(case=networks(), ratio=ratios())
def test_any_pruned_network_comes_back_to_the_bit(tmp_path_factory, case, ratio):
    """However its channels were coupled: tensors, the widths its modules know, outputs and bytes are the same."""
    path = tmp_path_factory.getbasetemp() / "pruned.safetensors"
    net, x = case
    small = prune_channels(net, x, ratio)
    artifact.save(small, path)
    loaded = artifact.load(path, lambda: copy.deepcopy(net))
    assert same_tensors(loaded, small)
    assert shape_of(loaded) == shape_of(small)
    assert artifact.serialize(loaded) == path.read_bytes()
    with torch.inference_mode():
        assert loaded(x).equal(small(x))


class Keeping(nn.Module):
    """Keeps what it computed for the last image size; ``how`` says in what."""

    last_shape = None

    def __init__(self, how: str) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 1)
        self.how, self.width, self.most = how, 16, 0
        if how == "instance":
            self.last_shape, self.grid = None, torch.empty(0)
        elif how in ("object", "array"):
            self.cache = None
        elif how == "dict":
            self.grids = {}
        elif how.startswith("declared"):
            self.register_buffer("grid", None, persistent=how == "declared")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        y = y.reshape(len(x), self.width, *y.shape[2:])
        return (self.last(y) + GRIDS.get(self.how, in_attribute)(self, y)).mean((2, 3))


def grid(side: int) -> torch.Tensor:
    """What is worth keeping."""
    return torch.arange(side).float()


def in_attribute(model: Keeping, y: torch.Tensor) -> torch.Tensor:
    """In an attribute or a buffer that was declared, beside the shape that it is for."""
    if model.last_shape != y.shape:
        model.last_shape, model.grid = y.shape, grid(y.shape[-1])
    return model.grid


def in_buffer(model: Keeping, y: torch.Tensor) -> torch.Tensor:
    """In a buffer that was not."""
    if model.last_shape != y.shape:
        model.last_shape = y.shape
        model.register_buffer("grid", grid(y.shape[-1]), persistent=False)
    return model.grid


def in_dict(model: Keeping, y: torch.Tensor) -> torch.Tensor:
    """By size."""
    return model.grids.setdefault(y.shape[-1], grid(y.shape[-1]))


def in_object(model: Keeping, y: torch.Tensor) -> torch.Tensor:
    """In an object within an object, beside a number."""
    if model.most != y.shape[-1]:
        model.most = y.shape[-1]
        model.cache = SimpleNamespace(rows=[SimpleNamespace(grid=grid(model.most))])
    return model.cache.rows[0].grid


def in_array(model: Keeping, y: torch.Tensor) -> torch.Tensor:
    """Of another library."""
    if model.most != y.shape[-1]:
        model.most, model.cache = y.shape[-1], grid(y.shape[-1]).numpy()
    return torch.from_numpy(model.cache)


def for_the_largest(model: Keeping, y: torch.Tensor) -> torch.Tensor:
    """Of which smaller ones take a part."""
    if model.most < y.shape[-1]:
        model.most, model.grid = y.shape[-1], grid(y.shape[-1])
    return model.grid[: y.shape[-1]]


GRIDS = {
    "dict": in_dict,
    "object": in_object,
    "array": in_array,
    "largest": for_the_largest,
    "buffer": in_buffer,
}


@pytest.mark.parametrize(
    "how", ["class", "instance", "dict", "object", "array", "largest", "buffer", "declared", "declared, not persistent"]
)
@pytest.mark.parametrize("pruned", [True, False])
def test_a_model_that_ran_is_saved_and_loaded(path, how, pruned):
    """What a forward pass keeps does not tell the fresh network that it ran, nor hide how wide a cut model is."""
    torch.manual_seed(0)
    model, x = Keeping(how).train(mode=pruned), torch.randn(2, 3, 8, 8)
    model(x)
    small = prune_channels(model, x[:1], 0.25) if pruned else model
    expected = small(x)
    artifact.save(small, path)
    loaded = artifact.load(path, lambda: Keeping(how))
    torch.testing.assert_close(loaded(x), expected, rtol=0, atol=0)
    assert loaded.width == (12 if pruned else 16)
    assert loaded.training == pruned
    other = torch.randn(2, 3, 12, 12)
    torch.testing.assert_close(loaded(other), small(other), rtol=0, atol=0)


class Pooling(nn.Module):
    """Makes the object that it works with when it first runs, as torchvision's detectors do, and notes that it did."""

    def __init__(self, mapper: object = None, sizes: object = None) -> None:
        super().__init__()
        self.mapper, self.sizes, self.layer = mapper, sizes, nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.sizes is None:
            self.sizes, self.mapper = [x.shape[-1]], SimpleNamespace(by=2.0)
        return self.layer(x) * self.mapper.by


def test_an_object_that_a_forward_pass_made_is_made_again(path):
    """It is not in the file, and so the fresh network must not be told that it is there."""
    model, x = Pooling(), torch.randn(2, 4)
    expected = model(x)
    artifact.save(model, path)
    loaded = artifact.load(path, Pooling)
    assert loaded.sizes is None
    torch.testing.assert_close(loaded(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize(("saved", "built"), [(torch.relu, None), (SimpleNamespace(by=2.0), 2.0)])
def test_an_object_that_no_forward_pass_made_tells_networks_apart(path, saved, built):
    """A function in place of none, and a number in place of an object."""
    artifact.save(Pooling(saved), path)
    with pytest.raises(ArtifactError, match=r"module '' differs in its attributes: mapper$"):
        artifact.load(path, lambda: Pooling(built))


def test_a_plain_state_dict_is_loaded_into_the_factory_s_network(path):
    """Whoever wrote it as safetensors; of tensors that share memory one name is enough, as others write it."""

    def tied() -> TinyNet:
        model = tiny_net()
        model.again = model.classifier
        return model

    torch.manual_seed(0)
    model = tied().eval()
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("again.")}
    save_file(state, path, {"format": "pt"})
    loaded = artifact.load(path, tied).eval()
    assert loaded.again is loaded.classifier
    torch.testing.assert_close(loaded(IMAGES), model(IMAGES), rtol=0, atol=0)
