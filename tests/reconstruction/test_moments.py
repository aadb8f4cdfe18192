from __future__ import annotations

import pytest
import torch
from torch import Tensor

from compress.reconstruction import moments
from compress.reconstruction.moments import Moments, solved_on

GENERATOR = torch.Generator().manual_seed(0)


def draw(*shape: int) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(shape, dtype=torch.float64, generator=GENERATOR)


def filled(x: Tensor, residual: Tensor, *, has_bias: bool = True, support: Tensor | None = None) -> Moments:
    """Every fourth position held out; the dense outputs are the residuals themselves."""
    groups, count, inputs = x.shape
    moments = Moments(inputs, residual.shape[1], groups, has_bias=has_bias, device=torch.device("cpu"), support=support)
    moments.add_(x, residual, residual, torch.arange(count) % 4 == 3)
    return moments


@pytest.mark.parametrize("groups", [1, 3])
def test_what_is_missing_is_found(groups: int):
    """Residuals that are an affine function of the inputs, group by group, are fitted exactly, but for the ridge."""
    x, weight, bias = draw(groups, 400, 5), draw(groups, 2, 5), draw(groups, 2)
    residual = (x @ weight.transpose(1, 2) + bias[:, None]).transpose(0, 1).flatten(1)
    fit = filled(x, residual).fit()
    assert fit.update is not None
    assert torch.allclose(fit.update.weight, weight, atol=1e-4)
    assert torch.allclose(fit.update.bias, bias, atol=1e-4)
    assert fit.before > 0.9
    assert fit.after < 1e-8
    assert fit.ridge == 1e-5


def test_noise_is_not_followed():
    """With fewer positions than inputs and nothing to be found, the old weights stay or the ridge is a strong one."""
    fit = filled(draw(1, 40, 60), draw(40, 3)).fit()
    assert fit.update is None or fit.ridge >= 1.0
    assert fit.after <= fit.before


def test_the_held_out_error_is_that_of_the_outputs():
    """What the sums say is what the residuals say, measured one by one."""
    x, residual = draw(1, 200, 4), draw(200, 2) + 1.0
    filled_up = filled(x, residual)
    delta = draw(1, 5, 2)
    held = torch.arange(200) % 4 == 3
    missed = residual[held] - x[0, held] @ delta[0, :4] - delta[0, 4]
    assert filled_up.held_out.error(delta) == pytest.approx(float(missed.square().sum()))
    assert filled_up.held_out.variance == pytest.approx(float(residual[held].var(0, correction=0).sum() * held.sum()))


def test_dead_inputs_and_groups_do_no_harm():
    """Nothing is known of their weights, which stay."""
    x, weight = draw(2, 400, 5), draw(2, 2, 5)
    x[0, :, 1] = 0.0
    x[1] = 0.0
    residual = (x @ weight.transpose(1, 2)).transpose(0, 1).flatten(1)
    update = filled(x, residual).fit().update
    assert update is not None
    assert not update.weight[0, :, 1].any()
    assert not update.weight[1].any()
    assert torch.allclose(update.weight[0, :, 2:], weight[0, :, 2:], atol=1e-4)


def test_no_residual_is_nothing_to_mend():
    """To the bit: it is not even looked at."""
    fit = filled(draw(1, 40, 5), torch.zeros(40, 3, dtype=torch.float64)).fit()
    assert (fit.before, fit.after, fit.update) == (0.0, None, None)


def test_outside_a_support_nothing_changes():
    """Each output is solved for on its own inputs alone, as least squares on those would."""
    x, residual = draw(1, 400, 6), draw(400, 3)
    support = torch.rand(1, 3, 6, generator=GENERATOR) < 0.5
    gram, cross = x.transpose(1, 2) @ x, x.transpose(1, 2) @ residual
    found = solved_on(gram, cross, support)
    for output in range(3):
        own = support[0, output]
        expected = torch.linalg.lstsq(x[0][:, own], residual[:, output, None]).solution[:, 0]
        assert torch.allclose(found[0, own, output], expected)
        assert not found[0, ~own, output].any()
    update = filled(x, residual, support=support).fit().update
    assert update is None or not update.weight[~support].any()


def test_a_ridge_for_many_supports_is_chosen_by_some_of_them(monkeypatch):
    """All outputs are fitted with it, and the held-out error is that of all."""
    x, residual = draw(1, 400, 6), draw(400, 70) + 0.5
    support = torch.rand(1, 70, 6, generator=GENERATOR) < 0.7
    found = filled(x, residual, support=support).fit()
    monkeypatch.setattr(moments, "_TRIED_OUTPUTS", 70)
    every = filled(x, residual, support=support).fit()
    assert found.update is not None
    assert found.update.weight[0].any(dim=1).all()
    assert found.after < found.before
    assert found.after == pytest.approx(every.after, rel=0.01)
    assert found.before == every.before
