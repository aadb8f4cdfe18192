from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compress.errors import ConfigError
from compress.lowrank.config import LowRankConfig
from compress.lowrank.decompositions import decompose
from compress.lowrank.ranks import _front, cheapest_within, shared_out, table_of
from compress.lowrank.sites import Pass, Site


def site_of(layer: nn.Module, passed: Pass, name: str = "layer") -> Site:
    """A site whose layer was called once."""
    return Site(layers={name: layer.double()}, passes=[passed])


def low_rank_linear(rank: int, noise: float, seed: int = 0) -> nn.Module:
    """30 x 40, of the given rank but for a little noise."""
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(40, 30)
    product = torch.randn(30, rank, generator=generator) @ torch.randn(rank, 40, generator=generator)
    layer.weight.data = product + noise * torch.randn(30, 40, generator=generator)
    return layer


CONV = Pass(2, (8, 8), (4, 4))


def test_of_equal_errors_the_cheapest_stays():
    """Rows that cost more than another without losing less are no choice, nor those that are not allowed."""
    cost = np.array([5, 3, 3, 8, 1, 9])
    errors = np.array([0.2, 0.5, 0.4, 0.2, 0.9, 0.0])
    allowed = np.array([True, True, True, True, True, False])
    assert _front(cost, errors, allowed).tolist() == [4, 2, 0]
    assert _front(cost, errors, np.zeros(6, dtype=bool)).tolist() == []


@pytest.mark.parametrize("bit", [-1e-7, 1e-7])
def test_the_last_bits_do_not_choose(bit):
    """What differs by less than float32 shows is a tie: the cheaper row, of equal cost the one listed first."""
    cost, allowed = np.array([1, 2, 2, 3]), np.ones(4, dtype=bool)
    errors = np.array([0.5, 0.2, 0.2 + bit, 0.2 - abs(bit)])
    assert _front(cost, errors, allowed).tolist() == [0, 1]


@pytest.mark.parametrize("config", [LowRankConfig(by="energy", target=1.0), LowRankConfig(by="ratio", target=0.2)])
def test_weights_that_differ_in_their_last_bits_get_the_same_rank(config):
    """A weight of rank 4 stays one when another machine's kernels have rounded it otherwise."""
    exact = low_rank_linear(4, noise=0)
    choices = set()
    for seed in range(5):
        layer = nn.Linear(40, 30)
        bits = torch.randn(30, 40, generator=torch.Generator().manual_seed(seed)).sign()
        layer.weight.data = exact.weight.data * (1 + 2**-23 * bits)
        table = table_of(site := site_of(layer, Pass(1, (), ())), site.weight, config)
        choice = cheapest_within(table)
        choices.add((choice.kind, choice.ranks))
    assert choices == {("channel", (4, 4))}


