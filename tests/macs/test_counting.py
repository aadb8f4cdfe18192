from __future__ import annotations

import inspect
from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import flex_attention
from torchvision.ops import DeformConv2d

from compress.errors import ModelError
from compress.macs import Macs, macs_of

E, H = 16, 4  # the width of an attention and its heads
N, L, S = 2, 5, 7  # batch, queries, keys


def images(*shape: int) -> torch.Tensor:
    """Numbers, the same for each shape."""
    return torch.linspace(-1, 1, torch.Size(shape).numel()).reshape(shape)


def attention(queries: int, keys: int, width: int = E) -> int:
    """Four projections, and for each head scores and what is read by them."""
    return 2 * (queries + keys) * width * width + 2 * queries * keys * width


ENCODER = attention(L, L) + 2 * L * E * 32
DECODER = attention(L, L) + attention(L, S) + 2 * L * E * 32


class Layer(NamedTuple):
    build: Callable[[], nn.Module]
    inputs: tuple[torch.Tensor, ...]
    macs: int


def layer(kind: type[nn.Module], *settings: object, x: object, macs: int, **named: object) -> Layer:
    """A layer of the table."""
    return Layer(lambda: kind(*settings, **named), x if isinstance(x, tuple) else (x,), macs)


QUERIES, KEYS = images(N, L, E), images(N, S, E)
ROWS, STEPS = images(N, 3), images(5, N, 3)
GATES = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}
CELLS = {nn.LSTM: nn.LSTMCell, nn.GRU: nn.GRUCell, nn.RNN: nn.RNNCell}

