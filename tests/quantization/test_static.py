from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from compress.calling.fidelity import snr_db
from compress.calling.inputs import inputs_of
from compress.errors import ConfigError, ModelError
from compress.quantization import search, static
from compress.quantization.model import count_int8_kernels
from compress.quantization.report import INT8, QuantizationReport
from compress.quantization.static import QuantizeConfig, quantize, quantize_by
from tests.nets import Net
from tests.workloads import tiny_net


def test_every_layer_becomes_an_int8_kernel_that_runs(tiny_int8):
    """Three layers, three int8 kernels in the profile of one compiled forward pass, each layer's reason empty."""
    assert [layer.name for layer in tiny_int8.report.layers] == ["features.0", "features.3", "classifier"]
    assert {(layer.precision, layer.reason) for layer in tiny_int8.report.layers} == {(INT8, "")}
    assert all(layer.sensitivity_db > 20 for layer in tiny_int8.report.layers)
    assert tiny_int8.report.int8_kernels == 3


def test_the_int8_model_puts_out_what_the_float_one_does_but_for_rounding(tiny_int8, tiny_dense, tiny_images):
    """Logits differ, by noise a hundred times weaker than they are."""
    outputs = tiny_int8.model(tiny_images)
    with torch.no_grad():
        exact = tiny_dense(tiny_images)
    assert not outputs.equal(exact)
    assert snr_db(exact, outputs) > 20
    assert tiny_int8.report.output_snr_db == pytest.approx(snr_db(exact, outputs), abs=0.5)


def test_weights_are_integers_with_a_scale_for_each_channel_and_norms_are_gone(tiny_int8):
    """Each weight is int8, its scales are as many as its output channels, and no batch norm is left."""
    weights = [tensor for tensor in tiny_int8.model.buffers() if tensor.dtype == torch.int8]
    assert sorted(tuple(weight.shape) for weight in weights) == [(3, 10), (5, 3, 3, 3), (10, 5, 3, 3)]
    scales = [tensor for tensor in tiny_int8.model.buffers() if tensor.dtype == torch.float32]
    assert sorted(len(scale) for scale in scales) == [3, 5, 10]
    operations = {str(node.target) for node in tiny_int8.model.graph.graph.nodes}
    assert not any("batch_norm" in operation for operation in operations)


def test_the_report_survives_its_own_json(tiny_int8):
    """What the file says of each layer is what the report said."""
    assert QuantizationReport.from_json(tiny_int8.report.to_json()) == tiny_int8.report
    assert tiny_int8.model.report == tiny_int8.report
    assert "3 of 3 layers in int8, 3 int8 kernels run" in str(tiny_int8.report)


@pytest.fixture
def uncompiled(monkeypatch):
    """Int8 models that run their graph as it is, and say that it has kernels: for tests of the search alone."""
    monkeypatch.setattr(static, "count_int8_kernels", lambda *_: 99)
    monkeypatch.setattr(static.QuantizedModel, "forward", lambda self, inputs: self.graph(inputs))


@pytest.mark.usefixtures("uncompiled")
def test_the_given_model_is_left_as_it_is(tiny_images):
    """Weights, statistics and mode of a model in training stay."""
    torch.manual_seed(0)
    model = tiny_net().train()
    before = copy.deepcopy(model.state_dict())
    quantize(model, tiny_images, evaluate=lambda _: 1.0)
    assert model.training
    assert all(value.equal(model.state_dict()[name]) for name, value in before.items())


@pytest.mark.usefixtures("uncompiled")
def test_the_most_sensitive_layers_stay_in_float_until_the_contract_holds(tiny_dense, tiny_images):
    """Accuracy that two layers in float are needed for gives just those two, the most sensitive ones."""

    def accuracy(model: nn.Module) -> float:
        if model is reference:
            return 1.0
        in_float = len(model.in_float) if hasattr(model, "in_float") else 3 - num_int8(model)
        return 1.0 if in_float >= 2 else 0.9

    reference = None

    def first_call(model: nn.Module) -> float:
        nonlocal reference
        reference = reference or model
        return accuracy(model)

    model, report = quantize(tiny_dense, tiny_images, evaluate=first_call, max_accuracy_drop=0.05)
    kept = report.float_layers
    assert len(kept) == 2
    ranked = sorted(report.layers, key=lambda layer: layer.sensitivity_db)
    assert set(kept) == set(ranked[:2])
    assert all("the accuracy contract" in layer.reason for layer in kept)
    assert num_int8(model) == 1
    assert (report.accuracy_float, report.accuracy_int8) == (1.0, 1.0)


