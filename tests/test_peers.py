from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch

from benchmarks import peers, peers_cuts, peers_int8, peers_subjects, vgg
from benchmarks.peers import Row, Session
from benchmarks.peers_subjects import Trial, num_params
from compress.errors import ConfigError
from compress.quality import perplexity, topk_error
from compress.recipe.fit_step import Fit
from compress.recipe.training_batches import TrainingBatches
from tests.workloads import tiny_workload


@pytest.fixture
def trial() -> Trial:
    """The tiny network, untrained."""
    workload = tiny_workload()
    torch.manual_seed(0)
    plain = TrainingBatches(split=workload.dataset.train, batches=2, batch_size=16, seed=0)
    return Trial(
        workload=workload,
        dense=workload.build().eval(),
        test=workload.dataset.test,
        plain=plain,
        augmented=replace(plain, augmented=True),
    )


@pytest.fixture
def session(trial, tmp_path) -> Session:
    """Nothing is measured yet."""
    targets = peers_subjects.targets_of(trial)
    return Session(trial=trial, targets=targets, calibration=32, file=tmp_path / "peers.json")


def test_epochs_are_shared_out_as_the_recipe_shares_them():
    """Each training keeps its share, and the last of its image sizes; steps that train nothing stay."""
    other = object()
    steps = (Fit(epochs=2), Fit(epochs=2, image_sizes=(24, 32)), other)
    assert peers_cuts.shortened(steps, 4) == list(steps)
    assert peers_cuts.shortened(steps, 2) == [Fit(epochs=1), Fit(epochs=1, image_sizes=(32,)), other]


@pytest.mark.parametrize(("steps", "epochs"), [((Fit(epochs=2), Fit(epochs=2)), 1), ((object(),), 4)])
def test_epochs_that_cannot_be_shared_out_are_refused(steps, epochs):
    """A training would be left without any, or there is none."""
    with pytest.raises(ConfigError, match="epochs must be shared out"):
        peers_cuts.shortened(steps, epochs)


def test_a_cut_network_is_trained_as_the_recipe_says(trial, tmp_path, monkeypatch):
    """By the recipe for its data, from the step after its cut on, resumably."""
    folder = tmp_path / trial.workload.dataset.name
    folder.mkdir()
    (folder / "structured.toml").write_text(
        '[[steps]]\nuse = "prune_channels"\n[[steps]]\nuse = "fit"\nepochs = 2\nwarmup_epochs = 0.1\nbatch_size = 16\n'
        'validation_fraction = 0.0\nautocast = "off"\ndistill = true\n'
    )
    monkeypatch.setattr(peers_cuts, "_RECIPES", tmp_path)
    trained = peers_cuts.trained_on(copy.deepcopy(trial.dense), trial, 1, tmp_path / "a.checkpoint")
    assert not torch.equal(trained.classifier.weight, trial.dense.classifier.weight)
    with monkeypatch.context() as patch:
        patch.setattr(peers_cuts, "apply_step", lambda *_: pytest.fail("trained twice"))
        again = peers_cuts.trained_on(copy.deepcopy(trial.dense), trial, 1, tmp_path / "a.checkpoint")
    assert torch.equal(trained.classifier.weight, again.classifier.weight)


def test_what_tells_most_is_measured_first(session):
    """The dense network, some cuts, masks and int8, the other cuts; after distillation the cuts alone."""
    rows = [row for row, _ in peers.wanted(session, 0)]
    ways = list(dict.fromkeys(row.way for row in rows))
    cuts = list(peers_cuts.CUTS)
    others = [*peers_cuts.MASKS, *peers_int8.INT8]
    assert ways == ["dense", *cuts[: peers._FIRST], *others, *cuts[peers._FIRST :]]
    assert {row.target for row in rows if row.way == cuts[0]} == set(session.targets)
    trained = [row for row, _ in peers.wanted(session, 4)]
    assert {(row.way, row.epochs) for row in trained} == {("dense", 0), *((name, 4) for name in cuts)}


def test_a_figure_is_measured_once(session):
    """It stands in the file under what it depends on."""
    calls = []

    def make(one: Trial) -> torch.nn.Module:
        calls.append(one)
        return one.dense

    for _ in range(2):
        peers.measure(session, Row(way="dense"), make)
    assert len(calls) == 1
    (key,) = json.loads(session.file.read_text())
    assert key == "tiny|dense|None|0|32|24"
    assert session.figures(Row(way="dense"))["num_params"] == num_params(session.trial.dense)
    assert session.figures(Row(way="dense", epochs=4)) is None


