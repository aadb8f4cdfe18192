from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.calling.fidelity import snr_db
from compress.calling.inputs import Inputs, inputs_of
from compress.quantization import ladder, search, static
from compress.quantization.ladder import climb
from compress.quantization.report import QuantizationReport, RungReport
from compress.quantization.search import Found
from compress.quantization.static import quantize
from tests.nets import conv_bn, head, lively

TEST = inputs_of(torch.randn(128, 3, 12, 12, generator=torch.Generator().manual_seed(9)))


def depthwise(channels: int) -> nn.Sequential:
    """Each channel for itself."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
    )


def net() -> nn.Sequential:
    """Depthwise convolutions, whose channels differ in range as those of trained mobile networks do."""
    torch.manual_seed(1)
    model = nn.Sequential(
        conv_bn(3, 16), depthwise(16), conv_bn(16, 24, 1), depthwise(24), conv_bn(24, 16, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), head(16),
    )  # fmt: skip
    lively(model, seed=1).float()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.mul_(torch.randn(module.weight.shape, generator=generator).mul(1.5).exp())
    return model.eval()


def calibration() -> list[Inputs]:
    """Two batches."""
    generator = torch.Generator().manual_seed(3)
    return [inputs_of(torch.randn(64, 3, 12, 12, generator=generator)) for _ in range(2)]


@pytest.fixture(autouse=True)
def _eight_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor with the instructions for them: with fewer, all is louder."""
    monkeypatch.setattr(search, "has_vnni", lambda: True)


@pytest.fixture
def found() -> Found:
    """The net, calibrated."""
    model = net()
    return search.prepare(model, model, calibration(), "histogram", progress=False)


def loudness(one: Found) -> float:
    """Signal-to-noise ratio of the simulated outputs in dB, on inputs that nothing was chosen by."""
    with torch.no_grad():
        return snr_db(net()(*TEST.args), TEST.call(one.simulation))


def test_every_rung_brings_its_own(found):
    """On inputs of their own, biases and equal ranges take dB off the error each, and rounding does no harm."""
    seen = [loudness(found)]
    for _, steps in ladder.RUNGS:
        for step in steps:
            found = search.retuned(found, step(found))
        seen.append(loudness(found))
    plain, ranges, biases, equalized, rounded = seen
    assert ranges > plain - 0.5
    assert biases > ranges + 2
    assert equalized > biases + 0.5
    assert rounded > equalized - 1


def test_the_compiled_model_is_the_one_that_was_simulated(found):
    """With all changes, and with layers in float."""
    for _, steps in ladder.RUNGS:
        for step in steps:
            found = search.retuned(found, step(found))
    with torch.no_grad():
        exact = net()(*TEST.args)
    assert snr_db(exact, TEST.call(search.built(found, 0))) == pytest.approx(loudness(found), abs=1)
    assert snr_db(exact, TEST.call(search.built(found, 3))) > loudness(found) - 1


def by_loudness(one: nn.Module) -> float:
    """An accuracy: dB in hundredths, up to 1 for the float model."""
    with torch.no_grad():
        return min(snr_db(net()(*TEST.args), TEST.call(one)) / 100, 1.0)


def test_only_as_many_rungs_are_tried_as_it_takes(found):
    """None where plain int8 is good enough; the first that suffices ends it; each says what it brought."""
    plain = by_loudness(found.simulation)
    same, _, none = climb(found, by_loudness, plain, progress=False)
    assert same is found
    assert none == ()
    better, reached, some = climb(found, by_loudness, plain + 0.02, progress=False)
    assert [rung.name for rung in some] == ["ranges of weights by squared error", "biases corrected"]
    assert some[-1].is_kept
    assert some[-1].accuracy_after == reached == by_loudness(better.simulation) >= plain + 0.02
    assert some[0].accuracy_before == plain
    _, _, every = climb(found, by_loudness, 1.0, progress=False)
    assert [rung.name for rung in every] == [name for name, _ in ladder.RUNGS]


def test_a_rung_that_loses_accuracy_is_not_kept(found, monkeypatch):
    """The model stays what it was before it."""
    last = [layer for layer in found.simulation.layers if layer.name.startswith("0.")]
    harm = lambda one: ladder.Tuning(biases={last[0].node: torch.full((16,), 1e3)})  # noqa: E731, ARG005
    monkeypatch.setattr(ladder, "RUNGS", (("harm", (harm,)),))
    same, _, (rung,) = climb(found, by_loudness, 1.0, progress=False)
    assert same is found
    assert not rung.is_kept
    assert rung.accuracy_after < rung.accuracy_before
    assert str(rung).endswith(", not kept")


def test_layers_stay_in_float_only_where_no_rung_holds_the_contract(monkeypatch):
    """What plain int8 needs layers in float for, int8 with corrected biases and equal channels does in int8."""
    monkeypatch.setattr(static, "count_int8_kernels", lambda *_: 99)
    monkeypatch.setattr(static.QuantizedModel, "forward", lambda self, inputs: self.graph(inputs))
    data = torch.cat([batch.args[0] for batch in calibration()])
    wanted = 1 - 0.31
    with monkeypatch.context() as patch:
        patch.setattr(ladder, "RUNGS", ())
        plain = quantize(net(), data, evaluate=by_loudness, max_accuracy_drop=wanted).report
    climbed = quantize(net(), data, evaluate=by_loudness, max_accuracy_drop=wanted).report
    assert len(plain.float_layers) > 0
    assert climbed.float_layers == ()
    assert climbed.accuracy_int8 >= 0.31
    assert any("tried biases corrected: " in line for line in str(climbed).splitlines())
    assert QuantizationReport.from_json(climbed.to_json()) == climbed


@pytest.mark.parametrize("drop", [0.9, 0.69])
def test_no_model_is_judged_twice(monkeypatch, drop):
    """The float model once, the simulation once plain and once a rung, the compiled model once."""
    monkeypatch.setattr(static, "count_int8_kernels", lambda *_: 99)
    monkeypatch.setattr(static.QuantizedModel, "forward", lambda self, inputs: self.graph(inputs))
    judged = []

    def accuracy(one: nn.Module) -> float:
        judged.append(type(one).__name__)
        return by_loudness(one)

    data = torch.cat([batch.args[0] for batch in calibration()])
    report = quantize(net(), data, evaluate=accuracy, max_accuracy_drop=drop).report
    assert report.float_layers == ()
    assert bool(report.rungs) is (drop < 0.9)
    assert judged == ["Sequential", *["Simulation"] * (1 + len(report.rungs)), "QuantizedModel"]


def test_reports_from_before_there_were_rungs_can_be_read():
    """They tried none."""
    content = QuantizationReport(
        layers=(), int8_kernels=1, accuracy_float=1.0, accuracy_int8=1.0, accuracy_measure="accuracy",
        output_snr_db=30.0, reduce_range=False,
        rungs=(RungReport(name="a", accuracy_before=0.1, accuracy_after=0.2, is_kept=True),),
    ).to_json()  # fmt: skip
    del content["rungs"]
    assert QuantizationReport.from_json(content).rungs == ()
