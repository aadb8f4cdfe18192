"""Networks as trees of modules: their attributes, copies, masks, weights of layers replaced, and their fingerprint."""
