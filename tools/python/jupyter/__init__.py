"""Jupyter kernels: real ipykernels behind walls, driven through jupyter-client."""
