"""What ``fit`` takes beside labelled images: any loss, optimizer, schedule and teacher, on batches of any loader."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.nn import functional as F  # noqa: N812

from compress.data import from_loaders
from compress.errors import ArtifactError, ConfigError, ModelError
from compress.quality import Quality, output_error
from compress.train import FitConfig, fit

CONFIG = FitConfig(
    epochs=3, learning_rate=0.1, weight_decay=0.0, momentum=0.0, warmup_epochs=0.0, validation_fraction=0.0,
    autocast="off", label_smoothing=0.0,
)  # fmt: skip
INPUTS = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
TARGETS = INPUTS @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.3


def data_of(inputs=INPUTS, targets=TARGETS, *, batch_size=4):
    """Batches of a regression."""
    batches = list(zip(inputs.split(batch_size), targets.split(batch_size), strict=True))
    return from_loaders("line", train=batches, test=batches)


@pytest.fixture
def net():
    """``[n, 3] -> [n, 1]``."""
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def constant(optimizer, _steps):
    """A schedule that changes nothing."""
    return optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def by_hand(net, make, steps, inputs=INPUTS, targets=TARGETS):
    """So many steps on all examples at once."""
    net = copy.deepcopy(net)
    optimizer = make(net.parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        F.mse_loss(net(inputs), targets).backward()
        optimizer.step()
    return net


def weights(net):
    """All numbers of it."""
    return torch.cat([one.detach().flatten() for one in net.parameters()])


def test_any_loss_is_made_smaller(net):
    """Of outputs and targets of one's own, here of named ones."""

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = copy.deepcopy(net)

        def forward(self, x):
            return {"value": self.net(x)}

    batches = [(INPUTS, {"wanted": TARGETS})]
    asked = []

    def loss(outputs, targets):
        asked.append(set(targets))
        return F.l1_loss(outputs["value"], targets["wanted"])

    config = dataclasses.replace(CONFIG, epochs=30)
    trained = fit(Named(), from_loaders("named", train=batches, test=batches), config, loss=loss, progress=False)
    assert asked == [{"wanted"}] * 30
    losses = [record.train_loss for record in trained.history]
    assert losses[-1] < 0.7 * losses[0]


def test_a_loss_that_is_no_number_is_refused(net):
    """And so is one that fails, and the cross-entropy where there are no classes."""
    for loss, message in (
        (lambda outputs, _: outputs, r"the loss must be a single number, got float32 of shape \[4, 1\]"),
        (lambda outputs, targets: outputs @ targets, "the loss failed on outputs and targets"),
        (None, r"without loss= a model must put out logits"),
    ):
        with pytest.raises(ConfigError, match=message):
            fit(net, data_of(), CONFIG, loss=loss, progress=False)


def test_the_optimizer_is_the_one_that_the_factory_makes(net):
    """It gets groups of parameters, biases without decay, and takes the steps; its rate follows its own schedule."""
    seen = []

    def make(groups):
        seen.extend(groups)
        return optim.AdamW(groups, lr=0.05)

    config = dataclasses.replace(CONFIG, weight_decay=0.01, epochs=2)
    fitted = fit(
        net, data_of(batch_size=8), config, loss=F.mse_loss, optimizer=make, scheduler=constant, progress=False
    )
    assert [(group["weight_decay"], len(group["params"])) for group in seen] == [(0.01, 1), (0.0, 1)]

    def same(parameters):
        weight, bias = parameters
        return optim.AdamW(
            [{"params": [weight], "weight_decay": 0.01}, {"params": [bias], "weight_decay": 0.0}], lr=0.05
        )

    torch.testing.assert_close(weights(fitted.model), weights(by_hand(net, same, 2)))


