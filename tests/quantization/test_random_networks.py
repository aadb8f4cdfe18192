"""Whatever the network, what its report says is true of the int8 model that is handed out."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings

from compress.errors import ModelError
from compress.fidelity import snr_db
from compress.quantization.static import quantize
from tests.strategies import networks


def check_report(net, x):
    """Quantize, and hold the report against the network that was given, at the calibration's batch and at another."""
    net, images = net.float(), torch.randn(8, *x.shape[1:])
    try:
        int8, report = quantize(net, [images], max_accuracy_drop=1.0)
    except ModelError as refusal:
        if "must have a layer that runs as an int8 kernel" in str(refusal):
            return
        raise
    with torch.no_grad():
        exact = net(images)
        assert report.output_snr_db == pytest.approx(snr_db(exact, int8(images)), abs=3)
        assert report.output_snr_db == pytest.approx(snr_db(exact[:3], int8(images[:3])), abs=6)
    assert report.int8_kernels > 0
    assert len(report.layers) > len(report.float_layers)


@pytest.mark.nightly
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(case=networks())
def test_the_report_agrees_with_the_true_noise(case):
    """Within 3 dB of what the int8 model's outputs differ by from those of the network that was given."""
    check_report(*case)
