"""How long a forward pass of the compressed model takes, as a ratio to the dense one called in turn."""


def test_cpu_latency(gate, cpu_latency, compressed, dense):
    """One image on the CPU takes no longer than its limit and its baseline allow."""
    gate(cpu_latency, compressed, dense)


def test_cuda_latency(gate, cuda_latency, compressed, dense):
    """One image on the CUDA device takes no longer than its limit and its baseline allow."""
    gate(cuda_latency, compressed, dense)


def test_cpu_time(gate, cpu_time, compressed, dense):
    """The profiler counts no more CPU time than its limit and its baseline allow."""
    gate(cpu_time, compressed, dense)


def test_cuda_time(gate, cuda_time, compressed, dense):
    """The profiler counts no more time in CUDA kernels than its limit and its baseline allow."""
    gate(cuda_time, compressed, dense)


def test_cuda_device_time(gate, cuda_device_time, compressed, dense):
    """The device takes no longer between two events than its limit and its baseline allow."""
    gate(cuda_device_time, compressed, dense)


def test_cuda_graph_time(gate, cuda_graph_time, compressed, dense):
    """The replay of a captured graph takes no longer than its limit and its baseline allow."""
    gate(cuda_graph_time, compressed, dense)
