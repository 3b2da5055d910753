r"""A search server over HTTP, in the protocol of Search-R1's retriever (arXiv:2503.09516).

    POST {"queries": ["..."], "topk": 3, "return_scores": true}
    ->   {"result": [[{"document": {"id": "7", "contents": "\"Title\"\nText"}, "score": 0.9}]]}

Servers differ in small things, all of which are read: documents with or without the "document"
around them, plain strings, `title` and `text` instead of `contents`, no scores, no ids, numbers as
ids, "results" for "result", fewer or more passages than asked for.
"""

import asyncio
import ipaddress
import json
import math
import random
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from ..errors import MissingExtra, ToolUnavailable, UsageError
from .base import Hit
from .documents import as_passage

if TYPE_CHECKING:
    import httpx

__all__ = ["HttpRetriever", "is_private"]

_AGAIN = {429, 503}
"""The server asks to come back later."""
_LONGEST_WAIT = 10.0
"""Seconds that a server may ask to be left alone for before it is given up."""
_MOST_CONNECTIONS = 64
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class HttpRetriever:
    """Asks a search server; implements `Retriever`.

    `url` is the whole address, such as `http://10.0.0.5:8000/retrieve`. Addresses that are not
    public (this machine, private networks, cloud metadata) are refused unless `allow_private`; a
    name is resolved once per request, and the connection goes to the address that was checked.
    Redirects are not followed, proxies of the environment not used.

    A try may take `patience` seconds, from connecting to the last byte. Where the server is busy
    (429, 503) or the connection breaks, up to `tries` are made, with pauses between them that
    double. An answer of more than `most_bytes`, also after unpacking, is refused. All this raises
    `ToolUnavailable`, so that a search that failed is not taken for one that found nothing.

    `field` is the name of the query in the request: servers that take "query" get one string, and
    may answer with one flat list.
    """

    def __init__(
        self,
        url: str,
        *,
        allow_private: bool = False,
        field: Literal["queries", "query"] = "queries",
        patience: float = 10.0,
        tries: int = 4,
        pause: float = 0.25,
        most_bytes: int = 8_000_000,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`pause`: seconds before the second try. `tls`: for certificates of one's own.

        Raises `UsageError` for an address that can't be asked, and `MissingExtra`.
        """
        httpx = _import()
        try:
            self._url = httpx.URL(url)
        except (httpx.InvalidURL, TypeError, ValueError) as error:
            raise UsageError(f"{url!r} is not an address: {error}") from error
        if self._url.scheme not in ("http", "https") or not self._url.host:
            raise UsageError(f"{url!r} is not an address that begins with http:// or https://")
        if tries < 1 or patience <= 0 or most_bytes < 1:
            raise UsageError("tries must be 1 or more, patience and most_bytes above 0")
        self._allow_private = allow_private
        literal = _literal(self._url.host)
        if literal is not None and not self._may_ask(literal):
            raise UsageError(
                f"{self._url.host} is not a public address; to ask it all the same, use "
                "HttpRetriever(url, allow_private=True)"
            )
        self._field = field
        self._patience = patience
        self._tries = tries
        self._pause = pause
        self._most_bytes = most_bytes
        self._tls = tls
        self._clients: dict[asyncio.AbstractEventLoop, _Client] = {}

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Holds the connections of this event loop, until the last that opened it leaves."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = _Client(self._connections())
        client.users += 1
        try:
            yield
        finally:
            client.users -= 1
            if not client.users:
                del self._clients[loop]
                await client.connections.aclose()

    async def search(self, query: str, top: int) -> list[Hit]:
        """The best `top` passages as the server ranks them."""
        if top < 1:
            raise UsageError(f"at least one passage must be asked for, not {top}")
        text = query.encode("utf-8", "replace").decode("utf-8")
        asked = [text] if self._field == "queries" else text
        request = {self._field: asked, "topk": top, "return_scores": True}
        async with self.opened():
            connections = self._clients[asyncio.get_running_loop()].connections
            body = await self._ask(connections, json.dumps(request).encode())
        return _read(body, flat=self._field == "query")[:top]

    async def _ask(self, connections: "httpx.AsyncClient", request: bytes) -> bytes:
        """The body of the answer, after as many tries as it takes and may take."""
        for attempt in range(self._tries):
            wait = self._pause * 2**attempt * random.uniform(0.75, 1.25)
            try:
                async with asyncio.timeout(self._patience):
                    return await self._try(connections, request, attempt)
            except TimeoutError:
                raise ToolUnavailable(
                    f"the search server did not answer within {self._patience:g} s"
                ) from None
            except _TryAgain as error:
                if attempt + 1 == self._tries or error.wait > _LONGEST_WAIT:
                    raise ToolUnavailable(str(error)) from error.__cause__
                await asyncio.sleep(max(wait, error.wait))
        raise AssertionError("the last try returns or raises")

    async def _try(self, connections: "httpx.AsyncClient", request: bytes, attempt: int) -> bytes:
        httpx = _import()
        host = self._url.host
        addresses = await self._resolve(host)
        address = addresses[attempt % len(addresses)]
        headers = {
            "Host": self._url.netloc.decode("ascii"),
            "Content-Type": "application/json",
            "Accept": "application/json",
        }
        try:
            async with connections.stream(
                "POST",
                self._url.copy_with(host=str(address)),
                content=request,
                headers=headers,
                extensions={"sni_hostname": host},  # the certificate is the name's
            ) as answer:
                self._check(answer)
                return await self._body(answer)
        except httpx.TransportError as error:
            if _is_untrusted(error):
                raise ToolUnavailable("the search server's certificate is not valid") from error
            raise _TryAgain("the connection to the search server failed") from error
        except httpx.DecodingError as error:
            raise ToolUnavailable("the search server's answer can't be unpacked") from error

    def _check(self, answer: "httpx.Response") -> None:
        status = answer.status_code
        if status in _AGAIN:
            after = answer.headers.get("Retry-After", "")
            wait = float(after) if after.isascii() and after.isdigit() else 0.0
            raise _TryAgain(f"the search server answered {status}", wait)
        if 300 <= status < 400:
            raise ToolUnavailable(
                f"the search server answered {status}, and redirects are not followed"
            )
        if status != 200:
            raise ToolUnavailable(f"the search server answered {status}")

    async def _body(self, answer: "httpx.Response") -> bytes:
        body = bytearray()
        async for chunk in answer.aiter_bytes(65_536):  # unpacked piece by piece
            body += chunk
            if len(body) > self._most_bytes:
                raise ToolUnavailable(
                    f"the search server's answer has more than {self._most_bytes} bytes"
                )
        return bytes(body)

    async def _resolve(self, host: str) -> list[_Address]:
        """The addresses to connect to. All that a name stands for must be allowed."""
        literal = _literal(host)
        if literal is not None:
            return [literal]
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, self._url.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise _TryAgain("the search server's name can't be resolved") from error
        names = dict.fromkeys(str(entry[4][0]) for entry in found)
        addresses = [ipaddress.ip_address(name) for name in names]
        if not all(map(self._may_ask, addresses)):
            raise ToolUnavailable(
                "the search server's address is not public, and allow_private is not set"
            )
        return addresses

    def _may_ask(self, address: _Address) -> bool:
        return self._allow_private or all(map(_public, _embedded(address)))

    def _connections(self) -> "httpx.AsyncClient":
        lib = _import()
        client: httpx.AsyncClient = lib.AsyncClient(
            verify=self._tls or ssl.create_default_context(),
            trust_env=False,
            follow_redirects=False,
            timeout=None,  # each try has its own
            limits=lib.Limits(max_connections=_MOST_CONNECTIONS),
        )
        return client


def is_private(url: str) -> bool:
    """True if the host is `localhost` or a loopback or private IP address; resolves no names.

    Link-local addresses (cloud metadata) don't count.

    >>> [is_private(f"http://{host}:8000/") for host in ("localhost", "10.0.0.5", "[::1]")]
    [True, True, True]
    >>> [is_private(f"http://{host}:8000/") for host in ("169.254.169.254", "example.org")]
    [False, False]
    """
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    address = _literal(host)
    if address is None:
        return host == "localhost"
    usual = address.is_loopback or address.is_private
    return usual and not (address.is_link_local or address.is_unspecified)


class _Client:
    """The connections of one event loop and how many hold them."""

    def __init__(self, connections: "httpx.AsyncClient") -> None:
        self.connections = connections
        self.users = 0


class _TryAgain(Exception):
    """A failure that may have passed at the next try, after at least `wait` seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def _import() -> Any:
    try:
        import httpx
    except ImportError:
        raise MissingExtra("Asking a search server", "search") from None
    return httpx


def _literal(host: str) -> _Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _public(address: _Address) -> bool:
    return address.is_global and not address.is_multicast


def _embedded(address: _Address) -> list[_Address]:
    """The address, and the IPv4 addresses that a gateway would make of it."""
    found: list[_Address] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return [address.ipv4_mapped]
        if address.sixtofour is not None:
            found.append(address.sixtofour)
        if address in _NAT64:
            found.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    return found


def _is_untrusted(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _read(body: bytes, *, flat: bool) -> list[Hit]:
    """The hits of an answer to one query. Raises `ToolUnavailable` where it is not one."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ToolUnavailable("the search server's answer is not JSON") from error
    if isinstance(answer, dict):
        answer = answer.get("result", answer.get("results"))
    if not isinstance(answer, list):
        raise ToolUnavailable("the search server's answer holds no list of results")
    if not flat or (len(answer) == 1 and isinstance(answer[0], list)):
        if len(answer) != 1:
            raise ToolUnavailable(
                f"the search server answered {len(answer)} queries where one was asked"
            )
        answer = answer[0]
    if not isinstance(answer, list):
        raise ToolUnavailable("the search server's answer holds no list of documents")
    return [_hit(item) for item in answer]


def _hit(item: object) -> Hit:
    score = None
    document = item
    if isinstance(item, dict):
        document = item.get("document", item)
        value = item.get("score")
        if isinstance(value, int | float) and not isinstance(value, bool):
            score = _finite(value)
    passage = as_passage(document)
    if passage is None:
        raise ToolUnavailable("the search server gave a document without a text")
    return Hit(passage, score)


def _finite(value: int | float) -> float | None:
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond all floats
        return None