LAYERS = [
    # out channels * in channels of a group * kernel, for each value that leaves
    layer(nn.Conv1d, 4, 6, 3, groups=2, x=images(N, 4, 9), macs=N * 7 * 6 * 2 * 3),
    layer(nn.Conv1d, 4, 6, 3, x=images(4, 9), macs=7 * 6 * 4 * 3),
    layer(nn.Conv2d, 4, 6, 3, stride=2, padding="valid", x=images(N, 4, 9, 8), macs=N * 4 * 3 * 6 * 4 * 9),
    layer(nn.Conv2d, 4, 4, (1, 3), groups=4, padding="same", x=images(N, 4, 9, 8), macs=N * 9 * 8 * 4 * 3),
    layer(nn.Conv2d, 4, 6, 3, padding=1, padding_mode="reflect", x=images(N, 4, 5, 5), macs=N * 25 * 6 * 4 * 9),
    layer(nn.Conv3d, 4, 6, 3, dilation=2, x=images(N, 4, 6, 6, 6), macs=N * 8 * 6 * 4 * 27),
    # the same, for each value that enters
    layer(nn.ConvTranspose1d, 4, 6, 3, groups=2, stride=2, x=images(N, 4, 9), macs=N * 9 * 4 * 3 * 3),
    layer(nn.ConvTranspose2d, 4, 6, 3, output_padding=1, stride=2, x=images(N, 4, 9, 8), macs=N * 72 * 4 * 6 * 9),
    layer(nn.ConvTranspose3d, 4, 6, 3, x=images(N, 4, 3, 3, 3), macs=N * 27 * 4 * 6 * 27),
    layer(nn.Linear, 6, 7, x=images(6), macs=6 * 7),
    layer(nn.Linear, 6, 7, bias=False, x=images(N, 3, 6), macs=N * 3 * 6 * 7),
    layer(nn.Bilinear, 3, 4, 5, x=(images(N, 6, 3), images(N, 6, 4)), macs=N * 6 * 3 * 4 * 5),
    layer(nn.Embedding, 9, 4, x=torch.tensor([[1, 2]]), macs=0),
    layer(nn.EmbeddingBag, 9, 4, x=torch.tensor([[1, 2]]), macs=0),
    layer(nn.AdaptiveLogSoftmaxWithLoss, 8, 9, [3], x=(images(N, 8), torch.tensor([0, 1])), macs=N * 8 * 4),
    layer(nn.PReLU, 4, x=images(N, 4), macs=0),
    layer(nn.BatchNorm1d, 4, x=images(N, 4), macs=0),
    layer(nn.BatchNorm2d, 4, x=images(N, 4, 2, 2), macs=0),
    layer(nn.BatchNorm3d, 4, x=images(N, 4, 2, 2, 2), macs=0),
    layer(nn.InstanceNorm1d, 4, affine=True, x=images(N, 4, 3), macs=0),
    layer(nn.InstanceNorm2d, 4, affine=True, x=images(N, 4, 2, 2), macs=0),
    layer(nn.InstanceNorm3d, 4, affine=True, x=images(N, 4, 2, 2, 2), macs=0),
    layer(nn.LayerNorm, (3, 4), x=images(N, 3, 4), macs=0),
    layer(nn.RMSNorm, 4, x=images(N, 4), macs=0),
    layer(nn.GroupNorm, 2, 4, x=images(N, 4, 3), macs=0),
    layer(nn.MultiheadAttention, E, H, batch_first=True, x=(QUERIES, KEYS, KEYS), macs=N * attention(L, S)),
    layer(nn.MultiheadAttention, E, H, x=(QUERIES[0], KEYS[0], KEYS[0]), macs=attention(L, S)),
    layer(
        nn.MultiheadAttention,
        *(E, H),
        kdim=6,
        vdim=10,
        add_bias_kv=True,
        add_zero_attn=True,
        batch_first=True,
        x=(QUERIES, images(N, S, 6), images(N, S, 10)),
        macs=N * (2 * L * E * E + S * E * (6 + 10) + 2 * L * (S + 2) * E),
    ),
    layer(nn.TransformerEncoderLayer, E, H, 32, batch_first=True, x=QUERIES, macs=N * ENCODER),
    layer(nn.TransformerDecoderLayer, E, H, 32, batch_first=True, x=(QUERIES, KEYS), macs=N * DECODER),
    layer(
        nn.TransformerEncoder,
        *(nn.TransformerEncoderLayer(E, H, 32, batch_first=True), 2),
        x=(QUERIES, None, torch.arange(L).expand(N, L) > 2),
        macs=2 * N * ENCODER,
    ),
    layer(
        nn.TransformerDecoder,
        *(nn.TransformerDecoderLayer(E, H, 32, batch_first=True), 3),
        x=(QUERIES, KEYS),
        macs=3 * N * DECODER,
    ),
    layer(
        nn.Transformer,
        *(E, H, 1, 2, 32),
        batch_first=True,
        x=(KEYS, QUERIES),
        macs=N * (attention(S, S) + 2 * S * E * 32 + 2 * DECODER),
    ),
    layer(DeformConv2d, 4, 6, 3, x=(images(N, 4, 9, 9), torch.zeros(N, 18, 7, 7)), macs=N * 49 * 6 * 4 * 9),
    # gates * hidden * (inputs + hidden), for each step of each sequence
    *(layer(CELLS[kind], 3, 6, x=ROWS, macs=N * gates * 6 * (3 + 6)) for kind, gates in GATES.items()),
    *(layer(kind, 3, 6, x=STEPS, macs=5 * N * gates * 6 * (3 + 6)) for kind, gates in GATES.items()),
    *(layer(kind, 3, 6, bias=False, x=STEPS[:, 0], macs=5 * gates * 6 * (3 + 6)) for kind, gates in GATES.items()),
    *(
        layer(
            kind,
            *(3, 6, 2),
            bidirectional=True,
            batch_first=True,
            x=STEPS.transpose(0, 1),
            macs=5 * N * 2 * gates * 6 * ((3 + 6) + (2 * 6 + 6)),
        )
        for kind, gates in GATES.items()
    ),
    layer(
        nn.LSTM,
        *(3, 6, 2),
        proj_size=4,
        x=STEPS,
        macs=5 * N * ((24 * (3 + 4) + 6 * 4) + (24 * (4 + 4) + 6 * 4)),
    ),
]
IDS = [f"{one.build().__class__.__name__}-{number}" for number, one in enumerate(LAYERS)]
each_layer = pytest.mark.parametrize("one", LAYERS, ids=IDS)


def count(model: nn.Module, *inputs: object) -> Macs:
    """Count one forward pass."""
    return macs_of(lambda: model(*inputs))


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@each_layer
@pytest.mark.parametrize("train", [True, False])
def test_a_layer_costs_its_closed_form(one, train):
    """In train mode and in eval mode, where some have fast paths of one fused operation."""
    assert count(one.build().train(train), *one.inputs) == Macs(one.macs, ())


