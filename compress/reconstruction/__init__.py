"""Layers fitted again: from the inputs that a smaller network has, to the outputs that the dense one puts out.

The smaller network runs beside the dense one on the same data, both stopped at every product with a weight. There the
weights are solved for, before the rest of the network runs on what they put out now. This room knows nothing of how the
network became smaller: a technique says which parts of the dense tensors it kept.

Source: He, Zhang and Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017; Luo, Wu and Lin,
"ThiNet", ICCV 2017: both fit a layer's weights by least squares to the outputs of the uncut network.
"""
