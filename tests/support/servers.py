"""Real HTTP servers on this machine, as faulty as a test wants them."""

import asyncio
import json
import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from interlace.rollout.engines import Request, Sampling, TransformersEngine
from interlace.rollout.trajectory import FinishReason
from support.fakes import NANO


@dataclass
class Asked:
    """One request that came, and the way to answer it."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter

    @property
    def gone(self) -> bool:
        """Whether who asked has closed the connection."""
        return self._reader.at_eof() or self._writer.is_closing()

    async def json(self, body: Any, status: int = 200, **headers: str) -> None:
        await self.raw(json.dumps(body).encode(), "application/json", status, **headers)

    async def raw(self, body: bytes, kind: str, status: int = 200, **headers: str) -> None:
        self._head(status, kind, {**headers, "content-length": str(len(body))})
        self._writer.write(body)
        await self._writer.drain()

    async def events(
        self, events: Iterable[Any] | AsyncIterator[Any], *, cut: bool = False
    ) -> None:
        """Stream events; text and bytes as they are, anything else as JSON. `cut`: leave without an
        end.
        """
        self._head(200, "text/event-stream", {"transfer-encoding": "chunked"})
        if isinstance(events, AsyncIterator):
            async for event in events:
                await self._event(event)
        else:
            for event in events:
                await self._event(event)
        if cut:
            self._writer.close()
            return
        await self._event("data: [DONE]\n\n")
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()

    async def _event(self, event: Any) -> None:
        if not isinstance(event, bytes | str):
            event = f"data: {json.dumps(event)}\n\n"
        data = event.encode() if isinstance(event, str) else event
        self._writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await self._writer.drain()

    def _head(self, status: int, kind: str, headers: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} Status", f"content-type: {kind}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self._writer.write("\r\n".join([*lines, "", ""]).encode())


Handler: TypeAlias = Callable[[Asked], Awaitable[None]]


@dataclass
class Served:
    """A server that runs."""

    url: str
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0

    def at(self, path: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.path == path]


@asynccontextmanager
async def serving(handler: Handler, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Served]:
    """Answer requests until the end of the context."""
    served = Served("")
    busy: set[asyncio.Task[None]] = set()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        busy.add(task)
        served.connections += 1
        try:
            while not writer.is_closing():
                asked = await _read(reader, writer)
                served.asked.append(asked)
                await handler(asked)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            busy.discard(task)
            writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0, ssl=tls)
    served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield served
    finally:
        server.close()
        for task in list(busy):
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    length = int(headers.get("content-length", 0))
    body = json.loads(await reader.readexactly(length)) if length else None
    return Asked(method, path, headers, body, reader, writer)


class ExactServer:
    """The nano model behind vLLM's protocol for completions: ids in, ids and log-probabilities out.

    `processed`: its log-probabilities are those it samples with, not those at temperature 1.
    `cut_after`: the first stream breaks off after so many events.
    """

    def __init__(
        self, engine: TransformersEngine, *, processed: bool = False, cut_after: int | None = None
    ) -> None:
        self.engine = engine
        self.processed = processed
        self.cut_after = cut_after

    async def __call__(self, asked: Asked) -> None:
        if asked.path == "/v1/models":
            card = {"id": "tiny", "root": str(NANO), "max_model_len": self.engine.context_length}
            await asked.json({"object": "list", "data": [card]})
        elif not asked.body.get("stream"):
            await asked.json({"choices": [self._first_token(asked.body)]})
        else:
            cut, self.cut_after = self.cut_after, None
            await asked.events(self._stream(asked.body, cut), cut=cut is not None)

    def _first_token(self, body: dict[str, Any]) -> dict[str, Any]:
        import torch

        tokenizer, prompt = self.engine.tokenizer, body["prompt"]
        ids = tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        with torch.inference_mode():
            logits = _model()(torch.tensor([ids])).logits[0, -1]
        if self.processed:
            logits = logits / body["temperature"]
        values, tokens = logits.log_softmax(-1).topk(body["logprobs"])
        top = dict(zip([tokenizer.token(int(t)) for t in tokens], values.tolist(), strict=True))
        told = {"token_logprobs": [max(top.values())], "top_logprobs": [top]}
        return {
            "text": "",
            "finish_reason": "length",
            "prompt_token_ids": ids,
            "token_ids": [int(tokens[0])],
            "logprobs": told,
        }

    async def _stream(self, body: dict[str, Any], cut: int | None) -> AsyncIterator[dict[str, Any]]:
        sampling = Sampling(body["temperature"], body["top_p"], body["top_k"], body.get("seed"))
        ids = np.array(body["prompt"], np.int32)
        request = Request(ids, body["max_tokens"], sampling, tuple(body["stop"]))
        sent, cached, given = 0, 0, body["prompt"]
        ids_held, logprobs_held = list[int](), list[float]()
        async with aclosing(self.engine.generate(request)) as chunks:
            async for chunk in chunks:
                cached += chunk.cached
                raw = chunk.raw_logprobs or chunk.logprobs
                logprobs = chunk.logprobs if self.processed else raw
                # The first token at once, then as many to an event as were asked for.
                for at, (id, p) in enumerate(zip(chunk.ids, logprobs or (), strict=True)):
                    last = at == len(chunk.ids) - 1 and chunk.finish is not None
                    if cut is not None and sent == cut:
                        return
                    sent += 1
                    ids_held.append(id)
                    logprobs_held.append(max(p, -9999.0))
                    if not last and sent > 1 and len(ids_held) < body.get("stream_interval", 1):
                        continue
                    reason = "length" if chunk.finish is FinishReason.LENGTH else "stop"
                    choice: dict[str, Any] = {
                        "index": 0,
                        "text": "",
                        "token_ids": ids_held,
                        "logprobs": {"token_logprobs": logprobs_held},
                        "finish_reason": reason if last else None,
                    }
                    if sent == 1:
                        choice["prompt_token_ids"] = given
                    yield {"choices": [choice]}
                    ids_held, logprobs_held = [], []
        usage = {"prompt_tokens": len(ids), "prompt_tokens_details": {"cached_tokens": cached}}
        yield {"choices": [], "usage": usage}


@cache
def _model() -> Any:
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    return auto.from_pretrained(NANO).eval()


def delta(content: Any = None, finish: Any = None, **more: Any) -> dict[str, Any]:
    """One event of a streamed chat."""
    return {
        "choices": [{"index": 0, "delta": {"content": content, **more}, "finish_reason": finish}]
    }


def close(a: Iterable[float], b: Iterable[float]) -> bool:
    """Whether two runs of log-probabilities are one, up to the rounding of batched arithmetic."""
    return all(math.isclose(x, y, abs_tol=2e-4) for x, y in zip(a, b, strict=True))
