"""How good the compressed model is at its task, and what else its workload declares."""


def test_quality(gate, quality, compressed, dense):
    """Each quality of the workload is no worse than its limit and its baseline allow."""
    gate(quality, compressed, dense)


def test_own_metric(gate, own_metric, compressed, dense):
    """Each further metric of the workload is no worse than its limit and its baseline allow."""
    gate(own_metric, compressed, dense)
