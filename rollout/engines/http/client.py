"""The client of a model server: addresses, keys that no message shows, streamed events."""

import asyncio
import json
import logging
import os
import re
import ssl
import urllib.request
import weakref
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus, urlsplit

from ....tools.errors import UsageError
from ....tools.http_client import BrokenOff, HttpClient, HttpError, RefusedStatus, Unreachable
from ..base import EngineError

if TYPE_CHECKING:
    import httpx

__all__ = ["DONE", "NotReached", "Refused", "ServerClient", "StreamCut", "api_key", "split_address"]

DONE = "[DONE]"
"""The last item of a stream that says itself that it is over."""
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
"""Statuses after which the same request may do better a little later."""
_LONGEST_WAIT = 60.0
"""Seconds that a server may ask to be left alone for before it is given up."""
_MOST_BYTES = 32_000_000
"""Bytes of one event, or of one answer that is not a stream."""
_SHORTEST_SECRET = 8
"""Characters of a key that is masked in messages; some servers want any word, such as `none`."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Refused(EngineError):
    """The server said no: with a status other than success, `status`, or in an answer or a stream
    that began well (the status is then the one in its error, or 0). It said `text`.

    `parameter` is the field of the request that the server names as the cause, if it does.
    `passing`: the same request may do better later.
    """

    def __init__(self, message: str, status: int, text: str = "", parameter: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.passing = status in _PASSING
        self.text = text
        self.parameter = parameter


class NotReached(EngineError):
    """Nothing that can be read came from the server, so that nothing is known about it."""


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
        raise UsageError(f"this is not a server's address: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError("a server's address begins with http:// or https:// and names a host")
    if parts.username or parts.password or parts.query:
        raise UsageError(
            f"leave the key and the query out of the address of {host}: set INTERLACE_API_KEY, "
            "and the option query"
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


class ServerClient:
    """Sends JSON to one server and reads what comes back, with as many tries as it takes.

    Connections are kept and used again. A try fails where the connection does, where nothing comes
    for `patience` seconds, or with a status of 429 or 5xx; up to `tries` are made, with pauses that
    double and vary, or as long as the server asks for. An answer that comes, but says nothing for
    twice that time, is given up. Redirects are not followed. The key is in no record and no
    message.
    """

    def __init__(
        self,
        base: str,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        ca: str | None = None,
        patience: float = 300.0,
        tries: int = 5,
        pause: float = 0.5,
    ) -> None:
        """`headers` and `query` are sent with each request; `$NAME` in a value is read from the
        environment. `ca` is a file of certificates to trust instead of the usual ones. `pause`:
        seconds before the second try. Raises UsageError, also for a broken key.
        """
        if tries < 1 or patience <= 0:
            raise UsageError("tries must be 1 or more and patience above 0")
        self.base = base
        self.host = urlsplit(base).netloc
        key = (key or "").strip()
        given = {"Authorization": f"Bearer {key}"} if key else {}
        given |= {name: _from_environment(value).strip() for name, value in (headers or {}).items()}
        for value in given.values():
            if not (value.isascii() and value.isprintable()):
                name = "key" if value == f"Bearer {key}" else "header"
                raise UsageError(
                    f"the {name} for {self.host} holds a character that a {name} can't have"
                )
        self._headers = given
        self._query = {name: _from_environment(value) for name, value in (query or {}).items()}
        self._ca = ca
        mask = self._mask = _mask([key, *given.values(), *self._query.values()])
        if self._query:  # httpx logs the address of each request, at the level INFO

            def masked(record: logging.LogRecord) -> bool:
                record.msg, record.args = mask(record.getMessage()), ()
                return True

            logger = logging.getLogger("httpx")
            logger.addFilter(masked)
            weakref.finalize(self, logger.removeFilter, masked)
        self._patience = patience
        self._tries = tries
        self._http = HttpClient(
            self.host,
            self._client,
            tries=tries,
            pause=pause,
            longest_wait=_LONGEST_WAIT,
            passing=_PASSING,
            most_bytes=_MOST_BYTES,
            head_seconds=2 * patience,
        )
        self._tls: ssl.SSLContext | None = None

    async def get(self, path: str) -> Any:
        """The JSON at a path. Raises as `stream` does."""
        async with aclosing(self._ask("GET", path, None)) as answer:
            async for item in answer:
                return item
        raise EngineError(f"{self.host} gave an empty answer")

    def stream(self, path: str, body: dict[str, Any]) -> AsyncGenerator[Any, None]:
        """The JSON of each event that answers a request; one item if the answer is not a stream.

        Closing the generator closes the connection, by which the server learns to stop.
        Raises Refused for an answer that says no, StreamCut where the end is missing, and
        EngineError where the server can't be reached or says what can't be read.
        """
        return self._ask("POST", path, body)

    async def aclose(self) -> None:
        """Close the connections of this event loop."""
        await self._http.aclose()

    async def _ask(
        self, method: str, path: str, body: dict[str, Any] | None
    ) -> AsyncGenerator[Any, None]:
        # Text may hold lone surrogates, which no server takes.
        sent = (
            None if body is None else json.dumps(body, ensure_ascii=False).encode(errors="replace")
        )
        headers = None if body is None else {"Content-Type": "application/json"}

        async def prepare(client: "httpx.AsyncClient", _: int) -> "httpx.Request":
            return client.build_request(
                method, self.base + path, content=sent, params=self._query or None, headers=headers
            )

        try:
            async with aclosing(self._http.request(prepare, self._items)) as items:
                async for item in items:
                    yield item
        except RefusedStatus as error:
            raise self._explain(error) from None
        except (BrokenOff, Unreachable) as error:
            cause = error.__cause__
            what = f"{error} ({type(cause).__name__}{self.quote_words(str(cause))})"
            if isinstance(error, BrokenOff):
                raise StreamCut(what) from error
            raise NotReached(f"{what}: {self._proxy() or 'is the server running?'}") from error
        except HttpError as error:
            said = self._mask(str(error))
            proxy = "" if "_PROXY" in said else self._proxy()
            raise NotReached(f"{said}: {proxy}" if proxy else said) from error
        except RecursionError as error:
            raise EngineError(f"{self.host} sent what is nested too deeply") from error

    def _proxy(self) -> str:
        """A question about the proxy that is used, or "" without one."""
        parts, proxies = urlsplit(self.base), urllib.request.getproxies()
        host = parts.hostname or ""
        names = [name for name in (parts.scheme, "all") if proxies.get(name)]
        if not names or host in _LOOPBACK or urllib.request.proxy_bypass(host):
            return ""
        return f"is the proxy in {names[0].upper()}_PROXY the right one, and running?"

    def _explain(self, refused: RefusedStatus) -> EngineError:
        status, text, parameter = refused.status, self._mask(refused.text), ""
        if 300 <= status < 400:
            to = self._mask(refused.location) or "elsewhere"
            return Refused(f"{self.host} sends on to {to}: name that address", status)
        with suppress(ValueError, RecursionError):
            body = json.loads(refused.text)
            text = self._mask(_message(body)) or text
            parameter = _detail(body, "param")
        why = f"{status}{self.quote_words(text)}"
        if status in (401, 403):
            said = f"{self.host} refused the key ({why}): set INTERLACE_API_KEY"
        elif not refused.passing:
            said = f"{self.host} refused the request ({why})"
        elif refused.wait > _LONGEST_WAIT:
            said = f"{self.host} asks to be left alone for {refused.wait:.0f} s ({why})"
        else:
            said = f"{self.host} failed {self._tries} times ({why})"
        return Refused(said, status, text, parameter)

    def quote_words(self, text: str) -> str:
        """A colon and a server's words, short and without a secret."""
        text = self._mask(" ".join(text.split()))
        return f": {text[:300]}" if text else ""

    async def _items(self, response: "httpx.Response") -> AsyncGenerator[Any, None]:
        import httpx

        if "text/event-stream" in response.headers.get("content-type", ""):
            async with aclosing(self._http.read_lines(response)) as lines:
                async for item in self._events(lines):
                    yield item
                # A connection whose answer is read to its end is used again.
                with suppress(TimeoutError, HttpError, httpx.TransportError):
                    async with asyncio.timeout(1.0):
                        async for _ in lines:
                            pass
            return
        try:
            async with asyncio.timeout(2 * self._patience):
                data = await self._http.read_whole(response)
        except TimeoutError:
            raise self._silent() from None
        if data.lstrip().startswith((b"data:", b"event:")):  # a stream under another name

            async def split() -> AsyncGenerator[bytes, None]:
                for line in data.split(b"\n"):
                    yield line

            async for item in self._events(split()):
                yield item
        else:
            yield self._read(data)

    async def _events(self, lines: AsyncGenerator[bytes, None]) -> AsyncGenerator[Any, None]:
        """The JSON of each event, up to `DONE`."""
        failed, waited, now = False, 0.0, asyncio.get_running_loop().time
        while True:
            started = now()
            try:
                async with asyncio.timeout(2 * self._patience - waited):
                    line = await anext(lines, None)
            except TimeoutError:
                raise self._silent() from None
            if line is None:
                return
            waited += now() - started
            if line.startswith(b"event:"):
                failed = line[6:].strip() == b"error"
            # Else a comment that keeps the connection alive, a name, an empty line. Some servers
            # write an error as bare JSON.
            data = line if line.startswith(b"{") else line.partition(b"data:")[2]
            data = data.strip() if line.startswith((b"{", b"data:")) else b""
            if not data:
                continue
            waited = 0.0
            if data == DONE.encode():
                yield DONE
                return
            if failed:
                error: Any = data.decode("utf-8", "replace")
                with suppress(ValueError, RecursionError):
                    error = json.loads(data)
                raise self._failed(error)
            yield self._read(data)

    def _read(self, data: bytes) -> Any:
        try:
            item = json.loads(data)
        except (ValueError, RecursionError) as error:
            words = self.quote_words(data[:2000].decode("utf-8", "replace"))
            raise EngineError(f"{self.host} sent what is not JSON{words}") from error
        if isinstance(item, dict):
            said, choices = _message(item), item.get("choices")
            places = [item, *choices] if isinstance(choices, list) else [item]
            for place in places:
                if isinstance(place, dict) and place.get("error"):
                    raise self._failed(place)
            if said and not item.keys() & {"choices", "data"}:
                raise self._failed(item)
        return item

    def _silent(self) -> EngineError:
        return EngineError(f"{self.host} sent nothing that counts for {2 * self._patience:g} s")

    def _failed(self, error: Any) -> Refused:
        """An error that came as an answer, or as an event of one."""
        said = self._mask(_message(error) or json.dumps(error))
        status = next(
            (
                int(found)
                for name in ("code", "status")
                if re.fullmatch("[0-9]{3}", found := _detail(error, name))
            ),
            0,
        )
        return Refused(
            f"{self.host} failed{self.quote_words(said)}", status, said, _detail(error, "param")
        )

    def _client(self) -> "httpx.AsyncClient":
        import httpx

        if self._tls is None:  # the certificates are read once
            if self._ca is None:
                self._tls = httpx.create_ssl_context()
            else:
                try:
                    self._tls = ssl.create_default_context(cafile=self._ca)
                except OSError as error:
                    raise HttpError(f"the certificates in {self._ca} can't be read") from error
        return httpx.AsyncClient(
            headers=self._headers,
            timeout=httpx.Timeout(
                connect=10.0, read=self._patience, write=self._patience, pool=None
            ),
            verify=self._tls,
            trust_env=urlsplit(self.base).hostname not in _LOOPBACK,
        )


