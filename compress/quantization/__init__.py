"""Static int8: weights and activations as 8-bit integers, with scales found before the model runs.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018: the affine map (equation 1), per-channel weights, folded batch norms (section 3.2), training with simulated
quantization (section 3).
"""
