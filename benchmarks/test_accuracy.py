"""How often the compressed model is wrong."""


def test_top1_error(gate, top1_error, compressed, dense):
    """The most likely class is wrong no more often than its limit and its baseline allow."""
    gate(top1_error, compressed, dense)


def test_top5_error(gate, top5_error, compressed, dense):
    """The five most likely classes are all wrong no more often than its limit and its baseline allow."""
    gate(top5_error, compressed, dense)
