"""One part of each kind for interlace, registered in `pyproject.toml`."""