def _from_environment(value: str) -> str:
    found = os.path.expandvars(str(value))
    if "$" in found:
        raise UsageError(f"no variable of the environment has the name in {found}")
    return found


def _mask(secrets: Iterable[str]) -> Callable[[str], str]:
    """The function that hides secrets, and the words in them, however a text spells them."""
    words = {word for secret in secrets for word in (secret, *secret.split())}
    ways = (str, quote, quote_plus, json.dumps, repr)
    spelled = {way(word).strip("\"'") for word in words for way in ways}
    hidden = sorted((each for each in spelled if len(each) >= _SHORTEST_SECRET), key=len)
    if not hidden:
        return str
    return partial(re.compile("|".join(map(re.escape, reversed(hidden)))).sub, "***")


def _detail(item: Any, name: str) -> str:
    """A field of an error, as text; empty where it has none."""
    error = item.get("error", item) if isinstance(item, dict) else None
    found = error.get(name) if isinstance(error, dict) else None
    return str(found) if isinstance(found, str | int) else ""


def _message(item: Any) -> str:
    """The sentence in an error, wherever servers put it; empty where there is none."""
    if isinstance(item, dict):
        names = ("error", "errors", "message", "detail", "msg")
        return next((said for name in names if (said := _message(item.get(name)))), "")
    if isinstance(item, list):  # with the places of the fields that are meant
        return json.dumps(item) if item else ""
    return item if isinstance(item, str) else ""
