"""The way to an HTTP server: retries, time-outs, streamed events, and a key that nobody sees."""

import asyncio
import json
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ....tools.errors import UsageError
from ..base import EngineError

if TYPE_CHECKING:
    import ssl

    import httpx

__all__ = ["Refused", "Server", "StreamCut", "api_key", "split_address"]

_AGAIN = {408, 425, 429, 500, 502, 503, 504, 529}
"""Answers after which the same request may do better a little later."""
_LONGEST_WAIT = 60.0
"""Seconds that a server may ask to be left alone for before it is given up."""
_MOST_BYTES = 32_000_000
"""Of one event, or of one answer that is no stream."""
_MOST_IDLE = 256
"""Connections that are kept for later requests."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Refused(EngineError):
    """The server answered with a status that no second try would change; `status` is it."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class StreamCut(EngineError):
    """The stream ended before its end, after something had come."""


def split_address(address: str) -> tuple[str, str | None]:
    """`http://host:8000/v1#name` as the base address and the model's name, if there is one.

    An address without a path gets `/v1`. Raises UsageError, which repeats no password.
    """
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"that is no server's address: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError("a server's address begins with http:// or https:// and names a host")
    if parts.username or parts.password or parts.query:
        raise UsageError(
            f"leave the key out of the address of {host}: set INTERLACE_API_KEY instead"
        )
    path = parts.path.rstrip("/") or "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}", parts.fragment or None


def api_key(base: str) -> str | None:
    """The key for a server, from the environment.

    `INTERLACE_API_KEY` is for whatever server is named, `OPENAI_API_KEY` for OpenAI's own alone: a
    key is not shown to others.
    """
    host = urlsplit(base).hostname or ""
    if key := os.environ.get("INTERLACE_API_KEY"):
        return key
    own = host == "openai.com" or host.endswith(".openai.com")
    return os.environ.get("OPENAI_API_KEY") or None if own else None


class Server:
    """Sends JSON to one server and reads what comes back, with as many tries as it takes.

    Connections are kept and used again. A try fails where the connection does, where nothing comes
    for `patience` seconds, or with a status of 429 or 5xx; up to `tries` are made, with pauses that
    double and vary, or as long as the server asks for. Redirects are not followed. The key stands
    in no record and no message.
    """

    def __init__(
        self,
        base: str,
        *,
        key: str | None = None,
        patience: float = 300.0,
        tries: int = 5,
        pause: float = 0.5,
    ) -> None:
        """`pause`: seconds before the second try."""
        if tries < 1 or patience <= 0:
            raise UsageError("tries must be 1 or more and patience above 0")
        self.base = base
        self.host = urlsplit(base).netloc
        self._key = key
        self._patience = patience
        self._tries = tries
        self._pause = pause
        self._connections: dict[asyncio.AbstractEventLoop, _Connections] = {}
        self._tls: ssl.SSLContext | None = None

    async def get(self, path: str) -> Any:
        """The JSON that stands at a path. Raises as `stream` does."""
        async with aclosing(self._ask("GET", path, None)) as answer:
            async for item in answer:
                return item
        raise EngineError(f"{self.host} gave an empty answer")

    def stream(self, path: str, body: dict[str, Any]) -> AsyncGenerator[Any, None]:
        """The JSON of each event that answers a request; one item where the answer is no stream.

        Closing the generator closes the connection, by which the server learns that nobody waits.
        Raises Refused for an answer that says no, StreamCut where the end is missing, and
        EngineError where the server can't be reached or says what can't be read.
        """
        return self._ask("POST", path, body)

    async def aclose(self) -> None:
        """Close the connections of this event loop; those of ended loops are gone with them."""
        mine = self._connections.pop(asyncio.get_running_loop(), None)
        self._connections.clear()
        if mine is not None:
            await mine.aclose()

    async def _ask(
        self, method: str, path: str, body: dict[str, Any] | None
    ) -> AsyncGenerator[Any, None]:
        import httpx

        told = False
        for attempt in range(self._tries):
            try:
                async with (
                    self._connected().one() as client,
                    client.stream(method, self.base + path, json=body) as response,
                ):
                    wait = await self._check(response, attempt)
                    if wait is None:
                        async for item in self._items(response):
                            told = True
                            yield item
                        return
            except httpx.TransportError as error:
                if told:
                    raise StreamCut(f"{self.host} broke off: {_what(error)}") from error
                if attempt + 1 == self._tries:
                    raise EngineError(
                        f"{self.host} can't be reached ({_what(error)}): is the server running?"
                    ) from error
                wait = self._backoff(attempt)
            await asyncio.sleep(wait)

    async def _check(self, response: "httpx.Response", attempt: int) -> float | None:
        """None where the answer is good, else how long to wait before the next try."""
        status = response.status_code
        if response.is_success:
            return None
        if response.is_redirect:
            raise Refused(
                f"{self.host} sends on to {response.headers.get('location', 'elsewhere')}: "
                "name that address",
                status,
            )
        why = await self._why(response)
        if status in (401, 403):
            raise Refused(
                f"{self.host} refused the key ({status}{why}): set INTERLACE_API_KEY", status
            )
        if status not in _AGAIN:
            raise Refused(f"{self.host} refused the request ({status}{why})", status)
        asked = _retry_after(response.headers.get("retry-after"))
        if asked > _LONGEST_WAIT:
            raise EngineError(
                f"{self.host} asks to be left alone for {asked:.0f} s ({status}{why})"
            )
        if attempt + 1 == self._tries:
            raise EngineError(f"{self.host} failed {self._tries} times ({status}{why})")
        return max(asked, self._backoff(attempt))

    def _backoff(self, attempt: int) -> float:
        longest = min(_LONGEST_WAIT / 2, self._pause * 2.0**attempt)
        return longest * random.uniform(0.5, 1.0)

    async def _why(self, response: "httpx.Response") -> str:
        """The server's reason for refusing, short, without the key."""
        raw = b""
        async for piece in response.aiter_bytes():
            raw += piece
            if len(raw) > 8192:
                break
        text = raw.decode("utf-8", "replace")
        with suppress(ValueError):
            text = _message(json.loads(text)) or text
        return self._said(text)

    def _said(self, text: str) -> str:
        text = " ".join(text.split())
        if self._key:
            text = text.replace(self._key, "***")
        return f": {text[:300]}" if text else ""

    async def _items(self, response: "httpx.Response") -> AsyncIterator[Any]:
        if "text/event-stream" not in response.headers.get("content-type", ""):
            yield self._read(await _whole(response, self.host))
            return
        async with aclosing(_lines(response, self.host)) as lines:
            async for line in lines:
                if not line.startswith(b"data:"):
                    continue  # a comment that keeps the connection alive, a name, an empty line
                data = line[5:].strip()
                if data == b"[DONE]":
                    break
                if data:
                    yield self._read(data)
            # A connection whose answer is read to its end is used again.
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    async for _ in lines:
                        pass

    def _read(self, data: bytes) -> Any:
        try:
            item = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise EngineError(f"{self.host} sent what is not JSON") from error
        if isinstance(item, dict) and item.get("error"):
            raise EngineError(f"{self.host} failed{self._said(_message(item) or 'unknown')}")
        return item

    def _connected(self) -> "_Connections":
        loop = asyncio.get_running_loop()
        if loop not in self._connections:
            self._connections[loop] = _Connections(self._client)
        return self._connections[loop]

    def _client(self) -> "httpx.AsyncClient":
        import httpx

        if self._tls is None:  # the certificates are read once
            self._tls = httpx.create_ssl_context()
        return httpx.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx.Timeout(
                connect=10.0, read=self._patience, write=self._patience, pool=None
            ),
            verify=self._tls,
            trust_env=urlsplit(self.base).hostname not in _LOOPBACK,
        )


