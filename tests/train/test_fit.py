from __future__ import annotations

import copy
import dataclasses
import gc

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from compress.errors import ArtifactError, ConfigError, ModelError
from compress.train import FitConfig, evaluate, fit
from compress.train import progress as progress_module
from compress.train.checkpoint import State
from compress.train.config import learning_rate
from compress.train.fit import _fresh_state

SHORT = FitConfig(
    epochs=4, batch_size=16, learning_rate=0.05, warmup_epochs=0.5, validation_fraction=0.2, autocast="off", seed=3
)


@dataclasses.dataclass(frozen=True)
class Watched:
    """A split that does something before each pass of training."""

    split: object
    before: object

    def __len__(self):
        return len(self.split)

    @property
    def labels(self):
        return self.split.labels

    @property
    def num_classes(self):
        return self.split.num_classes

    def subset(self, indices):
        return Watched(self.split.subset(indices), self.before)

    def batches(self, batch_size, *, training=False, seed=0, rank=0, world_size=1):
        if training:
            self.before()
        return self.split.batches(batch_size, training=training, seed=seed, rank=rank, world_size=world_size)


def interrupting(data, after: int, error: type[BaseException] = KeyboardInterrupt):
    """The same data, whose training stops when epoch ``after`` (from 0) begins."""
    epochs = iter(range(after))

    def before():
        if next(epochs, None) is None:
            raise error

    return dataclasses.replace(data, train=Watched(data.train, before))


def same_state(first: nn.Module, second: nn.Module) -> bool:
    """Whether two models hold the same bits under the same names."""
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(value.equal(other[name]) for name, value in one.items())


def test_training_learns(net, data):
    """A few epochs bring the error on the test split from chance to near nothing, and the loss down."""
    result = fit(net, data, dataclasses.replace(SHORT, epochs=12, learning_rate=0.2), progress=False)
    assert evaluate(net, data.test).top1_error > 0.5
    assert evaluate(result.model, data.test).top1_error < 0.1
    assert result.history[-1].train_loss < result.history[0].train_loss / 1.5


def test_the_given_model_and_random_state_are_left_alone(net, data):
    """A new model is returned in the layout and modes of the given one, of which not a bit changed."""
    net[1].eval()
    given = copy.deepcopy(net)
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    trained = fit(net, data, SHORT, progress=False).model
    assert torch.rand(1).equal(expected)
    assert same_state(net, given)
    assert not same_state(trained, given)
    assert [module.training for module in trained.modules()] == [module.training for module in given.modules()]
    assert all(parameter.is_contiguous() and parameter.grad is None for parameter in trained.parameters())


def test_training_repeats_to_the_bit(net, data):
    """The same arguments give the same weights, whatever the caller drew before; another seed gives others."""
    first = fit(net, data, SHORT, progress=False)
    torch.rand(7)
    again = fit(net, data, SHORT, progress=False)
    other = fit(net, data, dataclasses.replace(SHORT, seed=4), progress=False)
    assert same_state(first.model, again.model)
    assert first.history == again.history
    assert not same_state(first.model, other.model)


