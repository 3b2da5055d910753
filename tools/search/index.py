"""An index of passages on disk (tantivy: BM25), kept in step with the files it was made from.

The folder of an index holds a lock, a small file that names the current generation, and that
generation's files. A generation is built under another name and named when it is whole; changed
files are put into it in one commit, together with the list of files it was made from. So a process
that is killed while building leaves the old index or none, never half of one.
"""

import asyncio
import atexit
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError, InterlaceError, ToolUnavailable, UsageError
from ..files import cache_dir, is_full, read_object, write_whole
from ..forks import renew_in_child
from .base import Hit
from .documents import ENDINGS, read_passages
from .engine import (
    LIST,
    Stamp,
    create,
    document,
    find,
    left_out,
    library,
    load,
    raise_unless_damage,
)
from .sources import Remarks, find_files

if TYPE_CHECKING:
    import tantivy

__all__ = ["SearchIndex"]

_log = logging.getLogger(__name__)

_FORMAT = 2
"""Raised when the layout, the analysis of words or the cutting of passages changes."""
_LOCK = "interlace-search.lock"
_CURRENT = "interlace-search.json"
_WRITER_BYTES = 64_000_000
_SETTLED_SECONDS = 2.0
"""A file that changed this shortly before it was read may change again within one clock tick."""


