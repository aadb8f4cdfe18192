import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import rnn

from compress.pruning.structured import apply_plan, plan_pruning
from tests.nets import Net, head, largest_difference, largest_gradient_difference, lively, masked_dense

X = torch.linspace(-1, 1, 42, dtype=torch.float64).reshape(1, 14, 3)
LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU, "tanh": nn.RNN, "relu": lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k)}
CELLS = {
    "lstm": nn.LSTMCell,
    "gru": nn.GRUCell,
    "tanh": nn.RNNCell,
    "relu": lambda a, b: nn.RNNCell(a, b, True, "relu"),
}


def checked(net: nn.Module, x: Tensor = X) -> nn.Module:
    """``net`` pruned by a quarter, and equal to the masked one, in outputs and gradients."""
    lively(net)
    plan = plan_pruning(net, x, 0.25)
    small, dense = apply_plan(net, plan), masked_dense(net, plan)
    batch = torch.cat([x, x.flip(1)])
    assert largest_difference(small, dense, batch) < 1e-12
    assert largest_gradient_difference(small, dense, plan, batch) < 1e-12
    return small


def between(layer: nn.Module, outs: int, run=lambda r, x: r(x)[0]) -> Net:
    """16 features of a linear layer ``a`` through ``run``, ``outs`` of them into a classifier."""
    torch.manual_seed(0)
    return Net(lambda n, x: n.h(run(n.r, n.a(x)).mean(1)), a=nn.Linear(3, 16), r=layer, h=head(outs))


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(
    ("num_layers", "bidirectional", "bias"), [*itertools.product((1, 2), (False, True), (True,)), (2, True, False)]
)
def test_recurrent_layers_lose_hidden_units_and_inputs(kind, num_layers, bidirectional, bias):
    """Gates, recurrent columns and the layers above go with a unit; layers and directions keep equally many."""
    layer = LAYERS[kind](16, 8, num_layers, batch_first=True, bidirectional=bidirectional, bias=bias)
    small = checked(between(layer, 16 if bidirectional else 8))
    assert (small.a.out_features, small.r.input_size, small.r.hidden_size) == (12, 12, 6)
    assert small.h.in_features == (12 if bidirectional else 6)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_projected_states_are_cut_apart_from_the_units_behind_them(bidirectional):
    """An LSTM with projections loses units and outputs, each by its own fraction."""
    layer = nn.LSTM(16, 12, 2, batch_first=True, bidirectional=bidirectional, proj_size=8)
    small = checked(between(layer, 16 if bidirectional else 8))
    assert (small.r.hidden_size, small.r.proj_size) == (9, 6)


def test_time_may_come_first():
    """The dimensions of time and batch trade places."""
    layer = nn.GRU(16, 8)
    small = checked(between(layer, 8, lambda r, x: r(x.transpose(0, 1))[0].transpose(0, 1)))
    assert small.r.hidden_size == 6


ENDS = {
    "the last layer": lambda r, x: r(x)[1][0][-1].unsqueeze(1),
    "both directions": lambda r, x: torch.cat([r(x)[1][0][-2], r(x)[1][0][-1]], dim=1).unsqueeze(1),
    "all of them": lambda r, x: r(x)[1][0].transpose(0, 1).flatten(1).unsqueeze(1),
    "an LSTM's memory": lambda r, x: r(x)[1][1].transpose(0, 1),
}