def test_training_is_the_textbook_loop(net, data):
    """The result is what a plain loop of Nesterov SGD on the same batches gives."""
    net[4] = nn.Identity()  # dropout, whose draws the plain loop would have to repeat
    config = dataclasses.replace(SHORT, validation_fraction=0.0, channels_last=False)
    seeds = []
    data = dataclasses.replace(data, train=Seeds(data.train, seeds))
    trained = fit(net, data, config, progress=False).model

    plain, velocity = copy.deepcopy(net).train(), {}
    steps = [batch for seed in seeds for batch in data.train.split.batches(16, training=True, seed=seed)]
    for step, (images, labels) in enumerate(steps):
        rate = learning_rate(config, step, 4)
        loss = F.cross_entropy(plain(images), labels, label_smoothing=0.1)
        gradients = torch.autograd.grad(loss, list(plain.parameters()))
        with torch.no_grad():
            for (name, parameter), gradient in zip(plain.named_parameters(), gradients, strict=True):
                decayed = gradient + (5e-4 * parameter if parameter.ndim > 1 else 0)
                velocity[name] = 0.9 * velocity[name] + decayed if name in velocity else decayed
                parameter.sub_(rate * (decayed + 0.9 * velocity[name]))
    assert len(steps) == 16
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("tied", [False, True])
def test_the_average_is_that_of_all_steps(data, tied):
    """Weights and running statistics, step by step, faster at first; one under two names only once."""
    torch.manual_seed(0)
    first, second = nn.Linear(8, 8), nn.Linear(8, 8)
    second.weight = first.weight if tied else second.weight
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8), first, second, nn.Linear(8, 3))
    config = dataclasses.replace(SHORT, epochs=2, validation_fraction=0.0, channels_last=False, ema_decay=0.6)
    states: list[dict[str, torch.Tensor]] = []

    class Noting(torch.optim.SGD):
        def step(self, closure=None):
            super().step(closure)
            owner = next(one for one in gc.get_objects() if type(one) is State and one.optimizer is self)
            states.append({name: value.clone() for name, value in owner.model.state_dict().items()})

    made = fit(net, data, config, optimizer=lambda groups: Noting(groups, lr=0.05), progress=False).model
    expected = {name: value.double() for name, value in net.state_dict().items()}
    for step, state in enumerate(states):
        decay = min(0.6, (1 + step) / (10 + step))
        expected = {name: decay * value + (1 - decay) * state[name].double() for name, value in expected.items()}
    assert len(states) == 8
    for name, value in made.state_dict().items():
        wanted = states[-1][name] if name.endswith("num_batches_tracked") else expected[name]
        torch.testing.assert_close(value.double(), wanted.double(), atol=1e-6, rtol=1e-5)


def test_the_best_epoch_is_chosen_among_averages(net, data):
    """What is validated is what is handed out."""
    config = dataclasses.replace(SHORT, ema_decay=0.9)
    result = fit(net, data, config, progress=False)
    _, held_out = data.holdout(config.validation_fraction, config.seed)
    found = evaluate(result.model, held_out).top1_error
    assert found == pytest.approx(result.history[result.best_epoch - 1].validation)


def test_images_grow_as_the_settings_say(net, data):
    """The network sees images of the sizes asked for, in their order; validation keeps the images' own."""
    seen = []
    net.register_forward_pre_hook(lambda module, inputs: seen.append((module.training, *inputs[0].shape[2:])))
    # A hook is copied with the model that is trained, and writes into the same list.
    fit(net, data, dataclasses.replace(SHORT, epochs=2, image_sizes=(4, 8)), progress=False)
    assert list(dict.fromkeys(seen)) == [(True, 4, 4), (False, 8, 8), (True, 8, 8)]


class Seeds(Watched):
    """A split that keeps the seeds it was asked for."""

    def batches(self, batch_size, *, training=False, seed=0, rank=0, world_size=1):
        if training:
            self.before.append(seed)
        return self.split.batches(batch_size, training=training, seed=seed, rank=rank, world_size=world_size)


def test_biases_and_norms_are_not_decayed(net):
    """Weight decay falls on the two weights of more than one dimension, and on nothing else."""
    state = _fresh_state(net, FitConfig(), torch.device("cpu"))
    decayed, plain = state.optimizer.param_groups
    assert [list(parameter.shape) for parameter in decayed["params"]] == [[6, 3, 3, 3], [3, 24]]
    assert [list(parameter.shape) for parameter in plain["params"]] == [[6], [6], [3]]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (5e-4, 0.0)


def test_frozen_parameters_stay(net, data):
    """What requires no gradient is not trained."""
    net[0].weight.requires_grad_(False)
    trained = fit(net, data, SHORT, progress=False).model
    assert trained[0].weight.equal(net[0].weight)
    assert not trained[6].weight.equal(net[6].weight)


@pytest.mark.parametrize("seed", range(3))
def test_the_best_epoch_is_the_one_that_is_kept(net, data, seed):
    """The model returned has the lowest validation error of all epochs, of equal ones the latest."""
    config = dataclasses.replace(SHORT, epochs=6, learning_rate=0.3, seed=seed)
    result = fit(net, data, config, progress=False)
    errors = [record.validation for record in result.history]
    validation = data.holdout(config.validation_fraction, config.seed)[1]
    assert errors[result.best_epoch - 1] == min(errors)
    assert min(errors) not in errors[result.best_epoch :]
    assert evaluate(result.model, validation).top1_error == min(errors)


