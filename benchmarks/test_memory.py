"""How much memory a forward pass of the compressed model takes."""


def test_cpu_memory(gate, cpu_memory, compressed, dense):
    """Its peak on the CPU is no higher than its limit and its baseline allow."""
    gate(cpu_memory, compressed, dense)


def test_cuda_memory(gate, cuda_memory, compressed, dense):
    """Its peak on the CUDA device is no higher than its limit and its baseline allow."""
    gate(cuda_memory, compressed, dense)


def test_peak_tensor_bytes(gate, peak_tensor_bytes, compressed, dense):
    """Its tensors that live at once take no more bytes than its limit and its baseline allow."""
    gate(peak_tensor_bytes, compressed, dense)