def num_int8(model: nn.Module) -> int:
    """How many weights of ``model`` are int8."""
    return sum(tensor.dtype == torch.int8 for tensor in model.buffers())


@pytest.mark.usefixtures("uncompiled")
def test_the_contract_is_held_by_the_compiled_model_too(tiny_dense, tiny_images):
    """Where only the real int8 model falls short, further layers stay in float until it does not."""

    def accuracy(model: nn.Module) -> float:
        return 0.5 if num_int8(model) == 3 else 1.0

    model, report = quantize(tiny_dense, tiny_images, evaluate=accuracy, max_accuracy_drop=0.1)
    assert num_int8(model) == 2
    assert len(report.float_layers) == 1


@pytest.mark.usefixtures("uncompiled")
def test_a_contract_that_no_layer_can_hold_is_an_error(tiny_dense, tiny_images):
    """Never a float model under the name of a quantized one."""
    with pytest.raises(ModelError, match=r"^no set of int8 layers reaches the accuracy of 99\.50%"):
        quantize(tiny_dense, tiny_images, evaluate=lambda model: 1.0 if type(model) is type(tiny_dense) else 0.0)


def test_a_model_without_an_int8_kernel_is_an_error(monkeypatch, tiny_dense, tiny_images):
    """A quantized model that runs in float is a failure, not a result."""
    monkeypatch.setattr(static, "count_int8_kernels", lambda *_: 0)
    with pytest.raises(ModelError, match=r"a layer that runs as an int8 kernel"):
        quantize(tiny_dense, tiny_images)


def test_a_model_without_layers_is_an_error(tiny_images):
    """There is nothing to quantize in a model without weights."""
    with pytest.raises(ModelError, match=r"^a model must have a layer that runs as an int8 kernel"):
        quantize(nn.Sequential(nn.ReLU(), nn.Flatten()), tiny_images)


@pytest.mark.parametrize("drop", [-0.1, 1.5, True, float("nan")])
def test_a_drop_that_is_no_share_is_refused(drop):
    """The rule and the value."""
    with pytest.raises(ConfigError, match=r"^max_accuracy_drop must be in \[0, 1\].*got "):
        QuantizeConfig(max_accuracy_drop=drop)


def test_an_unknown_observer_is_refused():
    """With those that there are."""
    with pytest.raises(ConfigError, match=r"^observer must be one of histogram, minmax, got 'entropy'$"):
        QuantizeConfig(observer="entropy")


def test_a_model_without_a_layer_that_int8_knows_is_told_so():
    """And not that its accuracy, which nobody measured, is too low."""
    volumes = torch.randn(2, 1, 5, 5, 5, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ModelError, match=r"this one has none; there is no int8 kernel for conv3d"):
        quantize(nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU(), nn.Conv3d(4, 2, 1)), volumes)


def test_cuda_is_refused_with_what_works_there(tiny_dense, tiny_images):
    """One sentence that names half precision, torchao's linear layers and ONNX Runtime's providers."""
    with pytest.raises(ConfigError, match=r"^PyTorch has no int8 convolution on CUDA: use the step 'half'") as caught:
        quantize(tiny_dense, tiny_images, device="cuda")
    for word in ("bfloat16", "CUDA graphs", "torchao", "TensorRT", "got device 'cuda'"):
        assert word in str(caught.value)


def test_a_model_that_cannot_be_exported_names_its_line(tiny_images):
    """Control flow on values: the file and the line."""

    class Branching(nn.Module):
        def forward(self, x):
            if x.sum() > 0:  # the line
                return x
            return -x

    with pytest.raises(ModelError, match=r"^Branching cannot be exported: .*test_static\.py, line \d+: if x\.sum"):
        quantize(Branching(), tiny_images)


def test_an_already_quantized_model_is_refused(tiny_int8, tiny_images):
    """With the module named."""
    with pytest.raises(ModelError, match=r"must not be quantized or exported already, QuantizedModel is$"):
        quantize(tiny_int8.model, tiny_images)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_another_type_than_float32_is_refused(tiny_images, dtype):
    """With the tensor and its type named."""
    with pytest.raises(ModelError, match=r"^the model must be in float32 .*'features.0.weight' is (float64|bfloat16)$"):
        quantize(tiny_net().to(dtype), tiny_images)


