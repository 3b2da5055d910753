"""The nano policy: a tiny model that ships with the package. What it is: `README.md`, beside."""

from pathlib import Path

__all__ = ["path"]


def path() -> Path:
    """The folder of the checkpoint, an ordinary Hugging Face one."""
    return Path(__file__).resolve().parent
