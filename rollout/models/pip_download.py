"""Fetches one file of one package over pip's own connection, going on where a try was cut off.

    python -P pip_download.py PACKAGE==VERSION FILE TARGET

pip has no command for this: it begins a cut-off download anew. The little that is used of it here
is not its public interface, so a pip that is built otherwise is told apart (`STRANGE_PIP`), and who
called goes back to `pip download`. A program of its own, since pip changes the process it is loaded
into. The index, its credentials, proxies and certificates are those that pip is configured with.
"""

import contextlib
import fcntl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

__all__ = ["BROKEN_OFF", "STRANGE_PIP"]

BROKEN_OFF = 3
"""The exit code of a fetch that can be taken up again: what came is kept."""
STRANGE_PIP = 4
"""The exit code where pip is not built as it is expected here."""

_CHUNK = 1 << 18
# The times in a row that a connection may give nothing before the fetch breaks off.
_TRIES = 3


class _BrokenOff(Exception):
    """The connection; the message says what is wrong with it."""


def main(package: str, name: str, target: Path) -> int:
    """Complete `target`; returns the exit code."""
    try:
        with _pip(package, name) as (session, url), target.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # who was left behind by a kill may still write
            _complete(session, url, file)
    except _BrokenOff as error:
        print(f"interlace: {error}", file=sys.stderr)
        return BROKEN_OFF
    except KeyboardInterrupt:
        return 130
    except (ImportError, AttributeError, TypeError, LookupError):
        return STRANGE_PIP
    return 0


@contextlib.contextmanager
def _pip(package: str, name: str) -> "Iterator[tuple[Any, str]]":
    """Pip's session, and the address of the file. Raises LookupError where the index has none."""
    from pip._internal.commands import create_command

    command: Any = create_command("download")
    options, _ = command.parse_args(["--no-deps", "--no-cache-dir", package])
    with command.main_context():
        session = command.get_default_session(options)
        finder = command._build_package_finder(options, session)
        for candidate in finder.find_all_candidates(package.partition("==")[0]):
            if candidate.link.filename == name:
                yield session, candidate.link.url_without_fragment
                return
    raise LookupError(name)


def _complete(session: Any, url: str, file: IO[bytes]) -> None:
    failed = 0
    while True:
        before = file.tell()
        try:
            if _more(session, url, file):
                return
            error = "the connection was closed too early"
        except OSError as broken:  # what requests raises is one, too
            error = str(broken)
        failed = failed + 1 if file.tell() == before else 0
        if failed >= _TRIES:
            raise _BrokenOff(f"the download broke off after {file.tell() >> 20} MB ({error})")


def _more(session: Any, url: str, file: IO[bytes]) -> bool:
    """Ask for what is missing and write what comes; whether that was all of it."""
    file.seek(0, 2)
    headers = {"Accept-Encoding": "identity", "Range": f"bytes={file.tell()}-"}
    with session.get(url, headers=headers, stream=True) as response:
        if response.status_code == 416:  # there is no more
            return True
        response.raise_for_status()
        if response.status_code != 206:  # a server that gives all or nothing
            file.truncate(0)
        start = file.tell() if response.status_code == 206 else 0
        length = int(response.headers.get("Content-Length", 0))
        whole = start + length
        try:
            for part in _shown(response.raw, start, whole):
                file.write(part)
        except Exception as error:  # urllib3's own errors are none of requests'
            raise OSError(str(error)) from error
        finally:
            file.flush()
        return not length or file.tell() >= whole


def _shown(raw: Any, start: int, whole: int) -> Iterator[bytes]:
    """Yield what arrives, with a progress bar on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", completed=start, total=whole or None)
        for part in raw.stream(_CHUNK, decode_content=False):
            yield part
            progress.advance(bar, len(part))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
