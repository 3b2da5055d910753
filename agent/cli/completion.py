"""Shell completion of option values, active after `interlace --install-completion`."""

from collections.abc import Iterator
from pathlib import Path

__all__ = ["formats", "models", "tools"]


def models(incomplete: str) -> Iterator[str]:
    """Names, and folders."""
    from ...rollout.models.files import KNOWN

    yield from (name for name in KNOWN if name.startswith(incomplete))
    yield from _paths(incomplete, folders=True)


def formats(incomplete: str) -> Iterator[str]:
    """The formats."""
    from ...rollout.formats import FORMATS
    from ...tools.importing import names

    yield from (name for name in names("format", FORMATS) if name.startswith(incomplete))


def tools(incomplete: str) -> Iterator[str]:
    """Kinds of tools, and after `sql:` and `search:` what they may work on."""
    kind, colon, path = incomplete.partition(":")
    if colon and kind in ("sql", "search"):
        yield from (f"{kind}:{found}" for found in _paths(path, folders=False))
        return
    kinds = ("python", "python:jupyter", "sql:", "search:", "none")
    yield from (name for name in kinds if name.startswith(incomplete))


def _paths(start: str, *, folders: bool) -> Iterator[str]:
    head, slash, tail = start.rpartition("/")
    try:
        for path in sorted(Path(head + slash or ".").iterdir()):
            if path.name.startswith(tail) and (path.is_dir() or not folders):
                yield f"{head}{slash}{path.name}" + ("/" if path.is_dir() else "")
    except OSError:
        return
