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
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from ..errors import ToolUnavailable, UsageError
from ..http_client import HttpClient, HttpError
from .base import Hit
from .documents import as_passage

if TYPE_CHECKING:
    import httpx

__all__ = ["HttpRetriever", "is_private"]

_PASSING = frozenset({429, 503})
"""Statuses by which a server asks to come back later."""
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

        Raises `UsageError` for an address that can't be asked.
        """
        import httpx

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
        self._tls = tls
        self._http = HttpClient(
            "the search server",
            self._client,
            tries=tries,
            pause=pause,
            longest_wait=_LONGEST_WAIT,
            passing=_PASSING,
            most_bytes=most_bytes,
            most_at_once=_MOST_CONNECTIONS,
            try_seconds=patience,
        )

    def opened(self) -> AbstractAsyncContextManager[None]:
        """Holds the connections of this event loop, until the last that opened it leaves."""
        return self._http.held()

    async def search(self, query: str, top: int) -> list[Hit]:
        """The best `top` passages as the server ranks them."""
        if top < 1:
            raise UsageError(f"at least one passage must be asked for, not {top}")
        text = query.encode("utf-8", "replace").decode("utf-8")
        asked = [text] if self._field == "queries" else text
        request = {self._field: asked, "topk": top, "return_scores": True}
        async with self.opened():
            asking = self._http.request(partial(self._prepare, json.dumps(request)), self._whole)
            try:
                async with aclosing(asking) as bodies:
                    body = await anext(bodies)
            except HttpError as error:
                raise ToolUnavailable(str(error)) from error
        return _read(body, flat=self._field == "query")[:top]

    async def _whole(self, response: "httpx.Response") -> AsyncGenerator[bytes, None]:
        yield await self._http.read_whole(response)

    async def _prepare(
        self, request: str, client: "httpx.AsyncClient", attempt: int
    ) -> "httpx.Request":
        host = self._url.host
        addresses = await self._resolve(host)
        address = addresses[attempt % len(addresses)]
        headers = {
            "Host": self._url.netloc.decode("ascii"),
            "Content-Type": "application/json",
            "Accept": "application/json",
        }
        return client.build_request(
            "POST",
            self._url.copy_with(host=str(address)),
            content=request,
            headers=headers,
            extensions={"sni_hostname": host},  # the certificate is the name's
        )

    async def _resolve(self, host: str) -> list[_Address]:
        """The addresses to connect to. All addresses of a name must be allowed."""
        import httpx

        literal = _literal(host)
        if literal is not None:
            return [literal]
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, self._url.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError("the name can't be resolved") from error
        names = dict.fromkeys(str(entry[4][0]) for entry in found)
        addresses = [ipaddress.ip_address(name) for name in names]
        if not all(map(self._may_ask, addresses)):
            raise ToolUnavailable(
                "the search server's address is not public, and allow_private is not set"
            )
        return addresses

    def _may_ask(self, address: _Address) -> bool:
        return self._allow_private or all(
            each.is_global and not each.is_multicast for each in _embedded(address)
        )

    def _client(self) -> "httpx.AsyncClient":
        import httpx

        if self._tls is None:  # the certificates are read once
            self._tls = ssl.create_default_context()
        return httpx.AsyncClient(
            verify=self._tls,
            trust_env=False,
            follow_redirects=False,
            timeout=None,  # each try has its own
        )


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


def _literal(host: str) -> _Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


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
