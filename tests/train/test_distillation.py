from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from compress.errors import ConfigError, ModelError
from compress.train.distillation import hint_loss, soft_loss, tap_


def test_the_soft_loss_is_that_of_the_paper():
    """T^2 times the divergence of the softened probabilities, here of two examples worked out by hand."""
    student, teacher = torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    p = 1 / (1 + math.exp(-1))
    expected = 4 * (p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5)) / 2
    assert float(soft_loss(student, teacher, 2.0)) == pytest.approx(expected)


def test_at_a_high_temperature_logits_are_matched():
    """The gradient approaches that of half the squared difference of the centered logits, over the classes."""
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    student = torch.randn(4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(soft_loss(student, teacher, 1e4), student)
    difference = (student - teacher).detach()
    expected = (difference - difference.mean(1, keepdim=True)) / (5 * 4)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)


def test_the_teacher_gets_no_gradient():
    """Neither its logits nor its features are moved towards the student's."""
    teacher, student = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    (soft_loss(student, teacher, 4.0) + hint_loss({"a": student}, {"a": teacher})).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_hints_of_any_scale_count_alike():
    """A module's distance is relative to its teacher's features; the mean is over the modules."""
    target = torch.tensor([[3.0, 4.0]])
    assert float(hint_loss({"a": target + 1}, {"a": target})) == pytest.approx(1 / 12.5)
    scaled = hint_loss({"a": target + 1, "b": 100 * target}, {"a": target, "b": 100 * target})
    assert float(scaled) == pytest.approx(1 / 25)
    assert float(hint_loss({"a": torch.zeros(1)}, {"a": torch.zeros(1)})) == 0


def test_hints_of_other_shapes_are_refused():
    """Both shapes and the module are named; a single channel is not stretched over many."""
    with pytest.raises(ModelError, match=r"got \[2, 1\] and \[2, 3\] \(module 'a'\)$"):
        hint_loss({"a": torch.zeros(2, 1)}, {"a": torch.zeros(2, 3)})


def test_a_tap_holds_the_latest_output():
    """As the module put it out, whatever an activation wrote over it, with the graph to go backward through."""
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    features = tap_(net, ("0",), "student")
    for _ in range(2):
        x = torch.randn(5, 3)
        net(x)
    assert features["0"].equal(F.linear(x, net[0].weight, net[0].bias))
    features["0"].sum().backward()
    assert net[0].weight.grad is not None


def test_hints_must_name_modules_that_put_out_a_tensor():
    """A name that one of the two models lacks, or a module of many outputs: one sentence."""
    with pytest.raises(ConfigError, match=r"both student and teacher, the teacher has no 'b'$"):
        tap_(nn.Sequential(nn.ReLU()), ("b",), "teacher")
    net = nn.Sequential(nn.LSTM(3, 3))
    tap_(net, ("0",), "student")
    with pytest.raises(ModelError, match=r"put out a tensor, got tuple \(module '0'\)$"):
        net(torch.zeros(2, 1, 3))