@pytest.mark.parametrize("kind", ["channel", "spatial", "tucker"])
def test_macs_of_a_chain_are_those_of_its_layers(kind):
    """Strides are paid for where they are made: before it more positions, after it fewer."""
    site = site_of(nn.Conv2d(16, 24, 3, stride=2, padding=1), CONV)
    table = table_of(site, site.weight, LowRankConfig(kinds=(kind,)))
    choice = table.choice(len(table.errors) // 2)
    first, second = choice.ranks
    expected = {
        "channel": 2 * (16 * first * 16 * 9 + 16 * 24 * first),
        "spatial": 2 * (4 * 8 * first * 16 * 3 + 16 * 24 * first * 3),
        "tucker": 2 * (64 * first * 16 + 16 * second * first * 9 + 16 * 24 * second),
    }
    assert choice.macs == expected[kind] < site.macs == 2 * 16 * 24 * 16 * 9


def test_every_choice_saves_macs_and_parameters_where_these_are_the_target():
    """A table holds no row that makes the layer dearer, in either way."""
    site = site_of(nn.Conv2d(16, 24, 3), CONV)
    for by in ("macs", "params"):
        table = table_of(site, site.weight, LowRankConfig(by=by))
        assert len(table.errors)
        assert (table.macs < site.macs).all()
        assert (np.diff(table.errors) < 0).all()
        if by == "params":
            assert (table.params < site.weight.numel()).all()


def test_a_rank_by_energy_keeps_it_and_no_more():
    """Of the choices that keep the energy the cheapest is taken; a unit of rank less would not keep it."""
    site = site_of(low_rank_linear(5, 0.05), Pass(1, (), ()))
    choice = cheapest_within(table_of(site, site.weight, LowRankConfig(by="energy", target=0.99)))
    errors = decompose(site.weight, "channel").errors
    rank = choice.ranks[0]
    assert choice.error == errors[rank - 1] <= 0.01 < errors[rank - 2]
    assert choice.macs == rank * 70


def test_a_layer_whose_energy_needs_too_high_a_rank_has_no_choice():
    """Where the rank that keeps it costs more than the layer, it stays whole."""
    site = site_of(nn.Linear(40, 30), Pass(1, (), ()))
    assert cheapest_within(table_of(site, site.weight, LowRankConfig(by="energy", target=0.999))) is None
    assert cheapest_within(table_of(site, site.weight, LowRankConfig(by="ratio", target=1))) is None


@pytest.mark.parametrize(("by", "target"), [("rank", 6), ("ratio", 0.2)])
def test_a_rank_is_that_of_the_first_way(by, target):
    """With one way alone the rank is exact; with others, one that is cheaper at no greater error replaces it."""
    site = site_of(low_rank_linear(20, 0.0), Pass(1, (), ()))
    assert cheapest_within(table_of(site, site.weight, LowRankConfig(by=by, target=target))).ranks == (6, 6)
    torch.manual_seed(0)
    layer = nn.Conv2d(20, 30, 3)
    layer.weight.data = torch.einsum("orl,rik->oikl", torch.randn(30, 3, 3), torch.randn(3, 20, 3))
    site = site_of(layer, CONV)
    one = cheapest_within(table_of(site, site.weight, LowRankConfig(by=by, target=target, kinds=("channel",))))
    best = cheapest_within(table_of(site, site.weight, LowRankConfig(by=by, target=target)))
    assert one.ranks == (6, 6)
    assert best.macs < one.macs
    assert best.error <= one.error
    assert best.kind == "spatial"


def test_a_rank_larger_than_the_layers_is_refused():
    """The full rank and the layer are in the sentence."""
    site = site_of(nn.Linear(40, 30), Pass(1, (), ()))
    with pytest.raises(ConfigError, match=r"^rank must be at most 30, the full one, got 31 \(layer 'layer'\)$"):
        table_of(site, site.weight, LowRankConfig(by="rank", target=31))


@given(
    widths=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    kernel=st.sampled_from([(1, 1), (3, 1), (3, 3)]),
    round_to=st.sampled_from([1, 2, 3, 8, 16]),
    share=st.floats(0.05, 1.0),
    by=st.sampled_from(["energy", "ratio"]),
)
@settings(max_examples=60, deadline=None)
def test_rounded_ranks_are_multiples_that_save_and_lose_no_more(widths, kernel, round_to, share, by):
    """Never over full rank, never dearer than the layer, never further off than what was asked; or none at all."""
    outs, ins = widths
    torch.manual_seed(outs * 100 + ins)
    site = site_of(nn.Conv2d(ins, outs, kernel), CONV)
    config = LowRankConfig(by=by, target=share, round_to=round_to)
    table = table_of(site, site.weight, config)
    assert (table.ranks % round_to == 0).all()
    full = {kind: decompose(site.weight, kind).full for kind in set(table.kinds.tolist())}
    for index in range(len(table.errors)):
        choice = table.choice(index)
        assert all(0 < rank <= most for rank, most in zip(choice.ranks, full[choice.kind], strict=True))
        assert choice.macs < site.macs
    exact = table_of(site, site.weight, LowRankConfig(by=by, target=share))
    rounded = cheapest_within(table)
    assert table.bound == exact.bound
    if rounded is not None:
        assert cheapest_within(exact).macs <= rounded.macs
        assert rounded.error <= exact.bound + 1e-9


def test_a_rank_is_rounded_up():
    """Six becomes eight, sixteen of twenty stays, and what eight does not save a layer of full rank seven has none."""
    site = site_of(low_rank_linear(20, 0.0), Pass(1, (), ()))
    ranks = {
        wanted: cheapest_within(table_of(site, site.weight, LowRankConfig(by="rank", target=wanted, round_to=8))).ranks
        for wanted in (6, 8, 9, 16)
    }
    assert ranks == {6: (8, 8), 8: (8, 8), 9: (16, 16), 16: (16, 16)}
    small = site_of(nn.Linear(40, 7), Pass(1, (), ()))
    assert cheapest_within(table_of(small, small.weight, LowRankConfig(by="rank", target=5))).ranks == (5, 5)
    assert cheapest_within(table_of(small, small.weight, LowRankConfig(by="rank", target=5, round_to=8))) is None


def two_tables(config: LowRankConfig):
    """A layer of low rank and one of full rank, equally large."""
    sites = [
        site_of(layer, Pass(1, (), ()), name)
        for name, layer in (("low", low_rank_linear(4, 0.01)), ("full", nn.Linear(40, 30)))
    ]
    return sites, [table_of(site, site.weight, config) for site in sites]


def test_a_budget_is_taken_from_where_it_costs_least():
    """The layer of low rank gives way, the other stays whole as long as it can; the budget holds."""
    config = LowRankConfig(by="macs", target=0.7)
    sites, tables = two_tables(config)
    dense = sum(site.macs for site in sites) + 500
    choices = shared_out(tables, config, dense=dense, budget=0.7 * dense)
    assert [next(iter(site.layers)) for site in choices] == ["low"]
    spent = 500 + sites[1].macs + choices[sites[0]].macs
    assert 0.6 * dense < spent <= 0.7 * dense
    tight = shared_out(tables, config, dense=dense, budget=0.4 * dense)
    assert len(tight) == 2
    assert tight[sites[0]].error < tight[sites[1]].error
    assert 500 + sum(choice.macs for choice in tight.values()) <= 0.4 * dense


def test_a_budget_of_parameters_counts_parameters():
    """The same rule on the other cost."""
    config = LowRankConfig(by="params", target=0.6)
    sites, tables = two_tables(config)
    choices = shared_out(tables, config, dense=2400, budget=0.6 * 2400)
    spent = sum(choices[site].params if site in choices else 1200 for site in sites)
    assert spent <= 0.6 * 2400


def test_a_budget_that_cannot_be_met_is_refused():
    """The sentence says what could be."""
    config = LowRankConfig(by="macs", target=0.01)
    sites, tables = two_tables(config)
    dense = sum(site.macs for site in sites)
    with pytest.raises(ConfigError, match=r"^target must be at least 0\.059 for this model, got 0\.01 \(macs\)$"):
        shared_out(tables, config, dense=dense, budget=0.01 * dense)
