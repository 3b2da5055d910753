"""Requests to an HTTP server: tries and pauses, bounds on size, connections of each event loop.

A caller says how a request is made and how its answer is read.
"""

import asyncio
import os
import random
import socket
import ssl
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import httpx

__all__ = ["BrokenOff", "HttpClient", "HttpError", "RefusedStatus", "Unreachable"]

_PROXIES = tuple(
    each
    for name in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
    for each in (name, name.lower())
)
_MOST_IDLE = 256
"""Connections that are kept for later requests."""
_MOST_WORDS = 8192
"""Bytes that are read of an answer that says no."""
_ENCODINGS = "gzip, deflate"
"""The encodings of an answer that are unpacked: 64 KiB become 66 MB at most. Others, and one inside
another, could become gigabytes at once."""

T = TypeVar("T")


class HttpError(Exception):
    """A request failed, after as many tries as made sense; the message names no address."""


class Unreachable(HttpError):
    """No connection could be made, or it broke before anything was read; `__cause__` says why."""


class BrokenOff(HttpError):
    """The connection broke after something had been read; `__cause__` says why."""


class RefusedStatus(HttpError):
    """The server answered with a status other than success.

    `text` is the beginning of the answer, `location` where a redirect leads, `wait` the seconds
    after which the server wants to be asked again (0 if it does not say), `passing` True if the
    status may pass: all tries were made, or `wait` was too long.
    """

    def __init__(self, name: str, response: "httpx.Response", text: str, *, passing: bool) -> None:
        self.status = response.status_code
        redirected = ", and redirects are not followed" if response.is_redirect else ""
        super().__init__(f"{name} answered {self.status}{redirected}")
        self.text = text
        self.location = response.headers.get("location", "")
        self.wait = _retry_after(response.headers)
        self.passing = passing


@dataclass
class HttpClient:
    """Sends requests to one server, `name` in messages. Usable from several event loops.

    A request is sent again after a failed connection or a status of `passing`. Up to `tries` are
    made, with pauses that begin at `pause` seconds, double and vary, or as long as the server asks
    for; one that asks for more than `longest_wait` seconds is given up. At most `most_bytes` of an
    answer are read. `try_seconds` bounds one try, from the connection to the last byte, and
    `head_seconds` the connection and the headers of its answer alone.

    `make` builds an httpx client. Each request in flight has one of its own: a client looks through
    all its connections at the beginning and the end of each request, so with 64 to 256 in flight
    one of five events took 10 to 18 ms of our own time, and takes 1 to 3 so. At most
    `most_at_once` requests of an event loop are in flight, the others wait.
    """

    name: str
    make: "Callable[[], httpx.AsyncClient]"
    _: KW_ONLY
    tries: int
    pause: float
    longest_wait: float
    passing: frozenset[int]
    most_bytes: int
    most_at_once: int = sys.maxsize
    try_seconds: float | None = None
    head_seconds: float | None = None
    _connections: "dict[asyncio.AbstractEventLoop, _Connections]" = field(default_factory=dict)

    async def request(
        self,
        prepare: "Callable[[httpx.AsyncClient, int], Awaitable[httpx.Request]]",
        read: "Callable[[httpx.Response], AsyncGenerator[T, None]]",
    ) -> AsyncGenerator[T, None]:
        """The items that `read` makes of the answer; tried again as long as there is none.

        `prepare` is given a client and the number of the attempt. Closing the generator closes the
        connection. Raises HttpError.
        """
        import httpx

        for attempt in range(self.tries):
            begun, last, wait = False, attempt + 1 == self.tries, 0.0
            try:
                async with asyncio.timeout(self.try_seconds), self._connected().one() as client:
                    request = await prepare(client, attempt)
                    request.headers["accept-encoding"] = _ENCODINGS
                    sent = await self._send(client, request)
                    async with aclosing(sent) as response:
                        packed = response.headers.get("content-encoding", "identity").lower()
                        if packed not in ("identity", "", *_ENCODINGS.split(", ")):
                            raise HttpError(f"{self.name} sent what can't be unpacked")
                        if response.is_success:
                            async with aclosing(read(response)) as items:
                                async for item in items:
                                    begun = True
                                    yield item
                            return
                        refused = await self._refused(response)
                wait = refused.wait
                if last or not refused.passing or wait > self.longest_wait:
                    raise refused
            except TimeoutError:
                raise HttpError(
                    f"{self.name} did not answer within {self.try_seconds:g} s"
                ) from None
            except httpx.DecodingError as error:
                raise HttpError(f"{self.name} sent what can't be unpacked") from error
            except httpx.TransportError as error:
                if begun:
                    raise BrokenOff(f"{self.name} broke off") from error
                if _caused_by(error, ssl.SSLCertVerificationError):
                    raise HttpError(
                        f"the certificate of {self.name} is not valid (SSL_CERT_FILE names the "
                        "file of an authority of your own)"
                    ) from error
                if last and _caused_by(error, socket.gaierror, UnicodeError):
                    raise HttpError(f"the name of {self.name} can't be resolved") from error
                if last and _caused_by(error, ssl.SSLError):
                    raise HttpError(
                        f"no TLS connection to {self.name} can be made: does its address begin "
                        "with http://, not https://?"
                    ) from error
                if last:
                    raise Unreachable(f"{self.name} can't be reached") from error
            longest = min(self.longest_wait / 2, self.pause * 2.0**attempt)
            await asyncio.sleep(max(wait, longest * random.uniform(0.5, 1.0)))

    async def read_whole(self, response: "httpx.Response") -> bytes:
        """The body of a response, unpacked piece by piece. Raises HttpError if it is too large."""
        raw = bytearray()
        async for piece in response.aiter_bytes(65_536):
            raw += piece
            self._check_size(raw)
        return bytes(raw)

    async def read_lines(self, response: "httpx.Response") -> AsyncGenerator[bytes, None]:
        """The lines of a response, which end in a line feed: other separators may be part of JSON
        strings. Raises HttpError for one that is too large.
        """
        rest = bytearray()
        async for piece in response.aiter_bytes():
            *lines, end = piece.split(b"\n")
            for line in lines:
                yield bytes(rest + line)
                rest.clear()
            rest += end
            self._check_size(rest)
        yield bytes(rest)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Keep this event loop's connections for later requests, until the last holder leaves."""
        connections = self._connected()
        connections.holders += 1
        try:
            yield
        finally:
            connections.holders -= 1
            if not connections.holders:
                await self.aclose()

    async def aclose(self) -> None:
        """Close the connections of this event loop; those of ended loops are gone with them."""
        mine = self._connections.pop(asyncio.get_running_loop(), None)
        for loop in [loop for loop in self._connections if loop.is_closed()]:
            del self._connections[loop]
        if mine is not None:
            await mine.aclose()

    async def _send(
        self, client: "httpx.AsyncClient", request: "httpx.Request"
    ) -> "httpx.Response":
        """Send a request; its response, once the headers are there.

        Raises HttpError after `head_seconds`: headers too may come a byte at a time.
        """
        try:
            async with asyncio.timeout(self.head_seconds):
                return await client.send(request, stream=True)
        except TimeoutError as error:
            raise HttpError(f"{self.name} sent no whole answer in {self.head_seconds} s") from error

    async def _refused(self, response: "httpx.Response") -> RefusedStatus:
        raw = b""
        with suppress(TimeoutError):
            async with asyncio.timeout(5.0):
                async for piece in response.aiter_bytes():
                    raw += piece
                    if len(raw) > _MOST_WORDS:
                        break
        passing = response.status_code in self.passing
        return RefusedStatus(self.name, response, raw.decode("utf-8", "replace"), passing=passing)

    def _check_size(self, data: bytes | bytearray) -> None:
        if len(data) > self.most_bytes:
            raise HttpError(f"{self.name} sent more than {self.most_bytes} bytes")

    def _connected(self) -> "_Connections":
        loop = asyncio.get_running_loop()
        if loop not in self._connections:
            self._connections[loop] = _Connections(self.make, self.most_at_once)
        return self._connections[loop]


