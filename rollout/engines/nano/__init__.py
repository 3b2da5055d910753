"""The nano policy: a tiny model that ships with the package. See `README.md` in this folder."""

from pathlib import Path

__all__ = ["FORMATS", "path"]

FORMATS = ("retool", "reex_sql", "search_r1", "hermes")
"""What it was trained in: no other format means anything to it."""


def path() -> Path:
    """The folder of the checkpoint, an ordinary Hugging Face one."""
    return Path(__file__).resolve().parent