def test_without_held_out_examples_the_last_epoch_is_kept(net, data):
    """A fraction of 0 trains on everything, measures nothing, and returns the last weights."""
    lengths = []
    config = dataclasses.replace(SHORT, validation_fraction=0.0)
    watched = dataclasses.replace(data, train=Watched(data.train, lambda: lengths.append(len(data.train))))
    result = fit(net, watched, config, progress=False)
    assert lengths == [60] * 4
    assert result.best_epoch == 4
    assert [record.validation for record in result.history] == [None] * 4


def test_the_test_split_is_never_touched(net, data):
    """Training runs to its end with a test split that cannot be read."""

    class Unreadable(Watched):
        def batches(self, *_arguments, **_settings):
            raise AssertionError

    blind = dataclasses.replace(data, test=Unreadable(data.test, None))
    assert fit(net, blind, SHORT, progress=False).best_epoch >= 1


@pytest.mark.parametrize("stop", [1, 3])
@pytest.mark.parametrize(
    "settings", [{}, {"validation_fraction": 0.2}, {"validation_fraction": 0.2, "ema_decay": 0.8, "cutmix": 0.5}]
)
def test_a_resumed_run_ends_with_the_same_bits(net, data, tmp_path, stop, settings):
    """Interrupted after some epochs and started again, training ends as if it had never stopped.

    It goes on from the checkpoint's weights, not from those it is given then.
    """
    config = dataclasses.replace(SHORT, **{"validation_fraction": 0.0, **settings})
    checkpoint = tmp_path / "run.checkpoint"
    whole = fit(net, data, config, progress=False)
    with pytest.raises(KeyboardInterrupt):
        fit(net, interrupting(data, stop), config, checkpoint=checkpoint, progress=False)
    began = []
    counted = dataclasses.replace(data, train=Watched(data.train, lambda: began.append(1)))
    other_start = copy.deepcopy(net)
    nn.init.ones_(other_start[0].weight)
    resumed = fit(other_start, counted, config, checkpoint=checkpoint, progress=False)
    assert len(began) == config.epochs - stop
    assert same_state(resumed.model, whole.model)
    assert resumed.history == whole.history
    assert resumed.best_epoch == whole.best_epoch
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_does_not_change_the_result(net, data, tmp_path):
    """Training with a checkpoint ends in the same weights as without."""
    plain = fit(net, data, SHORT, progress=False)
    saved = fit(net, data, SHORT, checkpoint=tmp_path / "new" / "run.checkpoint", progress=False)
    assert same_state(plain.model, saved.model)


