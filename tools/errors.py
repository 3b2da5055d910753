"""Errors that are nobody's bug: each message is one sentence that says what to do.

InterlaceError
├── UsageError        what was asked for makes no sense          (exit code 2)
│   └── MissingExtra  a part that is not installed is needed     (exit code 2)
├── ModelError        no such model, broken files, no memory     (exit code 6)
├── ToolUnavailable   a tool can't start here                    (exit code 7)
└── DataError         a file is missing, unreadable or corrupt   (exit code 9)

Anything else that is raised is our bug: it is not caught, and exits with 1.
"""

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = [
    "DataError",
    "InterlaceError",
    "MissingExtra",
    "ModelError",
    "ToolUnavailable",
    "UsageError",
    "install_line",
]


def install_line(extra: str) -> str:
    """The command that adds an extra where interlace was installed from: its clone, if that is on
    this machine. No package registry has the name.
    """
    try:
        origin = json.loads(distribution("interlace").read_text("direct_url.json") or "{}")
        folder = Path(unquote(urlsplit(origin["url"]).path))
    except (PackageNotFoundError, LookupError, TypeError, ValueError):
        folder, origin = Path(), {}
    if not (folder.is_absolute() and (folder / "pyproject.toml").is_file()):
        return f"in a clone of interlace, pip install '.[{extra}]'"
    editable = "-e " if origin.get("dir_info", {}).get("editable") else ""
    return f"pip install {editable}'{folder}[{extra}]'"


class InterlaceError(Exception):
    """The root; the command line prints the message and exits with `exit_code`."""

    exit_code = 1


class UsageError(InterlaceError):
    """The request is invalid."""

    exit_code = 2


class MissingExtra(UsageError):
    """An optional part is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional part: {install_line(extra)}")


class ModelError(InterlaceError):
    """A model is not there, broken, of the wrong kind, or too large for this machine."""

    exit_code = 6


class ToolUnavailable(InterlaceError):
    """A tool can't start on this machine."""

    exit_code = 7


class DataError(InterlaceError):
    """A file of ours is missing, unreadable or corrupt."""

    exit_code = 9
