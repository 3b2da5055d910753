"""The client for search servers, against a real server on this machine that misbehaves."""

import asyncio
import gzip
import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from interlace.tools.errors import ToolUnavailable, UsageError
from interlace.tools.search import Hit, HttpRetriever, Passage

Respond = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Answers each request with the next of its responses, the last one from then on."""

    def __init__(self, *responses: Respond) -> None:
        self.responses = list(responses)
        self.requests: list[tuple[str, Any]] = []
        self.connections = 0
        self.open = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.lower().split("content-length: ")[1].split()[0])
                self.requests.append((head, json.loads(await reader.readexactly(length))))
                respond = self.responses[0]
                if len(self.responses) > 1:
                    self.responses.pop(0)
                await respond(writer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client left
        finally:
            self.open -= 1
            writer.close()

    @asynccontextmanager
    async def listening(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[None]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=tls)
        port = server.sockets[0].getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/retrieve"
        try:
            yield
        finally:
            server.close()
            until = asyncio.get_running_loop().time() + 5
            while self.open and asyncio.get_running_loop().time() < until:
                await asyncio.sleep(0.005)
            assert not self.open, "the client left a connection open"


def answer(body: object, status: str = "200 OK", headers: str = "") -> Respond:
    """A whole response; a body that is not bytes is sent as JSON."""

    async def respond(writer: asyncio.StreamWriter) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n{headers}\r\n"
        writer.write(head.encode() + data)

    return respond


async def reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    writer.transport.abort()


async def half(writer: asyncio.StreamWriter) -> None:
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"result"')
    writer.close()


async def no_http(writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    writer.close()


async def drip(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        await writer.drain()


def bomb() -> Respond:
    data = gzip.compress(b" " * 64_000_000, 1)
    return answer(data, headers="Content-Encoding: gzip\r\n")


TEA = {"id": "7", "contents": '"Tea"\nSteep it.'}
FOUND = [Hit(Passage("7", "Tea", "Steep it."), 0.5)]


def asked(server: Server, **settings: Any) -> list[Hit]:
    """What one search for tea gives, from a server on this machine."""

    async def main() -> list[Hit]:
        async with server.listening():
            settings.setdefault("pause", 0.001)
            return await HttpRetriever(server.url, allow_private=True, **settings).search("tea", 3)

    return asyncio.run(main())


def test_a_search_in_the_protocol_of_search_r1() -> None:
    server = Server(answer({"result": [[{"document": TEA, "score": 0.5}]]}))
    assert asked(server) == FOUND
    [(head, body)] = server.requests
    assert head.startswith("POST /retrieve HTTP/1.1\r\n")
    assert body == {"queries": ["tea"], "topk": 3, "return_scores": True}


@pytest.mark.parametrize(
    ("body", "hits"),
    [
        ({"result": [[TEA]]}, [Hit(Passage("7", "Tea", "Steep it."))]),
        ({"results": [[{"document": TEA, "score": 0.5}]]}, FOUND),
        ([[{"document": TEA, "score": 0.5}]], FOUND),
        ({"result": [[{"id": 7, "title": "Tea", "text": "Steep it.", "score": 0.5}]]}, FOUND),
        ({"result": [[{"document": "Steep it."}]]}, [Hit(Passage("", "", "Steep it."))]),
        ({"result": [["Steep it."]]}, [Hit(Passage("", "", "Steep it."))]),
        ({"result": [[{"document": TEA, "score": 0.5}] * 9]}, FOUND * 3),
        (b'{"result": [[{"contents": "x", "score": NaN}]]}', [Hit(Passage("", "", "x"))]),
        (b'{"result": [[{"contents": "x", "score": "1"}]]}', [Hit(Passage("", "", "x"))]),
        ({"result": [[]]}, []),
    ],
)
def test_answers_of_several_shapes_are_read(body: object, hits: list[Hit]) -> None:
    assert asked(Server(answer(body))) == hits


@pytest.mark.parametrize("body", [{"result": [TEA]}, {"result": [[TEA]]}])
def test_a_server_that_takes_one_query_may_answer_with_a_flat_list(body: object) -> None:
    server = Server(answer(body))
    assert asked(server, field="query") == [Hit(Passage("7", "Tea", "Steep it."))]
    assert server.requests[0][1]["query"] == "tea"
    assert asked(Server(answer({"result": []})), field="query") == []


@pytest.mark.parametrize(
    ("respond", "message"),
    [
        (answer(b"<html>"), "not JSON"),
        (answer(b"[" * 100_000), "not JSON"),
        (answer(b"\xff\xfe"), "not JSON"),
        (answer({"detail": "no"}), "no list of results"),
        (answer({"result": None}), "no list of results"),
        (answer({"result": []}), "0 queries where one"),
        (answer({"result": [[TEA], [TEA]]}), "2 queries where one"),
        (answer({"result": [TEA]}), "no list of documents"),
        (answer({"result": [[{"score": 1.0}]]}), "without a text"),
        (answer({"result": [[None]]}), "without a text"),
        (answer({}, "500 Internal Server Error"), "answered 500"),
        (answer({}, "404 Not Found"), "answered 404"),
        (answer({"result": [[TEA]]}, "302 Found", "Location: file:///etc/passwd\r\n"), "redirects"),
        (
            answer({}, "307 Temporary", "Location: http://169.254.169.254/latest\r\n"),
            "redirects are not followed",
        ),
        (answer(b"not gzip", headers="Content-Encoding: gzip\r\n"), "can't be unpacked"),
        (bomb(), "more than 1000000 bytes"),
        (endless, "more than 1000000 bytes"),
        (answer(b" " * 2_000_000), "more than 1000000 bytes"),
    ],
)
def test_a_search_that_failed_is_no_search_that_found_nothing(
    respond: Respond, message: str
) -> None:
    server = Server(respond)
    with pytest.raises(ToolUnavailable, match=message):
        asked(server, most_bytes=1_000_000, patience=60.0)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "busy",
    [
        answer({}, "429 Too Many Requests", "Retry-After: 0\r\n"),
        answer({}, "503 Service Unavailable", "Retry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n"),
        reset,
        half,
        no_http,
    ],
)
def test_what_may_pass_is_tried_again_but_not_for_ever(busy: Respond) -> None:
    good = answer({"result": [[{"document": TEA, "score": 0.5}]]})
    server = Server(busy, busy, good)
    assert asked(server, tries=3) == FOUND
    server = Server(busy)
    with pytest.raises(ToolUnavailable, match=r"answered (429|503)|can't be reached"):
        asked(server, tries=3)
    assert len(server.requests) == 3


def test_a_server_that_asks_for_a_long_pause_is_given_up_at_once() -> None:
    server = Server(answer({}, "503 Service Unavailable", "Retry-After: 3600\r\n"))
    with pytest.raises(ToolUnavailable, match="answered 503"):
        asked(server)
    assert len(server.requests) == 1


def test_an_answer_that_drips_is_given_up() -> None:
    server = Server(drip)
    with pytest.raises(ToolUnavailable, match=r"did not answer within 0\.3 s"):
        asked(server, patience=0.3)


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        retriever = HttpRetriever(
            f"http://127.0.0.1:{taken.getsockname()[1]}/", allow_private=True, tries=2, pause=0.001
        )
        with pytest.raises(ToolUnavailable, match="search server can't be reached"):
            asyncio.run(retriever.search("tea", 3))


def test_cancelling_frees_the_connection_and_the_next_search_works() -> None:
    server = Server(drip, answer({"result": [[TEA]]}))

    async def main() -> None:
        async with server.listening():
            retriever = HttpRetriever(server.url, allow_private=True)
            async with retriever.opened():
                search = asyncio.create_task(retriever.search("tea", 3))
                while not server.requests:
                    await asyncio.sleep(0.005)
                search.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await search
                for _ in range(400):
                    if not server.open:
                        break
                    await asyncio.sleep(0.005)
                assert server.open == 0
                assert len(await retriever.search("tea", 3)) == 1

    asyncio.run(main())


def test_connections_are_shared_while_somebody_holds_them() -> None:
    server = Server(answer({"result": [[TEA]]}))

    async def main(retriever: HttpRetriever) -> None:
        async with retriever.opened():
            for _ in range(5):
                await retriever.search("tea", 3)

    async def both() -> None:
        async with server.listening():
            await main(HttpRetriever(server.url, allow_private=True))

    asyncio.run(both())
    assert (len(server.requests), server.connections) == (5, 1)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.1.2.3",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "[::1]",
        "[fe80::1]",
        "[fd00::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
    ],
)
def test_addresses_that_are_not_public_are_refused_unless_allowed(host: str) -> None:
    with pytest.raises(UsageError, match="allow_private=True"):
        HttpRetriever(f"http://{host}:8000/retrieve")
    HttpRetriever(f"http://{host}:8000/retrieve", allow_private=True)


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f.1"])
def test_names_of_private_addresses_are_refused_before_anything_is_sent(host: str) -> None:
    server = Server(answer({"result": [[TEA]]}))

    async def main() -> None:
        async with server.listening():
            port = server.url.rsplit(":", 1)[1]
            with pytest.raises(ToolUnavailable, match="not public"):
                await HttpRetriever(f"http://{host}:{port}").search("tea", 3)

    asyncio.run(main())
    assert server.connections == 0


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x.org/", "http://", "retrieve", ""])
def test_an_address_that_can_not_be_asked_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="address"):
        HttpRetriever(url)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for search.test and localhost, signed by itself; its key beside it."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    command += " -keyout key.pem -out cert.pem -subj /CN=localhost"
    command += " -addext subjectAltName=DNS:localhost"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem"


def test_certificates_are_checked_against_the_name(certificate: Path) -> None:
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate, certificate.with_name("key.pem"))
    trusting = ssl.create_default_context(cafile=str(certificate))

    async def ask(host: str, tls: ssl.SSLContext | None) -> list[Hit]:
        server = Server(answer({"result": [[{"document": TEA, "score": 0.5}]]}))
        async with server.listening(serving):
            url = server.url.replace("127.0.0.1", host)
            return await HttpRetriever(url, allow_private=True, tls=tls).search("tea", 3)

    assert asyncio.run(ask("localhost", trusting)) == FOUND
    for host, tls in (("localhost", None), ("127.0.0.1", trusting)):
        with pytest.raises(ToolUnavailable, match="certificate of the search server"):
            asyncio.run(ask(host, tls))
