"""What a compressed model may cost: each test holds one metric to its limit and, if there is one, to its baseline."""


def test_num_params(gate, num_params, compressed, dense):
    """It has no more parameters."""
    gate(num_params, compressed, dense)


def test_macs(gate, macs, compressed, dense):
    """One image takes no more multiply-accumulates."""
    gate(macs, compressed, dense)


def test_file_bytes(gate, file_bytes, compressed, dense):
    """Its file is no larger."""
    gate(file_bytes, compressed, dense)


def test_top1_error(gate, top1_error, compressed, dense):
    """It is wrong no more often."""
    gate(top1_error, compressed, dense)


def test_peak_tensor_bytes(gate, peak_tensor_bytes, compressed, dense):
    """Its tensors that live at once take no more bytes."""
    gate(peak_tensor_bytes, compressed, dense)


def test_cpu_latency(gate, cpu_latency, compressed, dense):
    """One image on the CPU takes no longer."""
    gate(cpu_latency, compressed, dense)
