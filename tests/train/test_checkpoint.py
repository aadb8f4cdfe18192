from __future__ import annotations

import dataclasses

import pytest
import torch

from compress.data.storage import load_tensors, save_tensors
from compress.errors import ArtifactError
from compress.train import EpochRecord, FitConfig
from compress.train.checkpoint import State, identity, load_checkpoint_, save_checkpoint, tensors_of
from compress.train.fit import _fresh_state

CONFIG = FitConfig(epochs=3, learning_rate=0.1 + 0.2)
RECORD = EpochRecord(train_loss=1 / 3, validation=None, learning_rate=1e-300)


def state_after_a_step(net) -> State:
    """A training state with momentum, a best epoch and a history."""
    state = _fresh_state(net, CONFIG, torch.device("cpu"))
    state.model(torch.ones(4, 3, 8, 8)).square().sum().backward()
    state.optimizer.step()
    state.history, state.best_epoch = [RECORD, dataclasses.replace(RECORD, validation=0.1)], 1
    state.best = {name: value + 1 for name, value in tensors_of(state.model).items()}
    return state


def test_a_state_comes_back_to_the_bit(net, data, tmp_path):
    """Weights, buffers, momentum, best weights and history are after loading what they were before saving."""
    state, run = state_after_a_step(net), identity(net, data, CONFIG)
    save_checkpoint(tmp_path / "run", state, run)
    loaded = _fresh_state(net, CONFIG, torch.device("cpu"))
    load_checkpoint_(tmp_path / "run", loaded, run)
    assert loaded.history == state.history
    assert loaded.best_epoch == 1
    for before, after in ((tensors_of(state.model), tensors_of(loaded.model)), (state.best, loaded.best)):
        assert before.keys() == after.keys()
        assert all(value.equal(after[name]) for name, value in before.items())
    buffers = [
        [current.optimizer.state[parameter]["momentum_buffer"] for parameter in current.model.parameters()]
        for current in (state, loaded)
    ]
    assert all(one.equal(other) for one, other in zip(*buffers, strict=True))
    assert all(buffer.abs().sum() > 0 for buffer in buffers[1][:1])


def test_a_checkpoint_is_no_pickle(net, data, tmp_path):
    """What is on disk is a safetensors file, with everything that is no tensor as text in its header."""
    save_checkpoint(tmp_path / "run", state_after_a_step(net), identity(net, data, CONFIG))
    _, metadata = load_tensors(tmp_path / "run", ArtifactError)
    assert set(metadata) == {"format", "progress", "settings", "data", "model", "teacher"}


@pytest.mark.parametrize(
    ("drop", "change", "message"),
    [
        ("", {"format": "compress-fit 0"}, "must be of the format 'compress-fit 3', got 'compress-fit 0'"),
        ("", {"settings": "0"}, "has other settings"),
        ("", {"progress": "{}"}, "must tell how far its run was"),
        ("", {"progress": "no json"}, "must tell how far its run was"),
        ("", {"progress": '{"history": [{}], "best_epoch": 1}'}, "must tell how far its run was"),
        ("model/0.weight", {}, "must hold every tensor of its model"),
        ("best/1.running_var", {}, "must hold every tensor of its model"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_whole(net, data, tmp_path, drop, change, message):  # noqa: PLR0917
    """Another format, a missing tensor or broken text: one sentence with the file, and nothing is loaded."""
    path, run = tmp_path / "run", identity(net, data, CONFIG)
    save_checkpoint(path, state_after_a_step(net), run)
    tensors, metadata = load_tensors(path, ArtifactError)
    tensors.pop(drop, None)
    save_tensors(path, tensors, {**metadata, **change}, ArtifactError)
    fresh = _fresh_state(net, CONFIG, torch.device("cpu"))
    with pytest.raises(ArtifactError, match=message) as raised:
        load_checkpoint_(path, fresh, run)
    assert str(path) in str(raised.value)
    assert all(value.equal(net.state_dict()[name]) for name, value in fresh.model.state_dict().items())
    assert not fresh.optimizer.state
    assert fresh.history == []


def test_a_cut_checkpoint_is_refused(net, data, tmp_path):
    """Half a file is an ArtifactError that names it."""
    path, run = tmp_path / "run", identity(net, data, CONFIG)
    save_checkpoint(path, state_after_a_step(net), run)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ArtifactError, match=r"cannot read .*/run"):
        load_checkpoint_(path, _fresh_state(net, CONFIG, torch.device("cpu")), run)


def test_a_full_disk_leaves_the_older_checkpoint(net, data, tmp_path, monkeypatch):
    """Where a new checkpoint cannot be written the error says so, and the one before it is whole."""
    path, run = tmp_path / "run", identity(net, data, CONFIG)
    save_checkpoint(path, state_after_a_step(net), run)
    older = path.read_bytes()

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ArtifactError, match=r"cannot write .*/run: No space left on device"):
        save_checkpoint(path, state_after_a_step(net), run)
    assert path.read_bytes() == older
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_the_identity_covers_settings_data_and_shapes(net, data):
    """A changed setting, training split, or tensor type changes its own digest; other weights change none."""
    base = identity(net, data, CONFIG)
    torch.nn.init.zeros_(net[0].weight)
    assert identity(net, data, CONFIG) == base
    changed = [
        identity(net, data, dataclasses.replace(CONFIG, seed=1)),
        identity(net, dataclasses.replace(data, train_sha256="0"), CONFIG),
        identity(net.double(), data, CONFIG),
    ]
    differing = [[part for part in base if base[part] != other[part]] for other in changed]
    assert differing == [["settings"], ["data"], ["model"]]
