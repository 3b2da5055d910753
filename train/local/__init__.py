"""Training on one machine, in plain PyTorch."""
