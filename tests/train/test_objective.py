from __future__ import annotations

import copy
import dataclasses
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from compress.calling.inputs import Inputs
from compress.errors import ArtifactError, ConfigError, ModelError
from compress.train import FitConfig, evaluate, fit
from compress.train.distillation import soft_loss
from compress.train.objective import Objective, label_loss, prepare_teacher
from compress.train.processes import alone
from tests.train.test_fit import SHORT, interrupting, same_state

CPU = alone(torch.device("cpu"))


@pytest.fixture(scope="module")
def teacher():
    """A wider network than the student's, as if trained, with statistics unlike the initial ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = nn.Sequential(
            nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Dropout(0.5),
            nn.Flatten(), nn.Linear(48, 3),
        )  # fmt: skip
        net(torch.rand(8, 3, 8, 8))
    return net.train()


def test_the_loss_weighs_labels_and_teacher(net, teacher):
    """(1 - alpha) of the smoothed cross-entropy, and alpha of the soft loss of the teacher in eval mode."""
    config = FitConfig(temperature=3.0, alpha=0.7, label_smoothing=0.2, channels_last=False)
    objective = Objective(
        config=config,
        forward=net.eval(),
        teacher=prepare_teacher(teacher, net, config, CPU),
        loss=label_loss(config),
        distance=partial(soft_loss, temperature=config.temperature),
        num_classes=3,
        bfloat16=False,
    )
    images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    with torch.no_grad():
        logits, targets = net(images), copy.deepcopy(teacher).eval()(images)
    expected = 0.3 * F.cross_entropy(logits, labels, label_smoothing=0.2) + 0.7 * soft_loss(logits, targets, 3.0)
    torch.testing.assert_close(objective(Inputs(args=(images,)), labels).detach(), expected)


def test_without_a_teacher_its_settings_mean_nothing(net, data):
    """Temperature and alpha do not touch a training on labels alone."""
    plain = fit(net, data, SHORT, progress=False)
    other = fit(net, data, dataclasses.replace(SHORT, alpha=0.1, temperature=9.0), progress=False)
    assert same_state(plain.model, other.model)


def test_alpha_zero_trains_on_labels_alone(net, teacher, data):
    """A teacher without weight changes nothing, to the bit, the random numbers of dropout included."""
    config = dataclasses.replace(SHORT, alpha=0.0)
    assert same_state(
        fit(net, data, config, teacher=teacher, progress=False).model, fit(net, data, config, progress=False).model
    )


def test_a_teacher_is_learned_from_and_left_alone(net, data):
    """With alpha 1 a student comes to agree with a teacher whose classes are not those of the labels."""
    taught = fit(net, data, dataclasses.replace(SHORT, epochs=12, learning_rate=0.2), progress=False).model
    swapped = copy.deepcopy(taught)
    with torch.no_grad():
        swapped[6].weight.copy_(taught[6].weight[[1, 2, 0]])
        swapped[6].bias.copy_(taught[6].bias[[1, 2, 0]])
    before = copy.deepcopy(swapped.state_dict())
    config = dataclasses.replace(SHORT, epochs=12, learning_rate=0.2, alpha=1.0, validation_fraction=0.0)
    student = fit(net, data, config, teacher=swapped.train(), progress=False).model
    assert evaluate(student, data.test).top1_error > 0.9
    images, _ = next(data.test.batches(30))
    with torch.no_grad():
        agreement = (student.eval()(images).argmax(1) == swapped.eval()(images).argmax(1)).float().mean()
    assert agreement > 0.9
    assert all(value.equal(before[name]) for name, value in swapped.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in swapped.parameters())


def test_hints_pull_features_together(net, data):
    """After training with a hint the student's features are nearer to the teacher's than without."""
    torch.manual_seed(5)
    teacher = copy.deepcopy(net)
    nn.init.normal_(teacher[0].weight, std=0.3)
    config = dataclasses.replace(SHORT, epochs=8, learning_rate=0.1)
    hinted = dataclasses.replace(config, hints=("1",), hint_weight=10.0)
    images, _ = next(data.test.batches(30))

    def distance(settings):
        student = fit(net, data, settings, teacher=teacher, progress=False).model.eval()
        assert not student[1]._forward_hooks
        with torch.no_grad():
            return float((student[:3](images) - copy.deepcopy(teacher).eval()[:3](images)).square().mean())

    assert distance(hinted) < 0.8 * distance(config)


@pytest.mark.parametrize("hints", [(), ("0",)])
def test_a_resumed_distillation_ends_with_the_same_bits(net, data, tmp_path, hints):
    """Interrupted and resumed, the student has the very weights of a run that never stopped."""
    teacher = copy.deepcopy(net)
    nn.init.normal_(teacher[0].weight)
    config = dataclasses.replace(SHORT, hints=hints)
    whole = fit(net, data, config, teacher=teacher, progress=False)
    with pytest.raises(KeyboardInterrupt):
        fit(net, interrupting(data, 2), config, teacher=teacher, checkpoint=tmp_path / "run", progress=False)
    resumed = fit(net, data, config, teacher=teacher, checkpoint=tmp_path / "run", progress=False)
    assert same_state(resumed.model, whole.model)


@pytest.mark.parametrize("other", ["none", "changed"])
def test_a_checkpoint_of_another_teacher_is_refused(net, teacher, data, tmp_path, other):
    """One changed weight of the teacher, or none at all: another run."""
    with pytest.raises(KeyboardInterrupt):
        fit(net, interrupting(data, 1), SHORT, teacher=teacher, checkpoint=tmp_path / "run", progress=False)
    changed = copy.deepcopy(teacher)
    changed[6].bias.data[0] += 1
    with pytest.raises(ArtifactError, match="this one has other teacher: delete it to train anew"):
        fit(
            net, data, SHORT, teacher=changed if other == "changed" else None, checkpoint=tmp_path / "run",
            progress=False,
        )  # fmt: skip


def test_a_teacher_of_other_classes_is_refused(net, data):
    """Both shapes are named, and that it is the teacher who is wrong."""
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    with pytest.raises(ModelError, match=r"^a teacher must put out logits of shape \[16, 3\], this one put out"):
        fit(net, data, SHORT, teacher=teacher, progress=False)


def test_hints_that_do_not_match_are_refused(net, teacher, data):
    """A name that a model lacks, and features of another width: one sentence each, before the first step is over."""
    with pytest.raises(ConfigError, match="hints must name modules of both student and teacher, the teacher has no"):
        fit(net, data, dataclasses.replace(SHORT, hints=("nowhere",)), teacher=teacher, progress=False)
    with pytest.raises(ModelError, match=r"got \[16, 6, 8, 8\] and \[16, 12, 8, 8\] \(module '1'\)"):
        fit(net, data, dataclasses.replace(SHORT, hints=("1",)), teacher=teacher, progress=False)


def test_the_teacher_computes_in_bfloat16_too(net, data):
    """Under autocast both models run in it, and the teacher in eval mode."""
    seen = set()
    teacher = copy.deepcopy(net).train()
    teacher[0].register_forward_hook(lambda module, _inputs, output: seen.add((module.training, output.dtype)))
    fit(net, data, dataclasses.replace(SHORT, epochs=1, autocast="bfloat16"), teacher=teacher, progress=False)
    assert seen == {(False, torch.bfloat16)}