def test_a_tool_that_fails_is_a_finding_and_one_that_is_missing_is_none(session):
    """The reason is kept, and the table says so; what is not installed can be measured later."""

    def fails(_: Trial) -> torch.nn.Module:
        raise RuntimeError("a shape is wrong\nat length")

    def missing(_: Trial) -> torch.nn.Module:
        raise ImportError("No module named 'nncf'")

    first, second, *_ = peers_int8.INT8
    peers.measure(session, Row(way="dense"), lambda one: one.dense)
    peers.measure(session, Row(way=first), fails)
    peers.measure(session, Row(way=second), missing)
    assert session.figures(Row(way=first)) == {"failed": "RuntimeError: a shape is wrong"}
    assert session.figures(Row(way=second)) is None
    lines = peers.tables(session, 0)
    assert any(first in line and "fails" in line for line in lines)
    assert not any(second in line for line in lines)


def test_the_tables_hold_what_was_measured(session):
    """Errors, and what they are more than the dense network's; of int8 layers, bytes and seconds too."""
    cut, target = next(iter(peers_cuts.CUTS)), session.targets[0]
    int8 = next(iter(peers_int8.INT8))
    figures = {
        Row(way="dense"): {"error": 0.25},
        Row(way=cut, target=target): {"error": 0.265},
        Row(way=cut, target=target, epochs=4): {"error": 0.24},
        Row(way=int8): {"error": 0.2525, "num_int8": 58, "file_bytes": 6_540_000, "seconds": 41.2},
    }
    session.file.write_text(json.dumps({session.key(row): one for row, one in figures.items()}))
    text = "\n".join(peers.tables(session, 0))
    assert "26.50 % (+1.50)" in text
    assert "24.00 %" not in text
    assert [cell.strip() for cell in next(line for line in text.splitlines() if int8 in line).split("|")[1:-1]] == [
        int8, "25.25 % (+0.25)", "58", "6.54 MB", "41",
    ]  # fmt: skip
    assert "24.00 % (-1.00)" in "\n".join(peers.tables(session, 4))
    some = "\n".join(peers.tables(session, 0, only="quantize$"))
    assert int8 in some
    assert cut not in some


def test_a_change_is_written_as_finely_as_its_value():
    """Points of shares; of other numbers two decimals, and no powers of ten."""
    assert peers.written({"error": 0.265}, 0.25, topk_error(1, 10).metric) == "26.50 % (+1.50)"
    assert peers.written({"error": 11.6889532}, 11.6889507, perplexity().metric) == "11.69 (+0.00)"


@pytest.mark.parametrize("times_fewer_macs", [(), (1.5,)])
@pytest.mark.parametrize("name", list(peers_cuts.CUTS)[:3])
def test_this_packages_cuts_meet_the_target(trial, name, times_fewer_macs):
    """They leave no more parameters, or multiply-accumulates."""
    target = peers_subjects.targets_of(trial, times_fewer_macs)[0]
    assert target.of == ("macs" if times_fewer_macs else "params")
    assert target.count(peers_cuts.CUTS[name](replace(trial, target=target)), trial.example) <= target.left


@pytest.mark.nightly
@pytest.mark.parametrize("name", list(peers_int8.INT8))
def test_ways_to_int8_count_the_layers_that_are(trial, name):
    """Two convolutions and a linear layer, whatever tool makes them int8."""
    pytest.importorskip({"t": "torchao", "O": "onnxruntime", "N": "nncf"}[name[0]])
    found = peers_int8.INT8[name](trial)
    assert found.num_int8 == 3
    assert found.file_bytes > 0
    assert 0 <= trial.judged(found.model) <= 1


def test_vgg_19_is_the_published_one():
    """20.1 M parameters, 398 M multiply-accumulates at 32 x 32; it takes the small images of its training too."""
    workload = vgg.cifar100()
    model = workload.build().eval()
    (images,) = workload.inputs.args
    assert num_params(model) == 20_081_188
    assert peers_subjects.Target(of="macs", left=0).count(model, (images,)) == 398_182_400
    assert model(images[:, :, :16, :16]).shape == (1, 100)
