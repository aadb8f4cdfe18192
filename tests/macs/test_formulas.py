from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.ao.nn import quantized
from torch.ao.nn.quantized import dynamic

from compress.macs import Macs, macs_of
from compress.macs.formulas import FORMULAS

aten = torch.ops.aten
N, L, E = 2, 5, 16


def attention() -> tuple[torch.Tensor, ...]:
    """The weights and biases of an attention's two linear layers."""
    layer = nn.MultiheadAttention(E, 4)
    assert layer.in_proj_weight is not None
    assert layer.in_proj_bias is not None
    return layer.in_proj_weight, layer.in_proj_bias, layer.out_proj.weight, layer.out_proj.bias


def encoder_layer(mask: torch.Tensor | None, kind: int | None) -> object:
    """Call the encoder's one operation; ``kind`` says what the mask is of."""
    norm, first, second = nn.LayerNorm(E), nn.Linear(E, 32), nn.Linear(32, E)
    tail = (norm.weight, norm.bias, norm.weight, norm.bias, first.weight, first.bias, second.weight, second.bias)
    x = torch.zeros(N, L, E)
    return torch._transformer_encoder_layer_fwd(x, E, 4, *attention(), False, False, 1e-5, *tail, mask, kind)


ATTENTION = N * (4 * L * E * E + 2 * L * L * E)
ENCODER = ATTENTION + N * 2 * L * E * 32
LSTM = nn.LSTM(3, 6)
X, STEPS, HEADS = torch.zeros(N, L, E), torch.zeros(5, N, 3), torch.zeros(N, 4, L, 8)
BILINEAR = torch.zeros(7, 3, 4)

FUSED = {
    "_native_multi_head_attention": (
        lambda: torch._native_multi_head_attention(X, X, X, E, 4, *attention()),
        ATTENTION,
    ),
    "_transformer_encoder_layer_fwd": (lambda: encoder_layer(None, None), ENCODER),
    "_transformer_encoder_layer_fwd of padded sequences": (
        lambda: encoder_layer(torch.zeros(N, L, dtype=torch.bool), 1),
        ENCODER,
    ),
    "_transformer_encoder_layer_fwd under a mask": (
        lambda: encoder_layer(torch.zeros(L, L, dtype=torch.bool), 0),
        ENCODER,
    ),
    "_scaled_dot_product_flash_attention_for_cpu": (
        lambda: aten._scaled_dot_product_flash_attention_for_cpu(HEADS, HEADS, HEADS),
        N * 4 * L * L * 16,
    ),
    "_scaled_dot_product_attention_math": (
        lambda: aten._scaled_dot_product_attention_math(HEADS, HEADS, HEADS),
        N * 4 * L * L * 16,
    ),
    "mkldnn_rnn_layer": (
        lambda: aten.mkldnn_rnn_layer(
            *(STEPS, LSTM.weight_ih_l0, LSTM.weight_hh_l0, LSTM.bias_ih_l0, LSTM.bias_hh_l0),
            *(torch.zeros(N, 6), torch.zeros(N, 6), False, [], 2, 6, 1, True, False, False, False),
        ),
        5 * N * 24 * (3 + 6),
    ),
    "_trilinear": (
        lambda: aten._trilinear(torch.zeros(6, 3), BILINEAR, torch.zeros(6, 4), [1, 3], [0], [1, 2], [2, 3]),
        6 * 7 * 3 * 4,
    ),
    "conv_tbc": (lambda: torch.conv_tbc(STEPS, torch.zeros(2, 3, 7), torch.zeros(7)), 4 * N * 2 * 3 * 7),
    "_int_mm": (
        lambda: torch._int_mm(torch.ones(32, 8, dtype=torch.int8), torch.ones(8, 16, dtype=torch.int8)),
        32 * 8 * 16,
    ),
    "mkldnn::_linear_pointwise": (
        lambda: torch.ops.mkldnn._linear_pointwise(torch.zeros(3, 4), torch.zeros(6, 4), None, "none", [], None),
        3 * 4 * 6,
    ),
    "mkldnn::_convolution_pointwise": (
        lambda: torch.ops.mkldnn._convolution_pointwise(
            *(torch.zeros(N, 4, 9, 9), torch.zeros(6, 2, 3, 3), None, [0, 0], [1, 1], [1, 1], 2, "none", [], None)
        ),
        N * 49 * 6 * 2 * 9,
    ),
}


@pytest.mark.parametrize("kind", FUSED)
def test_a_fused_operation_costs_what_its_parts_cost(kind):
    """Called by name, as scripts and compiled graphs do."""
    call, macs = FUSED[kind]
    assert macs_of(call) == Macs(macs, ())


def flash(heads: torch.Tensor) -> object:
    """FlashAttention."""
    return aten._scaled_dot_product_flash_attention(heads, heads, heads)


def efficient(heads: torch.Tensor) -> object:
    """Memory-efficient attention."""
    return aten._scaled_dot_product_efficient_attention(heads, heads, heads, None, compute_log_sumexp=False)


def cudnn(heads: torch.Tensor) -> object:
    """CuDNN's."""
    return aten._scaled_dot_product_cudnn_attention(heads, heads, heads, None, compute_log_sumexp=False)


def flash_heads_inside(heads: torch.Tensor) -> object:
    """As other packages call it, heads behind positions."""
    inside = heads.transpose(1, 2)
    return aten._flash_attention_forward(inside, inside, inside, None, None, L, L, 0.0, False, False)


