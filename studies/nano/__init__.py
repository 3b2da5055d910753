"""The recipe of the nano policy, which ships with the package. `python -m studies.nano`."""
