"""How large the compressed model is."""


def test_num_params(gate, num_params, compressed, dense):
    """The compressed model has no more parameters than its limit and its baseline allow."""
    gate(num_params, compressed, dense)


def test_num_nonzero_params(gate, num_nonzero_params, compressed, dense):
    """No more of its parameters differ from zero than its limit and its baseline allow."""
    gate(num_nonzero_params, compressed, dense)


def test_macs(gate, macs, compressed, dense):
    """One image takes no more multiply-accumulates than its limit and its baseline allow."""
    gate(macs, compressed, dense)


def test_file_bytes(gate, file_bytes, compressed, dense):
    """Its file is no larger than its limit and its baseline allow."""
    gate(file_bytes, compressed, dense)


def test_compressed_file_bytes(gate, compressed_file_bytes, compressed, dense):
    """Its file packs no worse than its limit and its baseline allow."""
    gate(compressed_file_bytes, compressed, dense)