@pytest.mark.parametrize(("end", "outs"), [*zip(ENDS.values(), (8, 16, 32, 8), strict=True)], ids=ENDS)
def test_final_states_lead_on(end, outs):
    """What reads the state of the last step is cut with the units that it reads."""
    layer = nn.LSTM(16, 8, 2, batch_first=True, bidirectional=True)
    small = checked(between(layer, outs, end))
    assert (small.r.hidden_size, small.h.in_features) == (6, outs * 3 // 4)


@pytest.mark.parametrize("kind", CELLS)
def test_cells_are_cut_step_by_step(kind):
    """A cell called in a loop is one layer."""

    def run(cell: nn.Module, x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = cell(step, state)
        out = state[0] if isinstance(state, tuple) else state
        return out.unsqueeze(1)

    small = checked(between(CELLS[kind](16, 8), 8, run))
    assert (small.r.input_size, small.r.hidden_size, small.h.in_features) == (12, 6, 6)


def test_states_may_come_from_a_layer():
    """An encoder's features, projected to the states of a decoder, go with the decoder's units."""
    torch.manual_seed(0)
    net = Net(
        lambda n, x: n.h(n.r(n.a(x), n.s(x.mean(1)).unflatten(1, (2, -1)).transpose(0, 1).contiguous())[0].mean(1)),
        a=nn.Linear(3, 16),
        s=nn.Linear(3, 16),
        r=nn.GRU(16, 8, 2, batch_first=True),
        h=head(8),
    )
    small = checked(net)
    assert (small.s.out_features, small.r.hidden_size) == (12, 6)


def test_one_networks_state_is_the_next_ones():
    """Encoder and decoder hand on their states, and lose the same units."""
    torch.manual_seed(0)
    net = Net(
        lambda n, x: n.h(n.d(n.a(x), n.e(n.a(x))[1])[0].mean(1)),
        a=nn.Linear(3, 16),
        e=nn.LSTM(16, 8, 2, batch_first=True),
        d=nn.LSTM(16, 8, 2, batch_first=True),
        h=head(8),
    )
    small = checked(net)
    assert (small.e.hidden_size, small.d.hidden_size, small.h.in_features) == (6, 6, 6)


class Summed(nn.Module):
    """Both directions of a layer, told apart by a width that is kept in an attribute."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.a, self.h = nn.Linear(3, 16), head(8)
        self.r = nn.GRU(16, 8, 2, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.r(self.a(x))[0]
        logits: Tensor = self.h(self.summed(y).mean(1))
        return logits


class Viewed(Summed):
    def summed(self, y: Tensor) -> Tensor:
        return y.view(*y.shape[:2], 2, self.width).sum(2)


class Sliced(Summed):
    def summed(self, y: Tensor) -> Tensor:
        return y[..., : self.width] + y[..., self.width :]


@pytest.mark.parametrize("kind", [Viewed, Sliced])
def test_directions_are_told_apart_by_a_width_that_follows(kind):
    """Views and slices of what both directions put out are repaired."""
    torch.manual_seed(0)
    small = checked(kind(8))
    assert (small.width, small.r.hidden_size, small.h.in_features) == (6, 6, 6)


class WithState(nn.Module):
    """Makes its states itself, zeros or learned, of a width that it keeps in an attribute."""

    def __init__(self, *, learned: bool) -> None:
        super().__init__()
        self.hidden = 8
        self.start = nn.Parameter(torch.randn(2, 1, 8)) if learned else None
        self.a, self.r, self.h = nn.Linear(3, 16), nn.GRU(16, 8, 2, batch_first=True), head(8)

    def forward(self, x: Tensor) -> Tensor:
        if self.start is None:
            start = torch.zeros(2, len(x), self.hidden).to(x.dtype)
        else:
            start = self.start.expand(-1, len(x), -1).contiguous()
        logits: Tensor = self.h(self.r(self.a(x), start)[0].mean(1))
        return logits


@pytest.mark.parametrize("learned", [False, True])
def test_states_made_by_the_network_itself(learned):
    """Zeros of a width in an attribute shrink with it, and a learned state with the units."""
    torch.manual_seed(0)
    small = checked(WithState(learned=learned))
    assert (small.r.hidden_size, small.a.out_features) == (6, 12)


def test_a_state_from_outside_keeps_its_width():
    """A caller's state has no labels: the units stay, the inputs go."""
    torch.manual_seed(0)
    net = lively(
        Net(
            lambda n, x: n.h(n.r(n.a(x), x.flatten(1)[:, :16].view(-1, 2, 8).transpose(0, 1).contiguous())[0].mean(1)),
            a=nn.Linear(3, 16),
            r=nn.GRU(16, 8, 2, batch_first=True),
            h=head(8),
        )
    )
    plan = plan_pruning(net, X, 0.25)
    small = apply_plan(net, plan)
    assert (small.a.out_features, small.r.hidden_size) == (12, 8)
    assert largest_difference(small, masked_dense(net, plan), X) < 1e-12


def test_packed_sequences():
    """Sequences of several lengths, packed and padded again, carry their features along."""

    def run(layer: nn.Module, x: Tensor) -> Tensor:
        packed = rnn.pack_padded_sequence(x, [5, 3][: len(x)], batch_first=True)
        y, _ = layer(packed)
        padded: Tensor = rnn.pad_packed_sequence(y, batch_first=True)[0]
        return padded

    small = checked(between(nn.LSTM(16, 8, 2, batch_first=True, bidirectional=True), 16, run))
    assert (small.a.out_features, small.r.hidden_size, small.h.in_features) == (12, 6, 12)


def test_a_state_that_goes_out_keeps_all_layers():
    """Layers share one size: where one must stay, all do, and the plan says so."""
    torch.manual_seed(0)
    net = lively(Net(lambda n, x: n.r(n.a(x))[0], a=nn.Linear(3, 16), r=nn.LSTM(16, 8, 2), h=head(8)))
    plan = plan_pruning(net, X, 0.25)
    assert apply_plan(net, plan).r.hidden_size == 8
    assert apply_plan(net, plan).a.out_features == 12
    assert "must keep its balance with channels that stay: model output" in str(plan)