def test_the_schedule_is_told_of_all_steps_and_follows_each(net):
    """Steps of the optimizer, and not batches, where batches are gathered."""
    told = []

    def schedule(optimizer, steps):
        told.append(steps)
        return optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=steps)

    config = dataclasses.replace(CONFIG, accumulated_batches=2, epochs=4)
    fitted = fit(
        net,
        data_of(batch_size=2),
        config,
        loss=F.mse_loss,
        optimizer=lambda groups: optim.SGD(groups, lr=0.8),
        scheduler=schedule,
        progress=False,
    )
    assert told == [8]
    assert [record.learning_rate for record in fitted.history] == pytest.approx([0.7, 0.5, 0.3, 0.1])


def test_gathered_batches_are_a_larger_one(net):
    """Two batches of four make the step that one of eight makes; what is left at an epoch's end makes one too."""
    gathered = dataclasses.replace(CONFIG, accumulated_batches=2, epochs=2)
    options = {"loss": F.mse_loss, "scheduler": constant, "progress": False}
    one = fit(net, data_of(), gathered, **options)
    other = fit(net, data_of(batch_size=8), dataclasses.replace(CONFIG, epochs=2), **options)
    torch.testing.assert_close(weights(one.model), weights(other.model))
    thirds = dataclasses.replace(CONFIG, accumulated_batches=3, epochs=1)
    counted = []

    def make(groups):
        optimizer = optim.SGD(groups, lr=0.1)
        optimizer.register_step_post_hook(lambda *_: counted.append(1))
        return optimizer

    fit(net, data_of(batch_size=2), thirds, loss=F.mse_loss, optimizer=make, progress=False)
    assert len(counted) == 2


def test_gradients_are_clipped_to_the_norm_asked_for(net):
    """A step is then as long as the rate times that norm; 0 clips nothing."""
    steep = data_of(targets=1e3 * TARGETS, batch_size=8)
    options = {"loss": F.mse_loss, "scheduler": constant, "progress": False}
    config = dataclasses.replace(CONFIG, epochs=1)
    clipped = fit(net, steep, dataclasses.replace(config, max_gradient_norm=0.5), **options)
    free = fit(net, steep, config, **options)
    assert (weights(clipped.model) - weights(net)).norm() == pytest.approx(0.1 * 0.5, rel=1e-4)
    assert (weights(free.model) - weights(net)).norm() > 10


def test_numbers_are_learned_from_a_teacher(net):
    """With a loss of one's own the distance is the relative squared difference of outputs."""
    torch.manual_seed(1)
    teacher = nn.Linear(3, 1)
    config = dataclasses.replace(CONFIG, alpha=1.0, epochs=60)
    student = fit(net, data_of(), config, loss=F.mse_loss, teacher=teacher, progress=False).model
    before, after = ((one(INPUTS) - teacher(INPUTS)).norm() for one in (net, student))
    assert after < 0.1 * before


def test_a_teacher_is_learned_from_by_any_function(net):
    """It is given what the model and its teacher put out, and counts by alpha."""
    torch.manual_seed(1)
    teacher, seen = nn.Linear(3, 1), []

    def distance(outputs, wanted):
        seen.append((outputs.requires_grad, wanted.requires_grad))
        return F.l1_loss(outputs, wanted)

    config = dataclasses.replace(CONFIG, alpha=0.25, epochs=1)
    fitted = fit(
        net, data_of(batch_size=8), config, loss=F.mse_loss, teacher=teacher, distance=distance, progress=False
    )
    assert seen == [(True, False)]
    with torch.no_grad():
        expected = 0.75 * F.mse_loss(net(INPUTS), TARGETS) + 0.25 * F.l1_loss(net(INPUTS), teacher(INPUTS))
    assert fitted.history[0].train_loss == pytest.approx(float(expected))


def test_a_teacher_alone_needs_no_targets(net):
    """With alpha 1 the loss counts for nothing, and is not asked."""
    torch.manual_seed(1)
    teacher = nn.Linear(3, 1)
    data = from_loaders("inputs", train=[INPUTS], test=[INPUTS])
    config = dataclasses.replace(CONFIG, alpha=1.0, epochs=60)
    student = fit(net, data, config, teacher=teacher, distance=F.mse_loss, progress=False).model
    assert (student(INPUTS) - teacher(INPUTS)).norm() < 0.1 * (net(INPUTS) - teacher(INPUTS)).norm()