class _Connections:
    """The connections of one event loop, each a client of its own; how many, is the runner's
    business.

    One client looks through all its connections at the beginning and the end of each request: with
    64 to 256 in flight one of five events took 10 to 18 ms of our own time, and takes 1 to 3 so.
    """

    def __init__(self, make: "Callable[[], httpx.AsyncClient]") -> None:
        self._make = make
        self._all: set[httpx.AsyncClient] = set()
        self._idle: list[httpx.AsyncClient] = []

    @asynccontextmanager
    async def one(self) -> "AsyncIterator[httpx.AsyncClient]":
        """A client that nobody else uses meanwhile; the one used last comes first."""
        client = self._idle.pop() if self._idle else self._make()
        self._all.add(client)
        try:
            yield client
        finally:
            if len(self._idle) < _MOST_IDLE:
                self._idle.append(client)
            else:
                self._all.discard(client)
                await client.aclose()

    async def aclose(self) -> None:
        """Close all, those in use too."""
        for client in list(self._all):
            await client.aclose()


def _what(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")


def _message(item: Any) -> str:
    """The sentence in an error, wherever servers put it."""
    while isinstance(item, dict):
        item = item.get("error") or item.get("message") or item.get("detail") or ""
    return item if isinstance(item, str) else json.dumps(item)


def _retry_after(value: str | None) -> float:
    """Seconds, from a number or a date; 0 where there is neither."""
    if value is None:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    from datetime import UTC, datetime

    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


async def _lines(response: "httpx.Response", host: str) -> AsyncGenerator[bytes, None]:
    """Lines that end in a line feed: other line separators stand inside JSON strings."""
    rest = bytearray()
    async for piece in response.aiter_bytes():
        *lines, end = piece.split(b"\n")
        for line in lines:
            yield bytes(rest + line)
            rest.clear()
        rest += end
        if len(rest) > _MOST_BYTES:
            raise EngineError(f"{host} sent a line of more than {_MOST_BYTES} bytes")
    yield bytes(rest)


async def _whole(response: "httpx.Response", host: str) -> bytes:
    raw = bytearray()
    async for piece in response.aiter_bytes():
        raw += piece
        if len(raw) > _MOST_BYTES:
            raise EngineError(f"{host} sent more than {_MOST_BYTES} bytes")
    return bytes(raw)
