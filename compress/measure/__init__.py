"""Models to numbers: each function takes the compressed and the dense model and returns a ``Measurement``."""