def test_logits_of_every_place_are_distilled(net):
    """Labels ``[n, places]`` and logits ``[n, classes, places]``, as of pixels, by softened probabilities."""
    del net
    torch.manual_seed(0)
    model, teacher = nn.Conv1d(2, 4, 1), nn.Conv1d(2, 4, 1)
    inputs, labels = torch.randn(6, 2, 5), torch.randint(4, (6, 5))
    data = from_loaders("places", train=[(inputs, labels)], test=[(inputs, labels)])
    config = dataclasses.replace(CONFIG, alpha=1.0, temperature=1.0, epochs=100, learning_rate=1.0)
    student = fit(model, data, config, teacher=teacher, progress=False).model
    near, far = ((one(inputs).softmax(1) - teacher(inputs).softmax(1)).abs().mean() for one in (student, model))
    assert near < 0.5 * far


def test_the_best_epoch_is_chosen_by_the_quality(net):
    """Where higher is better, the epoch of its highest value on held-out batches, of any reduction."""
    score = Quality(name="closeness", rows=lambda out, wanted: -(out - wanted).abs()[:, 0], better="higher")
    config = dataclasses.replace(CONFIG, validation_fraction=0.5, epochs=4, learning_rate=1.4)
    fitted = fit(net, data_of(batch_size=2), config, loss=F.mse_loss, quality=score, progress=False)
    values = [record.validation for record in fitted.history]
    assert {record.judged_by for record in fitted.history} == {"closeness"}
    assert values[fitted.best_epoch - 1] == max(values)


class Stopping(nn.Linear):
    """A linear layer that is interrupted in its fourth call."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        if self.calls > 3:
            raise KeyboardInterrupt
        return super().forward(x)

    @classmethod
    def like(cls, layer):
        """With the weights of ``layer``."""
        made = cls(layer.in_features, layer.out_features)
        made.load_state_dict(layer.state_dict())
        return made


def test_a_resumed_run_with_its_own_optimizer_and_schedule_ends_with_the_same_bits(net, tmp_path):
    """Both go on where they were."""
    options = {
        "loss": F.mse_loss,
        "optimizer": lambda groups: optim.Adam(groups, lr=0.05),
        "scheduler": optim.lr_scheduler.CosineAnnealingLR,
        "progress": False,
    }
    whole = fit(net, data_of(), CONFIG, **options)
    with pytest.raises(KeyboardInterrupt):
        fit(Stopping.like(net), data_of(), CONFIG, checkpoint=tmp_path / "run", **options)
    resumed = fit(net, data_of(), CONFIG, checkpoint=tmp_path / "run", **options)
    assert torch.equal(weights(resumed.model), weights(whole.model))
    assert resumed.history == whole.history


class Counting(optim.SGD):
    """It keeps what it does next in its groups, as schedule-free optimizers do."""

    def step(self, closure=None):
        for group in self.param_groups:
            group["count"] = group.get("count", 0) + 1
            group["lr"] = 0.1 / group["count"]
        return super().step(closure)


def test_what_an_optimizer_keeps_in_its_groups_is_resumed(net, tmp_path):
    """To the same bits as a run that never stopped."""
    options = {
        "loss": F.mse_loss,
        "optimizer": lambda groups: Counting(groups, lr=0.1),
        "scheduler": constant,
        "progress": False,
    }
    whole = fit(net, data_of(), CONFIG, **options)
    with pytest.raises(KeyboardInterrupt):
        fit(Stopping.like(net), data_of(), CONFIG, checkpoint=tmp_path / "run", **options)
    resumed = fit(net, data_of(), CONFIG, checkpoint=tmp_path / "run", **options)
    assert torch.equal(weights(resumed.model), weights(whole.model))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"optimizer": lambda groups: optim.Adam(groups, lr=0.05)}, "optimizer"),
        ({"optimizer": lambda groups: optim.AdamW(groups, lr=0.1)}, "optimizer"),
        ({"loss": F.l1_loss}, "loss"),
        ({"quality": Quality(name="off", rows=lambda out, wanted: (out - wanted)[:, 0], better="lower")}, "quality"),
    ],
)
def test_a_checkpoint_of_another_objective_is_refused(net, tmp_path, change, part):
    """Another optimizer's state would be taken for its own, another loss gone on with in silence."""
    options = {"loss": F.mse_loss, "optimizer": lambda groups: optim.AdamW(groups, lr=0.05), "progress": False}
    with pytest.raises(KeyboardInterrupt):
        fit(Stopping.like(net), data_of(), CONFIG, checkpoint=tmp_path / "run", **options)
    with pytest.raises(ArtifactError, match=f"this one has other {part}: delete it to train anew"):
        fit(net, data_of(), CONFIG, checkpoint=tmp_path / "run", **{**options, **change})