class SearchIndex:
    """The passages of a file or folder, found by their words; implements `Retriever`.

    Words are compared without case, accents and English endings (`words.py`). Every word of a
    query counts and none has to be there; operators and quotes mean nothing. Equal scores are
    ordered by id, and a passage that is in the corpus twice is found once. An id that several
    passages have is cited with the place of each.

    The index lies in `folder`, or in the user's cache. It is built or brought up to date, reading
    only the files that changed, when it is first used in this process.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     corpus = Path(folder, "tea.jsonl")
    ...     _ = corpus.write_text('{"id": "a", "title": "Tea", "text": "Steep it."}')
    ...     SearchIndex(corpus, Path(folder, "index")).find("STEEPING tea", top=1)[0].passage
    Passage(id='a', title='Tea', text='Steep it.')
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        folder: str | os.PathLike[str] | None = None,
        *,
        characters: int = 1_200,
        patience: float = 600.0,
    ) -> None:
        """`characters`: the most a passage cut from text or Markdown has.

        Another process that builds the same index is waited for up to `patience` seconds. Raises
        `MissingExtra`, `UsageError`, or `DataError` where there is nothing to search.
        """
        library()
        if characters < 100:
            raise UsageError("the passages of an index need 100 characters or more")
        self.source = Path(source).expanduser().resolve()
        if not self.source.exists():
            raise DataError(f"there is no file or folder {self.source} to search")
        if self.source.is_file():  # a link's own name tells what kind of file it is
            place = Path(source).expanduser()
            self.source = place.parent.resolve() / place.name
        if folder is not None:
            self.folder = Path(folder).expanduser()
        else:
            key = f"{self.source}\0{characters}".encode("utf-8", "surrogateescape")
            self.folder = cache_dir() / "search" / hashlib.sha256(key).hexdigest()[:32]
        self.patience = patience
        self._characters = characters
        self._searcher: tuple[tantivy.Searcher, tantivy.Schema] | None = None
        self._building: Future[None] | None = None
        self._one_at_a_time = threading.Lock()
        self._stop = threading.Event()
        renew_in_child(self)

    def after_fork(self) -> None:
        """Build again in a forked process what another thread was building."""
        self._one_at_a_time = threading.Lock()
        self._building = None

    def prepare(self, *, again: bool = False) -> int:
        """Build the index or bring it up to date, once, or `again`; how many passages it has.

        Raises `DataError` for files that can't be read or an index that can't be written,
        `UsageError` for a folder that holds something else, `ToolUnavailable` when another process
        builds for too long.
        """
        with self._one_at_a_time:
            if again or self._searcher is None:
                self._searcher = self._open()
            return max(self._searcher[0].num_docs - 1, 0)

    def find(self, query: str, top: int) -> list[Hit]:
        """The best `top` passages, best first. Raises as `prepare` does.

        An index that proves damaged is built again, once; the log says so.
        """
        if top < 1:
            raise UsageError(f"at least one passage must be asked for, not {top}")
        for mended in (False, True):
            if self._searcher is None:
                self.prepare()
            used = self._searcher
            assert used is not None
            try:
                return find(*used, query, top)
            except BaseException as error:
                raise_unless_damage(error)
                if mended:
                    raise ToolUnavailable(
                        f"the search index in {self.folder} does not work; delete that folder: "
                        f"{error}"
                    ) from error
            with self._one_at_a_time:
                if self._searcher is used:  # or another thread was here before
                    self._searcher = self._open()
        raise AssertionError("the second try returns or raises")

    def left_out(self, query: str) -> str:
        """A sentence on the words of a query that are not looked up, or ""."""
        return left_out(query)

    async def search(self, query: str, top: int) -> list[Hit]:
        """`find`, in a thread."""
        return await asyncio.to_thread(self.find, query, top)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Wait until the index is there. The work continues if the caller is cancelled."""
        if self._searcher is None:
            if self._building is None or self._building.done():
                self._building = self._build_aside()
            await asyncio.wrap_future(self._building)
        yield

    def _build_aside(self) -> "Future[None]":
        """Prepare in a thread that ends in good order when the program does."""
        done: Future[None] = Future()
        done.set_running_or_notify_cancel()  # from here on it can't be cancelled

        def build() -> None:
            try:
                self.prepare()
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)
            finally:
                atexit.unregister(stop)

        thread = threading.Thread(target=build, name="search index", daemon=True)

        def stop() -> None:
            self._stop.set()
            thread.join()

        atexit.register(stop)
        thread.start()
        return done

    def _open(self) -> "tuple[tantivy.Searcher, tantivy.Schema]":
        try:
            with self._alone():
                return self._update()
        except InterlaceError:
            raise
        except OSError as error:
            reason = f"{error.strerror or error}: {error.filename}" if error.filename else error
            raise DataError(f"can't build the index of {self.source}: {reason}") from error
        except BaseException as error:
            raise_unless_damage(error)
            raise DataError(f"can't build the index in {self.folder}: {error}") from error

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait until no other builder, of this process or another, works in the folder."""
        lock = self.folder / _LOCK
        # In this order: another builder makes the lock before anything else.
        used = self.folder.exists() and any(self.folder.iterdir())
        if used and not lock.exists():
            raise UsageError(f"{self.folder} holds other files; give the index a folder of its own")
        self.folder.mkdir(parents=True, exist_ok=True)
        until = time.monotonic() + self.patience
        # A pipe in its place would be waited for where it is only written.
        with os.fdopen(
            os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b", 0
        ) as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if self._stop.wait(0.05) or time.monotonic() > until:
                        raise ToolUnavailable(
                            f"another process has been building the index in {self.folder} for "
                            f"more than {self.patience:g} s"
                        ) from None
            yield

    def _update(self) -> "tuple[tantivy.Searcher, tantivy.Schema]":
        """The current generation with what changed, or a new one. Holds the lock."""
        files, others = find_files(self.source, ENDINGS)
        name = self._current()
        if name is not None:
            try:
                index, known = load(self.folder / name)
            except BaseException as error:
                raise_unless_damage(error)
                _log.warning(
                    "the search index in %s is damaged and built again: %s", self.folder, error
                )
                name = None  # what it was made from is still there
        before = self._current()
        try:
            if name is None:
                name, known = f"index-{uuid.uuid4().hex}", {}
                index = create(self.folder / name)
            self._sweep(keep={name, before or name})
            self._write(index, files, known, others)
            if before != name:
                current = {**self._settings(), "current": name}
                if not (self.folder / _CURRENT).is_file():
                    (self.folder / _CURRENT).unlink(missing_ok=True)  # a pipe would be waited for
                write_whole(self.folder / _CURRENT, json.dumps(current))
        except BaseException as error:
            full = is_full(self.folder)
            self._sweep(keep=set() if before is None else {before})  # not half an index
            if full and not isinstance(error, InterlaceError):
                raise_unless_damage(error)
                raise DataError(
                    f"can't build the index in {self.folder}: the disk there is full: make room, "
                    "or name another folder"
                ) from error
            raise
        self._sweep(keep={name})
        index.reload()
        return index.searcher(), index.schema

    def _write(
        self,
        index: "tantivy.Index",
        files: dict[str, Path],
        known: dict[str, Stamp],
        others: Remarks,
    ) -> None:
        """Commit all that changed at once, with the new list of files; nothing on failure.

        The log names the files that were left out or are odd.
        """
        tantivy = library()
        stamps = {name: _stamp(path, known.get(name)) for name, path in files.items()}
        gone = known.keys() - files.keys()
        changed = [name for name, stamp in stamps.items() if stamp is None]
        if not gone and not changed and stamps == known:
            return
        odd = Remarks()
        writer = index.writer(heap_size=_WRITER_BYTES, num_threads=1)
        try:
            for name in [*gone, *changed, LIST]:
                writer.delete_documents_by_term("file", name)
            for name in changed:
                stamps[name] = self._add(writer, name, files[name], odd)
            kept = {name: stamp for name, stamp in stamps.items() if stamp}
            writer.add_document(tantivy.Document(file=LIST, passage=json.dumps(kept).encode()))
            writer.commit()
        except BaseException:
            writer.rollback()
            raise
        finally:
            writer.wait_merging_threads()  # and gives tantivy's own lock back
        for said, remarks in (("not searched", others), ("searched", odd)):
            if remarks.files:
                _log.warning("%s, %s: %s", self.source, said, remarks)

    def _add(self, writer: "tantivy.IndexWriter", name: str, path: Path, odd: Remarks) -> Stamp:
        """Add a file's passages; its stamp, as of before they were read."""
        stamp = _stamped(path)
        for place, passage in read_passages(path, name, self._characters, odd):
            if self._stop.is_set():
                raise ToolUnavailable("the program ended before the search index was built")
            writer.add_document(document(name, place, passage))
        return stamp

    def _settings(self) -> dict[str, object]:
        """Settings an index must match for reuse."""
        return {
            "format": _FORMAT,
            "tantivy": library().__version__,
            "source": str(self.source),
            "characters": self._characters,
        }

    def _current(self) -> str | None:
        """The generation that is whole and was made as it would be made now."""
        try:
            written = read_object(self.folder / _CURRENT)
            name = str(written.pop("current"))
        except (DataError, KeyError):
            return None
        fits = written == self._settings() and re.fullmatch(r"index-[0-9a-f]+", name)
        return name if fits and (self.folder / name).is_dir() else None

    def _sweep(self, keep: set[str]) -> None:
        """Remove older generations, and what a killed builder left."""
        for path in self.folder.glob("index-*"):
            if path.name not in keep:
                shutil.rmtree(path, ignore_errors=True)


def _stamp(path: Path, known: Stamp | None) -> Stamp | None:
    """The stamp of a file whose content is the known one, else None."""
    if known is None:
        return None
    status = path.stat()
    if known[:3] == [status.st_size, status.st_mtime_ns, status.st_ctime_ns]:
        return known
    if known[0] != status.st_size:
        return None
    stamp = _stamped(path)
    return stamp if stamp[3] == known[3] else None


def _stamped(path: Path) -> Stamp:
    status = path.stat()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    settled = time.time() - status.st_ctime > _SETTLED_SECONDS
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns if settled else None, digest]