class _Connections:
    """The clients of one event loop, and how many hold them."""

    def __init__(self, make: "Callable[[], httpx.AsyncClient]", most: int) -> None:
        self.holders = 0
        self._make = make
        self._room = asyncio.Semaphore(most)
        self._all: set[httpx.AsyncClient] = set()
        self._idle: list[httpx.AsyncClient] = []

    @asynccontextmanager
    async def one(self) -> "AsyncIterator[httpx.AsyncClient]":
        """A client for the block alone; the one used last comes first."""
        async with self._room:
            client = self._idle.pop() if self._idle else self._new()
            self._all.add(client)
            try:
                yield client
            finally:
                if len(self._idle) < _MOST_IDLE:
                    self._idle.append(client)
                else:
                    self._all.discard(client)
                    await client.aclose()

    def _new(self) -> "httpx.AsyncClient":
        """Another client. Raises HttpError where proxies or certificates are set up wrongly."""
        import httpx

        try:
            return self._make()
        except (OSError, ValueError, ImportError, httpx.InvalidURL) as error:
            names, why = _PROXIES, "it is not an address such as http://host:1 or socks5://host:1"
            if isinstance(error, OSError):
                names, why = ("SSL_CERT_FILE", "SSLKEYLOGFILE"), str(error)
            elif isinstance(error, ImportError):
                why = "for a SOCKS proxy, pip install 'httpx[socks]'"
            found = " or ".join(name for name in names if os.environ.get(name))
            # An address may hold a password, so no more of it is said.
            raise HttpError(f"{found or 'the environment'} can't be used: {why}") from error

    async def aclose(self) -> None:
        """Close all, those in use too."""
        for client in list(self._all):
            await client.aclose()


def _caused_by(error: BaseException | None, *kinds: type[BaseException]) -> bool:
    """True if an error, or one that it came from, is of one of these kinds."""
    while error is not None:
        if isinstance(error, kinds):
            return True
        error = error.__cause__ or error.__context__
    return False


def _retry_after(headers: "httpx.Headers") -> float:
    """Seconds to wait, from milliseconds, a number of seconds or a date; 0 if there is none."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        with suppress(ValueError):
            return max(0.0, float(headers.get(name, "")) / unit)
    try:
        when = parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return 0.0
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