@pytest.mark.parametrize(("batches", "gathered", "steps"), [(1, 10, 1), (4, 3, 2), (2, 100, 1), (4, 2, 2)])
def test_a_step_is_by_the_mean_of_the_batches_gathered(net, batches, gathered, steps):
    """Also of fewer at an epoch's end, and where an epoch has fewer than are to be gathered: here all are alike."""
    config = dataclasses.replace(CONFIG, accumulated_batches=gathered, epochs=1)
    data = data_of(INPUTS.repeat(batches, 1), TARGETS.repeat(batches, 1), batch_size=len(INPUTS))
    options = {"loss": F.mse_loss, "optimizer": lambda groups: optim.SGD(groups, lr=0.3), "progress": False}
    found = fit(net, data, config, scheduler=constant, **options).model
    expected = by_hand(net, lambda parameters: optim.SGD(parameters, lr=0.3), steps)
    torch.testing.assert_close(weights(found), weights(expected))


def test_nearness_to_a_dense_model_is_that_to_the_teacher(net):
    """Zero of a student that is its teacher, and refused without one."""
    config = dataclasses.replace(CONFIG, learning_rate=1e-12, validation_fraction=0.5, epochs=1)
    options = {"loss": F.mse_loss, "quality": output_error(), "progress": False}
    (record,) = fit(net, data_of(batch_size=2), config, teacher=copy.deepcopy(net), **options).history
    assert record.validation == pytest.approx(0, abs=1e-6)
    with pytest.raises(ConfigError, match="'output_error' is held against the dense model, which must be given as"):
        fit(net, data_of(batch_size=2), config, **options)


def test_a_figure_that_is_no_number_chooses_no_epoch(net):
    """As the area under a curve of one class, it would keep the first for good."""
    config = dataclasses.replace(CONFIG, validation_fraction=0.5)
    never = Quality(name="never", rows=lambda out, _: out[:, 0], better="lower", reduce=lambda *_: np.array([np.nan]))
    with pytest.raises(ConfigError, match="the quality 'never' of the 4 examples held out must be a number"):
        fit(net, data_of(batch_size=2), config, loss=F.mse_loss, quality=never, progress=False)


def test_a_schedule_that_takes_a_metric_is_refused(net):
    """It is told of steps alone."""
    with pytest.raises(ConfigError, match="by the number of steps alone, ReduceLROnPlateau takes a metric"):
        fit(
            net,
            data_of(),
            CONFIG,
            loss=F.mse_loss,
            scheduler=lambda optimizer, _: optim.lr_scheduler.ReduceLROnPlateau(optimizer),
            progress=False,
        )


def test_outputs_that_a_teacher_does_not_have_are_refused(net):
    """A teacher of another width."""
    with pytest.raises((ConfigError, ModelError), match="teacher"):
        fit(net, data_of(), CONFIG, loss=F.mse_loss, teacher=nn.Linear(3, 2), progress=False)