def test_a_cpu_without_vnni_gets_seven_bits(monkeypatch, tiny_dense, tiny_images):
    """Every activation stays within 127; no warning turns a strict test session red for its CPU."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    found = search.prepare(tiny_dense, tiny_dense, [inputs_of(tiny_images)], "minmax", progress=False)
    assert found.reduce_range
    quantized = search.built(found, 0)
    bounds = [node.args[4] for node in quantized.graph.graph.nodes if "quantize_per_tensor" in str(node.target)]
    assert set(bounds) == {127}


def test_torchao_missing_is_said_with_the_extra_to_install(monkeypatch, tiny_dense, tiny_images):
    """Before any work."""
    monkeypatch.setitem(__import__("sys").modules, "torchao.quantization.pt2e.quantizer.x86_inductor_quantizer", None)
    with pytest.raises(ConfigError, match=r"pip install 'pytest-compress\[quantization\]'"):
        quantize_by(QuantizeConfig(), tiny_dense, [inputs_of(tiny_images)])


def test_ranges_come_from_the_observer_that_was_asked_for(monkeypatch, tiny_dense, tiny_images):
    """One far outlier widens the range of minmax in full, and that of the histogram less."""
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    inputs = tiny_images.clone()
    inputs[0, 0, 0, 0] = 100.0
    scales = {}
    for observer in ("histogram", "minmax"):
        found = search.prepare(tiny_dense, tiny_dense, [inputs_of(inputs)], observer, progress=False)
        graph = search.built(found, 0).graph.graph
        scales[observer] = next(node.args[1] for node in graph.nodes if "quantize_per_tensor" in str(node.target))
    assert scales["minmax"] == pytest.approx((100.0 - float(inputs.min())) / (127 if found.reduce_range else 255))
    assert scales["histogram"] < scales["minmax"]


def test_a_grey_network_with_a_factor_of_one_channel_runs_in_int8():
    """Convolutions that see one channel, whose outputs Inductor lays out otherwise for batches of any size."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 7, 3), nn.ReLU(), nn.Conv2d(7, 1, 3), nn.Conv2d(1, 5, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
    ).eval()  # fmt: skip
    images = torch.randn(8, 1, 8, 8)
    quantized, report = quantize(model, images, max_accuracy_drop=1.0)
    assert report.float_layers == ()
    assert report.int8_kernels == num_int8(quantized) == 4
    # As after a ninth size of batch with torch's own limit of eight: it would run the graph uncompiled from then on.
    with torch._dynamo.config.patch(recompile_limit=1), torch.no_grad():
        for count in (3, 8):
            assert snr_db(model(images[:count]), quantized(images[:count])) > 20
            assert count_int8_kernels(quantized, images[:count]) == 4


def test_what_the_compiler_cannot_run_is_said_in_a_sentence(monkeypatch):
    """A failure inside Inductor reaches the user as an error of this package, its first line alone."""

    def fail(*_):
        raise AssertionError("expected size 7==7, stride 1==256 at dim=1\nError in op: qconv")

    monkeypatch.setattr(static, "count_int8_kernels", fail)
    with pytest.raises(
        ModelError, match=r"^the int8 model does not run as Inductor compiles it: expected .* at dim=1$"
    ):
        static._kernels(None, torch.zeros(1))


def test_padded_convolutions_over_time_run_in_int8():
    """What comes out is as long as in float, also where it meets what knows that length, as positions of a sequence."""

    def forward(net: Net, x: torch.Tensor) -> torch.Tensor:
        y = torch.nn.functional.gelu(net.b(torch.nn.functional.gelu(net.a(x)))).transpose(1, 2)
        return net.h(y + net.p.weight)

    torch.manual_seed(0)
    layers = {"a": nn.Conv1d(8, 16, 3, padding=1), "b": nn.Conv1d(16, 16, 3, stride=2, padding=1)}
    model = Net(forward, **layers, p=nn.Embedding(15, 16), h=nn.Linear(16, 5)).eval()
    sound = torch.randn(4, 8, 30)
    quantized, report = quantize(model, sound, max_accuracy_drop=1.0)
    assert (report.int8_kernels, report.float_layers) == (3, ())
    with torch.no_grad():
        assert snr_db(model(sound[:3]), quantized(sound[:3])) > 25