def efficient_heads_inside(heads: torch.Tensor) -> object:
    """The same."""
    inside = heads.transpose(1, 2)
    return aten._efficient_attention_forward(inside, inside, inside, None, None, None, None, None, 0.0, 0)


def any_kernel(heads: torch.Tensor) -> object:
    """Whatever PyTorch takes."""
    return nn.functional.scaled_dot_product_attention(heads, heads, heads)


@pytest.mark.parametrize("kernel", [flash, efficient, cudnn, flash_heads_inside, efficient_heads_inside, any_kernel])
@pytest.mark.parametrize("width", [16, 20])
def test_every_attention_of_cuda_costs_the_same(kernel, width):
    """A head whose width no kernel likes, and that some would pad, too."""
    with FakeTensorMode():
        heads = torch.empty(N, 4, L, width, device="cuda", dtype=torch.float16)
        assert macs_of(lambda: kernel(heads)) == Macs(N * 4 * L * L * 2 * width, ())


def test_recurrent_layers_cost_the_same_on_cuda():
    """Whether one operation does all layers, or a cell's gates are fused behind their products."""
    layers = 5 * N * 2 * (24 * (3 + 6) + 24 * (12 + 6))
    shapes = [weight.shape for weight in nn.LSTM(3, 6, 2, bidirectional=True).parameters()]
    with FakeTensorMode():
        x, state = torch.empty(5, N, 3, device="cuda"), torch.empty(4, N, 6, device="cuda")
        weights = [torch.empty(shape, device="cuda") for shape in shapes]
        by_cudnn = (x, weights, 4, None, state, state, 2, 6, 0, 2, False, 0.0, False, True, [], None)
        assert macs_of(lambda: aten._cudnn_rnn(*by_cudnn)) == Macs(layers, ())
        gates, cell = torch.empty(N, 24, device="cuda"), torch.empty(N, 6, device="cuda")
        bias = torch.empty(24, device="cuda")
        assert macs_of(lambda: aten._thnn_fused_lstm_cell(gates, gates, cell, bias, bias)) == Macs(0, ())
        of_input, of_state = torch.empty(24, 3, device="cuda"), torch.empty(24, 6, device="cuda")
        one_step = (x[0], (cell, cell), of_input, of_state, bias, bias)
        assert macs_of(lambda: torch.lstm_cell(*one_step)) == Macs(N * 24 * (3 + 6), ())


def test_sequences_one_after_another_attend_within_themselves():
    """Two of 3 and 2 rows, whose keys are 4 and 1: a product of scores and one of values for each pair."""
    query, key = torch.zeros(5, 4, 8), torch.zeros(5, 4, 8)
    ends = torch.tensor([0, 3, 5]), torch.tensor([0, 4, 5])
    macs = (3 * 4 + 2 * 1) * 4 * (8 + 8)
    assert FORMULAS["_flash_attention_forward"](query, query, key, key, *ends, 3, 4) == macs


@pytest.mark.parametrize("name", [name for name in FORMULAS if "conv" in name and "quantized" not in name])
def test_every_kernel_of_convolution_costs_its_closed_form(name):
    """In groups; transposed ones multiply for each value that enters, others for each that leaves."""
    x, out = torch.zeros(N, 4, 9, 9), torch.zeros(N, 6, 7, 7)
    weight = torch.zeros(4, 3, 3, 3) if "transpose" in name else torch.zeros(6, 2, 3, 3)
    transposed, plain = N * 81 * 4 * 3 * 9, N * 49 * 6 * 2 * 9
    if "onednn" in name:
        assert FORMULAS[name](out, x, 1.0, 0, weight) == plain
    elif name == "conv_tbc":
        assert FORMULAS[name](torch.zeros(7, N, 6), torch.zeros(9, N, 4), torch.zeros(3, 4, 6)) == 7 * N * 6 * 4 * 3
    else:
        found = FORMULAS[name](out, x, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 2)
        assert found == (transposed if "transpose" in name else plain)


@pytest.mark.filterwarnings("ignore")  # what torch says of these layers' retirement
def test_layers_of_integers_cost_what_layers_of_numbers_cost():
    """Statically and dynamically quantized; a recurrent one keeps its weights to itself, and is named."""
    torch.backends.quantized.engine = "x86"
    images = torch.quantize_per_tensor(torch.zeros(N, 4, 9, 9), 0.1, 0, torch.quint8)
    assert macs_of(lambda: quantized.Conv2d(4, 6, 3)(images)) == Macs(N * 49 * 6 * 4 * 9, ())
    rows = torch.quantize_per_tensor(torch.zeros(N, 4), 0.1, 0, torch.quint8)
    assert macs_of(lambda: quantized.Linear(4, 6)(rows)) == Macs(N * 4 * 6, ())
    assert macs_of(lambda: dynamic.Linear(4, 6)(torch.zeros(N, 4))) == Macs(N * 4 * 6, ())
    recurrent = dynamic.LSTM(3, 6)
    assert macs_of(lambda: recurrent(STEPS)) == Macs(0, ("aten::quantized_lstm",))


def test_every_formula_is_of_an_operation():
    """A name that torch does not know would count nothing."""
    elsewhere = ("torchvision::", "torch_attn::", "mkl::", "flex_attention", "quantized::", "onednn::")
    for name in FORMULAS:
        if not name.startswith(elsewhere):
            namespace, _, operation = name.rpartition("::")
            assert hasattr(getattr(torch.ops, namespace or "aten"), operation), name