def test_tied_weights_survive_a_checkpoint(data, tmp_path):
    """Two layers that share a weight share it still after a resume, and end with the same bits."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 3))
    net[4].weight = net[2].weight
    whole = fit(net, data, SHORT, progress=False)
    with pytest.raises(KeyboardInterrupt):
        fit(net, interrupting(data, 2), SHORT, checkpoint=tmp_path / "run", progress=False)
    resumed = fit(net, data, SHORT, checkpoint=tmp_path / "run", progress=False)
    assert resumed.model[4].weight is resumed.model[2].weight
    assert same_state(resumed.model, whole.model)


def test_an_interrupted_run_says_that_it_can_be_resumed(net, data, tmp_path, capfd):
    """Once a checkpoint is on disk, Ctrl-C passes through and stderr names the file."""
    checkpoint = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        fit(net, interrupting(data, 1), SHORT, checkpoint=checkpoint, progress=False)
    assert f"a rerun resumes from {checkpoint}" in capfd.readouterr().err.replace("\n", "")
    assert checkpoint.exists()


def test_an_interrupt_before_the_first_checkpoint_promises_nothing(net, data, tmp_path, capfd):
    """Without a checkpoint on disk nobody is told that a rerun would resume."""
    with pytest.raises(KeyboardInterrupt):
        fit(net, interrupting(data, 0), SHORT, checkpoint=tmp_path / "run", progress=False)
    assert capfd.readouterr().err == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("other", ["settings", "data", "model"])
def test_a_checkpoint_of_another_run_is_refused(net, data, tmp_path, other):
    """Other settings, data or shapes: refused in one sentence that says which, and the file is left."""
    checkpoint = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        fit(net, interrupting(data, 1), SHORT, checkpoint=checkpoint, progress=False)
    content = checkpoint.read_bytes()
    config = dataclasses.replace(SHORT, epochs=5) if other == "settings" else SHORT
    if other == "data":
        data = dataclasses.replace(data, train_sha256="0")
    if other == "model":
        net[6] = nn.Linear(24, 3, bias=False)
    with pytest.raises(ArtifactError, match=f"this one has other {other}: delete it to train anew"):
        fit(net, data, config, checkpoint=checkpoint, progress=False)
    assert checkpoint.read_bytes() == content


def test_a_loss_that_is_not_finite_stops_the_training(net, data):
    """A diverging run ends at the epoch where it diverged, with step and advice."""
    with pytest.raises(ModelError, match=r"the loss must stay finite, got (nan|inf) in epoch \d, step \d+: lower"):
        fit(net, data, dataclasses.replace(SHORT, learning_rate=1e30), progress=False)


class TooWide(nn.Linear):
    def forward(self, images):
        return super().forward(images.flatten(1))


def test_a_model_that_cannot_be_trained_is_refused(data):
    """No parameters to train, or logits of another width than the classes: one sentence."""
    with pytest.raises(ModelError, match="must have parameters that require gradients"):
        fit(nn.Flatten(), data, SHORT, progress=False)
    with pytest.raises(ModelError, match=r"logits of shape \[16, 3\], this one put out \[16, 4\]"):
        fit(TooWide(192, 4), data, dataclasses.replace(SHORT, validation_fraction=0.2), progress=False)


def test_state_that_is_no_tensor_is_refused(net, data):
    """A model whose state cannot be written without pickle is refused before it is trained."""

    class Extra(nn.Flatten):
        def get_extra_state(self):
            return {"calls": 1}

        def set_extra_state(self, state):
            pass

    net[5] = Extra()
    with pytest.raises(ModelError, match=r"must consist of tensors to be trained, got dict \('5._extra_state'\)"):
        fit(net, data, SHORT, progress=False)


def test_a_split_without_batches_is_refused(net, data):
    """A user's own split that gives nothing is named as the cause."""

    class Silent(Watched):
        def batches(self, *_arguments, **_settings):
            return iter(())

    config = dataclasses.replace(SHORT, validation_fraction=0.0)
    with pytest.raises(ConfigError, match="at least one batch"):
        fit(net, dataclasses.replace(data, train=Silent(data.train, None)), config, progress=False)


def test_a_device_that_is_not_there_is_refused(net, data):
    """The name of the device is in the sentence."""
    with pytest.raises(ConfigError, match="device must be one that this machine has, got 'nowhere'"):
        fit(net, data, SHORT, progress=False, device="nowhere")


def test_bfloat16_is_used_where_asked_for(net, data):
    """Under "bfloat16" the convolutions compute in it, the loss stays finite, and the weights stay float32."""
    seen = set()
    net[0].register_forward_hook(lambda module, _inputs, output: seen.add((module.training, output.dtype)))
    trained = fit(net, data, dataclasses.replace(SHORT, epochs=1, autocast="bfloat16"), progress=False).model
    assert seen == {(True, torch.bfloat16), (False, torch.float32)}
    assert {parameter.dtype for parameter in trained.parameters()} == {torch.float32}


def test_progress_can_be_silent(net, data, capfd):
    """With progress off nothing is written."""
    fit(net, data, SHORT, progress=False)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_short_trainings_leave_no_lines_in_a_log(net, data, capfd):
    """Where stderr is no terminal a line comes only now and then; a training of a second is over before."""
    fit(net, data, SHORT, progress=True)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_long_trainings_leave_a_line_an_epoch_at_most(net, data, capfd, monkeypatch):
    """A line has the epoch, the loss, the validation error and the learning rate, on stderr."""
    monkeypatch.setattr(progress_module, "_SECONDS_BETWEEN_LINES", 0.0)
    result = fit(net, data, SHORT, progress=True)
    captured = capfd.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines == [f"epoch {number}/4: {record}" for number, record in enumerate(result.history, 1)]
    assert "validation top-1 error" in lines[0]


def test_a_terminal_gets_a_bar(net, data, capfd, monkeypatch):
    """On a terminal a bar counts the steps of all epochs."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    fit(net, data, SHORT, progress=True)
    error = capfd.readouterr().err
    assert "training" in error
    assert "/12" in error
