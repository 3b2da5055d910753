"""The root of the package `interlace`; its contents are in `src/interlace/__init__.py`."""
