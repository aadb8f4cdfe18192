"""The properties of the affine map between floats and integers, on the operations that the graphs hold."""

from __future__ import annotations

import hypothesis.strategies as st
import torch
from hypothesis import given, settings
from torch import nn

from compress.calling.fidelity import snr_db
from compress.calling.inputs import inputs_of
from compress.exported import capture
from compress.exported.structure import Signature
from compress.quantization.observed import calibrate_, converted, layers_of, observed
from compress.quantization.simulation import Simulation


def ops():
    """The operations that torchao writes into a graph."""
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer  # noqa: F401, PLC0415 - registers them

    return torch.ops.quantized_decomposed


def floats(low: float, high: float) -> st.SearchStrategy[float]:
    """Of 32 bits."""
    return st.floats(low, high, width=32)


@st.composite
def maps(draw: st.DrawFn) -> tuple[float, int]:
    """A scale and a zero point."""
    return draw(floats(0.0009765625, 8.0)), draw(st.integers(0, 255))


@settings(deadline=None)
@given(maps(), st.lists(floats(-4096.0, 4096.0), min_size=1, max_size=20))
def test_a_value_in_range_comes_back_within_half_a_scale(affine, values):
    """In range the error is at most scale / 2; beyond it the value saturates at the range's end; zero stays zero."""
    scale, zero_point = affine
    exact = torch.tensor([*values, 0.0])
    integers = ops().quantize_per_tensor(exact, scale, zero_point, 0, 255, torch.uint8)
    again = ops().dequantize_per_tensor(integers, scale, zero_point, 0, 255, torch.uint8)
    lowest, highest = (0 - zero_point) * scale, (255 - zero_point) * scale
    rounding = scale * (0.5 + 1e-3)
    for value, integer, back in zip(exact.tolist(), integers.tolist(), again.tolist(), strict=True):
        if lowest <= value <= highest:
            assert abs(back - value) <= rounding
        else:
            assert integer == (0 if value < lowest else 255)
    assert again[-1] == 0.0
    assert integers[-1] == zero_point
    assert (integers.shape, integers.dtype) == (exact.shape, torch.uint8)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 5))
def test_weights_keep_their_shape_and_lie_within_half_a_scale_of_each_channel(seed, outs, ins):
    """``[out, in, kh, kw]``: one scale for each output channel, integers of that shape, zeros that stay zero."""
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Conv2d(ins, outs, 3)
    layer.weight.data = torch.randn(layer.weight.shape, generator=generator)
    layer.weight.data[0, 0] = 0.0
    graph = quantized(layer, torch.randn(2, ins, 4, 4, generator=generator))
    integers = next(buffer for buffer in graph.buffers() if buffer.dtype == torch.int8)
    scales = next(buffer for buffer in graph.buffers() if buffer.dtype == torch.float32)
    assert (integers.shape, len(scales)) == (layer.weight.shape, outs)
    again = integers * scales[:, None, None, None]
    assert ((again - layer.weight).abs() <= scales[:, None, None, None] * 0.501 + 1e-12).all()
    assert (integers[0, 0] == 0).all()
    assert int(integers.abs().max()) <= 128


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), floats(8.0, 512.0))
def test_a_scale_for_each_channel_beats_one_for_all_on_skewed_weights(seed, skew):
    """Where channels differ much in magnitude, the small ones drown in the large ones' scale."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(8, 4, 3, 3, generator=generator)
    weight[1:] /= skew
    layer = nn.Conv2d(4, 8, 3, bias=False)
    layer.weight.data = weight
    graph = quantized(layer, torch.randn(2, 4, 4, 4, generator=generator))
    integers = next(buffer for buffer in graph.buffers() if buffer.dtype == torch.int8)
    scales = next(buffer for buffer in graph.buffers() if buffer.dtype == torch.float32)
    per_channel = integers * scales[:, None, None, None]
    scale = float(weight.abs().max()) / 127.5
    per_tensor = torch.fake_quantize_per_tensor_affine(weight, scale, 0, -128, 127)
    assert snr_db(weight[1:], per_channel[1:]) > snr_db(weight[1:], per_tensor[1:]) + 6


def quantized(layer: nn.Module, inputs: torch.Tensor) -> torch.fx.GraphModule:
    """The int8 graph of one layer, calibrated with ``inputs``."""
    graph = observed(capture(layer.eval(), inputs), observer="minmax", reduce_range=False)
    calibrate_(graph, [inputs_of(inputs)], progress=False)
    return converted(graph)


def test_the_simulation_rounds_as_the_integers_do(tiny_dense, tiny_images):
    """All layers in int8: the same outputs as the converted graph; all in float: those of the model."""
    program = capture(tiny_dense, tiny_images)
    graph = observed(program, observer="histogram", reduce_range=False)
    calibrate_(graph, [inputs_of(tiny_images)], progress=False)
    simulation = Simulation(graph, layers_of(graph), Signature.of(program))
    simulated, exact = simulation(tiny_images), simulation.exact(inputs_of(tiny_images))
    with torch.no_grad():
        torch.testing.assert_close(exact, tiny_dense(tiny_images), rtol=1e-4, atol=1e-5)
        assert snr_db(converted(graph)(tiny_images), simulated) > snr_db(exact, simulated) + 6


def test_a_layer_in_float_rounds_nothing(tiny_dense, tiny_images):
    """With every layer in float nothing is left that rounds but what pools and outputs share."""
    program = capture(tiny_dense, tiny_images)
    graph = observed(program, observer="histogram", reduce_range=False)
    calibrate_(graph, [inputs_of(tiny_images)], progress=False)
    simulation = Simulation(graph, layers_of(graph), Signature.of(program))
    noise = [snr_db(simulation.exact(inputs_of(tiny_images)), simulation(tiny_images))]
    simulation.in_float = simulation.layers
    noise.append(snr_db(simulation.exact(inputs_of(tiny_images)), simulation(tiny_images)))
    assert noise[1] > noise[0]
