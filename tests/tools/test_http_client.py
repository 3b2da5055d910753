"""Servers that are slow, endless or packed: each request ends, in bounded time and memory."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
import zstandard

from interlace.rollout.engines import HttpEngine, Request
from interlace.rollout.engines.base import EngineError
from interlace.rollout.formats import ChatContext, Message
from interlace.tools.errors import ToolUnavailable
from interlace.tools.search.http import HttpRetriever

OK = b"HTTP/1.1 200 OK\r\n"
JSON = OK + b"Content-Type: application/json\r\n"
EVENTS = OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
BLANKS = b" " * 80_000_000


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def packed(encoding: str, data: bytes) -> bytes:
    return JSON + b"Content-Encoding: %s\r\nContent-Length: %d\r\n\r\n%s" % (
        encoding.encode(),
        len(data),
        data,
    )


# A beginning, and what follows for ever; nothing follows an empty text.
SERVERS: dict[str, tuple[bytes, bytes]] = {
    "headers a byte at a time": (b"", b"H"),
    "headers without end": (OK, b"X-More: yes\r\n"),
    "a header without end": (OK + b"X-More: ", b"y" * 4096),
    "interim answers without end": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "a body a byte at a time": (JSON + b"Content-Length: 1000000\r\n\r\n[", b" "),
    "a body without end": (JSON + b"Transfer-Encoding: chunked\r\n\r\n", chunk(b" " * 65_536)),
    "a body without length": (JSON + b"\r\n", b" " * 65_536),
    "a redirect to a private address": (
        b"HTTP/1.1 307 Elsewhere\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n",
        b"",
    ),
    "a refusal without end": (
        b"HTTP/1.1 400 No\r\nTransfer-Encoding: chunked\r\n\r\n",
        chunk(b"no " * 20_000),
    ),
    "gzip": (packed("gzip", gzip.compress(BLANKS, 1)), b""),
    "gzip in gzip": (packed("gzip, gzip", gzip.compress(gzip.compress(BLANKS, 1))), b""),
    "deflate": (packed("deflate", zlib.compress(BLANKS, 1)), b""),
    "zstd": (packed("zstd", zstandard.compress(BLANKS)), b""),
    "a packing nobody knows": (packed("rot13", b"[]"), b""),
}
STREAMS: dict[str, tuple[bytes, bytes]] = SERVERS | {
    "events a byte at a time": (EVENTS, chunk(b"d")),
    "comments without end": (EVENTS, chunk(b": still here\n\n")),
    "a line without end": (EVENTS, chunk(b"x" * 65_536)),
}


@asynccontextmanager
async def server(beginning: bytes, forever: bytes) -> AsyncIterator[str]:
    """The address of a server that answers every request so."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if length := [x for x in head.lower().split(b"\r\n") if b"content-length" in x]:
                    await reader.readexactly(int(length[0].split(b":")[1]))
                if b"/models" in head:
                    models = b'{"data": [{"id": "big"}]}'
                    writer.write(JSON + b"Content-Length: %d\r\n\r\n" % len(models) + models)
                    continue
                writer.write(beginning)
                while forever:
                    writer.write(forever)
                    await writer.drain()
                    await asyncio.sleep(0.002 if len(forever) < 100 else 0)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()


async def search(url: str) -> None:
    retriever = HttpRetriever(url, allow_private=True, patience=0.5, tries=1)
    await retriever.search("tea", 3)


async def ask(url: str) -> None:
    engine = await HttpEngine.connect(url, patience=0.5, tries=1)
    context = ChatContext((Message("user", "Hi"),))
    request = Request(np.array([1], np.int32), 10, conversation=lambda: context)
    try:
        async for _ in engine.generate(request):
            pass
    finally:
        await engine.aclose()


@pytest.mark.parametrize("what", SERVERS)
def test_a_search_server_that_never_ends_is_given_up(what: str) -> None:
    async def go() -> None:
        async with server(*SERVERS[what]) as url, asyncio.timeout(60):
            with pytest.raises(ToolUnavailable, match="the search server") as caught:
                await search(url)
            assert "\n" not in str(caught.value) and len(str(caught.value)) < 200

    asyncio.run(go())


@pytest.mark.parametrize("what", STREAMS)
def test_a_chat_server_that_never_ends_is_given_up(what: str) -> None:
    async def go() -> None:
        async with server(*STREAMS[what]) as url, asyncio.timeout(60):
            with pytest.raises(EngineError) as caught:
                await ask(url)
            assert "\n" not in str(caught.value) and len(str(caught.value)) < 500

    asyncio.run(go())


def test_an_answer_that_is_whole_needs_no_end_of_its_connection() -> None:
    async def go() -> None:
        async with server(EVENTS + chunk(b"data: [DONE]\n\n"), chunk(b":\n")) as url:
            async with asyncio.timeout(60):
                await ask(url)

    asyncio.run(go())
