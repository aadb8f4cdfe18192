"""The gate's times and memory on another machine, which needs a runtime and numpy and no PyTorch."""
