"""Clocks of machines that are not quiet: what two models called in turn would have read from them."""

from __future__ import annotations

import numpy as np


def quiet(shape, _generator):
    """A clock that neither drifts nor jumps."""
    return np.ones(shape)


def drifting(shape, _generator):
    """A clock that loses 40 % of its speed during the run, as under thermal throttling."""
    return np.broadcast_to(np.linspace(1, 1.4, shape[-1]), shape)


def bursting(shape, generator):
    """A neighbour on the same machine that now and then takes up to two thirds of it for some calls."""
    factor = np.ones(shape)
    for run in factor.reshape(-1, shape[-1]):
        for start in np.flatnonzero(generator.random(shape[-1]) < 0.05):
            run[start : start + generator.integers(1, 12)] = generator.uniform(1.3, 3)
    return factor


def autocorrelated(shape, generator):
    """A slowness that fades by a tenth from call to call."""
    steps = generator.normal(0, 0.03, shape)
    state = np.zeros(shape)
    for call in range(1, shape[-1]):
        state[..., call] = 0.9 * state[..., call - 1] + steps[..., call]
    return np.exp(state)


def bimodal(shape, generator):
    """Two frequencies 30 % apart, changed every ten calls or so."""
    return np.where(np.cumsum(generator.random(shape) < 0.1, axis=-1) % 2, 1.3, 1.0)


def with_outliers(shape, generator):
    """Every twentieth call takes up to ten times as long."""
    return np.where(generator.random(shape) < 0.05, generator.uniform(2, 10, shape), 1.0)


CLOCKS = [quiet, drifting, bursting, autocorrelated, bimodal, with_outliers]


def take_runs(clock, ratio, generator, *, runs, pairs, spread=0.0):
    """``[runs, pairs, 2]`` milliseconds of two models called in turn, the first of a pair changing each time.

    Args:
        clock: one of :data:`CLOCKS`.
        ratio: of the models, as it truly is.
        generator: of all that is random.
        runs: how many processes.
        pairs: how many pairs each of them takes.
        spread: how far the ratio lies elsewhere in each process, as where its memory lies decides.
    """
    shape = (runs, 2 * pairs)
    calls = 5 * clock(shape, generator) * np.exp(generator.normal(0, 0.02, shape))
    first, second = calls[:, 0::2], calls[:, 1::2]
    swap = np.arange(pairs) % 2 == 1
    dense, compressed = np.where(swap, second, first), np.where(swap, first, second)
    own = ratio * np.exp(generator.normal(0, spread, (runs, 1)))
    return np.stack([dense, own * compressed], axis=-1)
