"""Errors that are nobody's bug: each message is one sentence that says what to do.

InterlaceError
├── UsageError        what was asked for makes no sense          (exit code 2)
│   └── MissingExtra  a part that is not installed is needed     (exit code 2)
├── ModelError        no such model, broken files, no memory     (exit code 6)
├── ToolUnavailable   a tool can't start here                    (exit code 7)
└── DataError         a file is missing, unreadable or corrupt   (exit code 9)

Anything else that is raised is our bug: it is not caught, and exits with 1.
"""

__all__ = [
    "DataError",
    "InterlaceError",
    "MissingExtra",
    "ModelError",
    "ToolUnavailable",
    "UsageError",
]


class InterlaceError(Exception):
    """The root; the command line prints the message and exits with `exit_code`."""

    exit_code = 1


class UsageError(InterlaceError):
    """The request is invalid."""

    exit_code = 2


class MissingExtra(UsageError):
    """An optional part is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional part: pip install 'interlace[{extra}]'")


class ModelError(InterlaceError):
    """A model is not there, broken, of the wrong kind, or too large for this machine."""

    exit_code = 6


class ToolUnavailable(InterlaceError):
    """A tool can't start on this machine."""

    exit_code = 7


class DataError(InterlaceError):
    """A file of ours is missing, unreadable or corrupt."""

    exit_code = 9