@each_layer
@pytest.mark.parametrize("backend", [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION])
@pytest.mark.parametrize("fast_path", [True, False])
def test_how_a_layer_is_executed_does_not_count(one, backend, fast_path):
    """Nor does it come out changed: the fast path is as it was, and there are gradients again."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fast_path)
    try:
        with sdpa_kernel([backend, SDPBackend.MATH]), torch.inference_mode():
            assert count(one.build().eval(), *one.inputs).total == one.macs
        assert torch.backends.mha.get_fastpath_enabled() == fast_path
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    assert (torch.ones(1, requires_grad=True) * 2).requires_grad


@each_layer
def test_a_layer_without_memory_costs_the_same(one):
    """On the meta device every layer has its shapes, and that is all a count needs."""
    if isinstance(one.build(), nn.TransformerEncoder | nn.AdaptiveLogSoftmaxWithLoss):
        pytest.skip("looks at values")
    inputs = [x.to("meta") for x in one.inputs if x is not None]
    assert count(one.build().to("meta"), *inputs).total == one.macs


def test_every_layer_of_torch_that_has_weights_is_among_them():
    """What a new release of torch adds must find its closed form here."""
    tested = {type(one.build()) for one in LAYERS}
    containers = {nn.ParameterList, nn.ParameterDict, nn.Container, nn.RNNBase, nn.RNNCellBase}
    abstract = {kind for kind in vars(nn).values() if inspect.isclass(kind) and "Lazy" in kind.__name__}
    annotated = {
        kind
        for kind in vars(nn).values()
        if inspect.isclass(kind) and issubclass(kind, nn.Module) and "Parameter(" in inspect.getsource(kind)
    }
    # What inherits its weights is in the same table.
    assert annotated - abstract - containers - tested - {nn.Module, nn.CrossMapLRN2d} == set()


def test_packed_sequences_cost_their_own_steps():
    """Padding is none of them."""
    packed = nn.utils.rnn.pack_sequence([images(4, 3), images(2, 3)])
    for kind, gates in GATES.items():
        assert count(kind(3, 6), packed).total == 6 * gates * 6 * (3 + 6)


@given(
    sizes=st.tuples(*[st.integers(1, 5)] * 4),
    heads=st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 1)]),
    widths=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    is_causal=st.booleans(),
)
def test_attention_costs_its_scores_and_what_they_read(sizes, heads, widths, is_causal):
    """Of queries and keys of different lengths, keys shared by groups of heads; causality leaves nothing out."""
    n, queries, keys, _ = sizes
    (of_queries, of_keys), (width, of_values) = heads, widths
    q = torch.zeros(n, of_queries, queries, width)
    k, v = torch.zeros(n, of_keys, keys, width), torch.zeros(n, of_keys, keys, of_values)
    found = macs_of(lambda: nn.functional.scaled_dot_product_attention(q, k, v, is_causal=is_causal, enable_gqa=True))
    assert found == Macs(n * of_queries * queries * keys * (width + of_values), ())


def test_flexible_attention_runs_without_a_compiler():
    """It costs what plain attention costs, whatever its mask."""
    q = torch.zeros(1, 2, 128, 16)
    assert macs_of(lambda: flex_attention(q, q, q)) == Macs(2 * 128 * 128 * (16 + 16), ())


MATRICES = {
    "mm": (lambda: images(3, 4) @ images(4, 5), 3 * 4 * 5),
    "mv": (lambda: images(3, 4) @ images(4), 3 * 4),
    "dot": (lambda: images(4) @ images(4), 4),
    "bmm": (lambda: images(2, 3, 4) @ images(2, 4, 5), 2 * 3 * 4 * 5),
    "a broadcast product": (lambda: images(6, 1, 3, 4) @ images(2, 4, 5), 12 * 3 * 4 * 5),
    "addmm in place": (lambda: torch.zeros(3, 5).addmm_(images(3, 4), images(4, 5)), 3 * 4 * 5),
    "addmv": (lambda: torch.addmv(torch.zeros(3), images(3, 4), images(4)), 3 * 4),
    "addbmm": (lambda: torch.addbmm(torch.zeros(3, 5), images(2, 3, 4), images(2, 4, 5)), 2 * 3 * 4 * 5),
    "baddbmm": (lambda: torch.baddbmm(torch.zeros(2, 3, 5), images(2, 3, 4), images(2, 4, 5)), 2 * 3 * 4 * 5),
    "einsum": (lambda: torch.einsum("bij,jk->bik", images(2, 3, 4), images(4, 5)), 2 * 3 * 4 * 5),
    "tensordot": (lambda: torch.tensordot(images(3, 4, 5), images(5, 4, 2), ([1, 2], [1, 0])), 3 * 20 * 2),
    "multi_dot": (lambda: torch.linalg.multi_dot([images(6, 2), images(2, 8), images(8, 3)]), 2 * 8 * 3 + 6 * 2 * 3),
    "sparse": (lambda: images(3, 4).to_sparse() @ images(4, 5), 3 * 4 * 5),
    "small distances": (lambda: torch.cdist(images(2, 3, 4), images(2, 5, 4)), 2 * 3 * 5 * 4),
    "large distances": (lambda: torch.cdist(images(40, 4), images(30, 4)), 40 * 30 * 4),
    "mapped": (lambda: torch.func.vmap(lambda x: images(5, 4) @ x)(images(3, 4)), 3 * 4 * 5),
    "compiled": (lambda: torch.compile(lambda x: x @ x.T, backend="eager")(images(3, 4)), 3 * 4 * 3),
    "one of two branches": (
        lambda: torch.cond(torch.tensor(True), lambda x: x @ x.T, lambda x: x * 1, (images(3, 3),)),
        27,
    ),
    "in groups": (
        lambda: nn.functional.grouped_mm(
            images(6, 8).bfloat16(), images(2, 8, 8).bfloat16(), offs=torch.tensor([2, 6]).int()
        ),
        6 * 8 * 8,
    ),
    "element by element": (lambda: (images(3, 4) * images(4)).sum(1), 0),
}


@pytest.mark.parametrize("kind", MATRICES)
def test_products_cost_their_closed_form(kind):
    """However they are written; an element-wise product is free."""
    product, macs = MATRICES[kind]
    assert macs_of(product) == Macs(macs, ())


def test_the_parts_of_a_network_add_up_over_all_passes():
    """Of two passes each counts; a forward pass of nothing costs nothing."""
    model = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.LSTM(5, 2))
    one_pass = 2 * (3 * 5 + 8 * (5 + 2))
    assert macs_of(lambda: [model(images(2, 3)) for _ in range(2)]).total == 2 * one_pass
    assert macs_of(lambda: None) == Macs(0, ())


def encoder() -> nn.Module:
    """An encoder between a linear and a recurrent layer."""
    inner = nn.TransformerEncoder(nn.TransformerEncoderLayer(E, H, 32, batch_first=True), 2)
    return nn.Sequential(nn.Linear(6, E), inner, nn.LSTM(E, 8, batch_first=True)).eval()


@pytest.mark.filterwarnings("ignore:The tensor attributes")
@pytest.mark.parametrize(("decomposed", "strict"), [*product([True, False], repeat=2)])
def test_a_captured_graph_costs_what_the_network_costs(decomposed, strict):
    """As it was captured, and taken apart into core operations."""
    model, x = encoder(), images(N, L, 6)
    program = torch.export.export(model, (x,), strict=strict)
    graph = (program.run_decompositions() if decomposed else program).module()
    expected = N * (L * 6 * E + 2 * ENCODER + L * 4 * 8 * (E + 8))
    assert count(model, x) == count(graph, x) == Macs(expected, ())


@torch.library.custom_op("compress_tests::fused", mutates_args=())
def fused(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A linear layer that another library brings."""
    return x @ weight.T


