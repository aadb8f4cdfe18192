"""Which slices of which tensors must go together: a model's own forward pass, run on channel labels."""
