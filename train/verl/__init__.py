"""Our loop, rewards and objectives inside verl, for training beyond one machine (docs/verl.md)."""