class Fused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(images(3, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return fused(x, self.weight)


class Elsewhere(Fused):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(x.numpy() @ self.weight.detach().numpy().T)


UNCOUNTED = {
    "an operation of another library": (Fused, images(2, 4), "compress_tests::fused"),
    "a library past the dispatcher": (Elsewhere, images(2, 4), "Elsewhere, whose weights"),
    "nested tensors": (
        lambda: nn.Linear(4, 3),
        torch.nested.nested_tensor([images(3, 4), images(2, 4)], layout=torch.jagged),
        "nested tensors",
    ),
}


@pytest.mark.parametrize("kind", UNCOUNTED)
def test_what_cannot_be_counted_is_named(kind):
    """It is not passed off as free, and what needs the whole count refuses."""
    build, x, name = UNCOUNTED[kind]
    model = nn.Sequential(build(), nn.Linear(3, 2))
    found = macs_of(lambda: model[0](x))
    assert found.total == 0
    assert len(found.uncounted) == 1
    assert name in found.uncounted[0]
    with pytest.raises(ModelError, match=rf"max_macs needs a count of all .*{name}"):
        found.whole("max_macs")


def test_a_layer_whose_weights_are_not_read_because_it_is_not_called_is_no_gap():
    """An operation of another library without weights is none either."""
    model = nn.ModuleDict({"used": nn.Linear(4, 4), "unused": nn.Linear(4, 4)})
    assert macs_of(lambda: fused(model["used"](images(2, 4)), images(3, 4))) == Macs(2 * 4 * 4, ())
