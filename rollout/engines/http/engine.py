"""A model behind an HTTP server that speaks OpenAI's protocol."""

import json
import logging
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from ....tools.errors import ModelError, UsageError
from ...tokenizer import Tokenizer
from ...trajectory import FinishReason
from ..base import Chunk, EngineError, Request
from ..stops import StopFinder
from .capabilities import ServerCapabilities, probe_server, served
from .chat import ChatReply, chat_tokenizer, to_chat
from .client import DONE, Refused, ServerClient, StreamCut, api_key, split_address

__all__ = ["HttpEngine", "served_models"]

_log = logging.getLogger(__name__)

_ENDED = {"stop", "tool_calls", "function_call", "eos", "eos_token", "stop_sequence", "end_turn"}
"""What servers call the end of a reply by the model's own doing."""
_CUT = {
    **dict.fromkeys(("length", "max_tokens", "model_length", "repetition"), FinishReason.LENGTH),
    "content_filter": FinishReason.FILTERED,
}
"""... and of one that was cut, which is the model's doing too. Any other reason (error, abort, one
that is new) is a failure of the server's."""
_LIMITS = ("max_tokens", "max_completion_tokens")
"""What servers call the limit of tokens."""
_NOT_TAKEN = re.compile(
    r"(?i)unsupported|\bun(known|recogni[sz]ed|expected)|\bextra|forbidden|deprecated|remove|"
    r"cannot (find|both)|(not|n't)( be)? (support|permitted|allowed|accept|recogni|valid)"
)
"""The words by which a server refuses a field itself, not its value."""
_NO_TOOLS = re.compile(r"(?i)\btools?\b|tool.choice|function.call")
_NO_SUPPORT = re.compile(rf"{_NOT_TAKEN.pattern}|requires? |enabled|\bno (endpoint|model|provider)")
"""The words by which a server, or its model, refuses tools."""
_NO_SYSTEM = re.compile(r"(?i)system.{0,9}\brole\b|\brole\b.{0,20}system")
_TOO_MUCH = re.compile(r"(?i)max_(completion_)?tokens|context.(length|window|size)")
"""The words by which a server says that prompt and limit together are more than it has room for."""
_LEAST_ROOM = 64
"""Tokens; a limit that is refused is halved down to about these."""
_CONTEXT_LENGTH = 32768
"""Where the server does not say."""
_BYTES_PER_TOKEN = 4
"""Of English text in the usual vocabularies; a Chinese character has 3 bytes and 0.6 tokens."""
_LONGEST_TOKEN = 128
"""Bytes: of spaces, say. A stream with more than so many for each token of its limit is endless."""
_IDS_PER_TOKEN = (1.0, 2.0, 6.0)
"""Ids of our notation per token of a model: the least, for English, the most."""


class HttpEngine:
    """Samples from a server. Build one with `HttpEngine.connect`.

    **Exact**, where the server takes token ids and gives back ids and log-probabilities (vLLM's
    does): it is asked, not told apart by its name. A stream that is cut off is resumed
    after the last token that came. `Chunk.logprobs` are those of the sampling distribution; where
    a server only gives those at temperature 1 and samples otherwise, there are none.

    **Text** otherwise: messages, the server's own tool calls, streamed. The ids in the ledger are
    then ours, not the model's: `Chunk.logprobs` is None, and a trajectory is not trainable. Only
    formats whose results are messages of their own (`hermes`) can be spoken. Tokens are counted by
    the server's `usage`, or estimated from the length of the text if it reports none.

    Weights change unseen on a server: `Chunk.version` is always 0.
    """

    def __init__(
        self,
        server: ServerClient,
        found: ServerCapabilities,
        name: str,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.exact = found.tokenizer is not None
        self.why = found.why
        """Why it is text only; empty where it is exact."""
        self.tokenizer = found.tokenizer or chat_tokenizer()
        self._server = server
        self._found = found
        self._options = dict(options or {})
        # What the server does not take: fields of a request, and `system`, the role.
        self._refused = {"tools"} if self._options.get("tools", ...) is None else set[str]()
        self._thought_field: str | None = None  # in which its thoughts come
        self._ids_per_token = 1.0 if self.exact else _IDS_PER_TOKEN[1]

    @classmethod
    async def connect(
        cls,
        address: str,
        *,
        tokenizer: Tokenizer | None = None,
        key: str | None = None,
        headers: dict[str, str] | None = None,
        query: dict[str, str] | None = None,
        ca: str | None = None,
        options: Mapping[str, Any] | None = None,
        patience: float = 300.0,
        tries: int = 5,
        pause: float = 0.5,
    ) -> "HttpEngine":
        """Ask a server what it can do. `address` is `http://host:8000/v1` or, where it serves
        several models, `http://host:8000/v1#name`.

        `tokenizer` is the model's own; without it, it is looked for where the server says that the
        model comes from: a folder or a Hugging Face id. `key` is read from the environment
        (`api_key`); `headers`, `query`, `ca`, `patience`, `tries` and `pause` are those of
        `ServerClient`. `options` are more fields of each request for a reply, such as
        `reasoning_effort`; None leaves a field out.

        Raises ModelError if the server does not answer, the model is not served, or the tokenizer
        is not the model's; UsageError for what is not an address.
        """
        base, wanted = split_address(address)
        try:
            json.dumps(options, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UsageError(f"the options can't be sent as JSON: {error}") from error
        key = key or api_key(base)
        server = ServerClient(
            base,
            key=key,
            headers=headers,
            query=query,
            ca=ca,
            patience=patience,
            tries=tries,
            pause=pause,
        )
        try:
            found = await probe_server(server, wanted, tokenizer)
        except EngineError as error:
            raise ModelError(str(error)) from error
        finally:  # connections belong to an event loop, which may be another one from here on
            await server.aclose()
        if found.tokenizer is not None and options:
            raise UsageError(
                f"{server.host} is sent token ids and all that shapes them: leave out the options "
                f"{', '.join(options)}"
            )
        return cls(server, found, address, options)

    @property
    def context_length(self) -> int:
        """The length of the context. In text mode, an estimate in ids of our notation, by which
        earlier messages are left out of a long conversation; the server decides on the rest.
        """
        return int((self._found.context_length or _CONTEXT_LENGTH) * self._ids_per_token)

    async def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Sample one continuation; raises EngineError where the server can't or won't."""
        room = min(request.max_tokens, self._found.context_length or _CONTEXT_LENGTH)
        if self.exact:
            room = min(room, self.context_length - len(request.ids))
        if room < 1:
            yield Chunk((), (), finish=FinishReason.LENGTH)
            return
        sampling = self._sample if self.exact else self._chat
        async with aclosing(sampling(request, room)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def release(self, context: str) -> None:
        """Nothing is kept here: a server has its own cache."""

    async def aclose(self) -> None:
        """Close the connections; requests in flight are cancelled."""
        await self._server.aclose()

    # -- exact ----------------------------------------------------------------------------------

    async def _sample(self, request: Request, room: int) -> AsyncGenerator[Chunk, None]:
        told: list[int] = []
        finder = StopFinder(self.tokenizer, request.stop)
        while True:
            before = len(told)
            try:
                body = self._body(request, told, room - len(told))
                reading = _Reading(self, request, finder, body["prompt"], room - len(told))
                async with aclosing(self._server.stream("/completions", body)) as events:
                    async for event in events:
                        chunk = reading.read(event)
                        if chunk is not None:
                            told += chunk.ids
                            yield chunk
                        if chunk is not None and chunk.finish is not None:
                            return
                yield reading.end()
                return
            except StreamCut:
                if reading.whole:
                    yield reading.end()
                    return
                # What came is exact, so the rest is asked for after it; unless nothing comes.
                if len(told) == before:
                    raise
                if len(told) == room:
                    yield Chunk((), (), finish=FinishReason.LENGTH)
                    return
                yield Chunk((), ())  # it waits again

    def _body(self, request: Request, told: list[int], room: int) -> dict[str, Any]:
        """A request for token ids. All that shapes the distribution is said, since a server may
        have defaults of its own.
        """
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self._found.model,
            "prompt": [*request.ids.tolist(), *told],
            "max_tokens": room,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "stop": list(request.stop),
            "stop_token_ids": sorted(self.tokenizer.eos_ids),
            "include_stop_str_in_output": True,
            "skip_special_tokens": False,
            "spaces_between_special_tokens": False,
            "return_token_ids": True,
            "logprobs": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if request.stream_interval > 1:  # an event a token costs both sides more than all the rest
            body["stream_interval"] = request.stream_interval
        if sampling.seed is not None:
            body["seed"] = sampling.seed + len(told)  # not the same draws again after a cut
        return body

    # -- text -----------------------------------------------------------------------------------

    async def _chat(self, request: Request, room: int) -> AsyncGenerator[Chunk, None]:
        if request.stop:
            raise EngineError(
                f"{self._server.host} speaks text only ({self.why}), in which tags can't be "
                "continued: use --format hermes"
            )
        reading = _ChatReading(self, request, room)
        try:
            async with aclosing(self._chat_events(request, room)) as events:
                async for event in events:
                    chunk = reading.read(event)
                    if chunk is not None:
                        yield chunk
                        if chunk.finish is not None:
                            return
        except StreamCut:
            if not reading.whole:
                raise
        yield reading.end()

    async def _chat_events(self, request: Request, room: int) -> AsyncGenerator[Any, None]:
        """The events of a reply, asked for without what the server refuses."""
        whole = False
        while True:
            body, begun = self._chat_body(request, room), False
            if whole:
                body = {k: v for k, v in body.items() if not k.startswith("stream")}
            try:
                async with aclosing(self._server.stream("/chat/completions", body)) as events:
                    async for event in events:
                        begun = True
                        yield event
                if begun or whole:
                    return
                whole = True  # nothing came: some servers say why in an answer alone
            except Refused as error:
                if begun:
                    raise
                if self._learn(error, body) or self._learn_messages(error, body):
                    continue
                ours = not self._options.keys() & set(_LIMITS)
                too_much = ours and not error.passing and _TOO_MUCH.search(error.text)
                if not too_much or room < 2 * _LEAST_ROOM:
                    raise self._advised(error, body) from error
                room //= 2

    def _learn_messages(self, refused: Refused, body: dict[str, Any]) -> bool:
        """Remember that a server, or its model, takes no tools, or no system message."""
        roles = {message["role"] for message in body["messages"]}
        if refused.status in (401, 403, 429) or not _NO_SUPPORT.search(refused.text):
            return False
        if "tools" in body.keys() - self._options.keys() and _NO_TOOLS.search(refused.text):
            what, told = "tools", f"tools: they are explained in the prompt instead ({refused})"
        elif "system" in roles and _NO_SYSTEM.search(refused.text):
            what, told = "system", "system message: it is put at the head of the question"
        else:
            return False
        if what not in self._refused:  # another request may have learnt it meanwhile
            self._refused.add(what)
            _log.warning("%s takes no %s", self._server.host, told)
        return True

    def _learn(self, refused: Refused, body: dict[str, Any]) -> bool:
        """Remember the field that a server refuses to take; False if it is about something else.

        A limit of tokens goes by two names, and is never left out.
        """
        sent = [*body, *(name for message in body["messages"] for name in message)]
        fixed = {"model", "messages", "stream", "tools"}
        fixed |= {"role", "content", "tool_calls", "tool_call_id"}
        optional = [name for name in sent if name not in fixed | self._options.keys()]
        named = (name for name in optional if re.search(rf"\b{name}\b", refused.text))
        name = refused.parameter if refused.parameter in optional else next(named, None)
        other = {name} ^ set(_LIMITS) if name in _LIMITS else set()
        if (
            refused.status not in (400, 422)
            or name is None
            or other & self._refused
            or not _NOT_TAKEN.search(refused.text)
        ):
            return False
        if name not in self._refused:  # another request may have learnt it meanwhile
            self._refused.add(name)
            instead = f"{min(other)} is sent instead" if other else "it is left out"
            _log.warning("%s does not take %s: %s", self._server.host, name, instead)
        return True

    def _advised(self, refused: Refused, body: dict[str, Any]) -> Refused:
        """The refusal, with what can be done about it."""
        advice = ""
        if "tool" in refused.text.lower() and "tools" in body:
            advice = ": --engine-option tools=null explains the tools in the prompt instead"
        elif self._found.listed and refused.status in (400, 404, 422):
            advice = f": it lists {self._found.listed}"
        return Refused(f"{refused}{advice}", refused.status, refused.text)

    def _chat_body(self, request: Request, room: int) -> dict[str, Any]:
        """A request for a reply. Beyond the least, only what was asked for is said: servers refuse
        what they don't know.
        """
        if request.conversation is None:
            raise EngineError(f"{self._server.host} takes messages, and the request has none")
        as_text = {"as_text": True} if "tools" in self._refused else {}
        conversation, sampling = request.conversation(**as_text), request.sampling
        if conversation.begun:
            raise EngineError(f"{self._server.host} can't go on with a reply that was broken off")
        limits = _LIMITS[::-1] if self._server.host.endswith("openai.com") else _LIMITS
        limit = next(name for name in limits if name not in self._refused)
        thoughts = self._thought_field
        messages = to_chat(conversation.messages, thoughts, system="system" not in self._refused)
        if thoughts in self._refused:
            messages = [{k: v for k, v in each.items() if k != thoughts} for each in messages]
        body: dict[str, Any] = {
            "model": self._found.model,
            "messages": messages,
            limit: room,
            "temperature": sampling.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if conversation.tools:
            body["tools"] = list(conversation.tools)
        if sampling.top_p != 1:
            body["top_p"] = sampling.top_p
        if sampling.top_k:
            body["top_k"] = sampling.top_k
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        body = {name: value for name, value in body.items() if name not in self._refused}
        if self._options.keys() & set(_LIMITS):
            del body[limit]
        body |= self._options
        return {name: value for name, value in body.items() if value is not None}


@dataclass(slots=True)
class _ChatReading:
    """Reads the events of one reply in text mode into chunks."""

    engine: HttpEngine
    request: Request
    room: int
    _reply: ChatReply = field(default_factory=ChatReply)
    _bytes: int = 0  # of what was said

    def read(self, event: Any) -> Chunk | None:
        """The text of an event, as ids of the ledger's notation. Raises EngineError."""
        host = self.engine._server.host
        try:
            text = self._reply.read(event)
        except (ValueError, RecursionError) as error:
            raise EngineError(f"{host} sent what is not a chat delta: {error}") from error
        self.engine._thought_field = self._reply.thought_field or self.engine._thought_field
        # The server was told its limit and knows its tokens: what came is kept. This only ends a
        # stream of one that does not heed it.
        came = self._bytes + self._reply.unsaid
        if not self.whole and came > _LONGEST_TOKEN * (self.room + 1000):
            return self._chunk(text, FinishReason.LENGTH)
        return self._chunk(text, None) if text else None

    @property
    def whole(self) -> bool:
        """True once the server has said that the reply is over."""
        return self._reply.finish is not None

    def end(self) -> Chunk:
        """The last chunk: the calls, and what the server says of its tokens. Raises StreamCut."""
        host, finish = self.engine._server.host, self._reply.finish
        if finish is None:
            odd = json.dumps(self._reply.unread) if self._reply.unread else ""
            words = self.engine._server.quote_words(odd)
            raise StreamCut(f"{host} broke off in the middle of a reply{words}")
        if finish in _CUT:
            return self._chunk("", _CUT[finish])
        if finish not in _ENDED:
            raise StreamCut(f"{host} ended a reply with {finish!r}")
        return self._chunk(self._reply.end(), FinishReason.EOS)

    def _chunk(self, text: str, finish: FinishReason | None) -> Chunk:
        tokenizer = self.engine.tokenizer
        self._bytes += len(text.encode("utf-8", "replace"))
        ids = tokenizer.encode(tokenizer.escape_control_tokens(text, special_only=True))
        if finish is FinishReason.EOS:
            ids.append(min(tokenizer.eos_ids))
        usage = self._reply.usage if finish is not None else {}
        counted, prefilled, cached, prompt = _counts(usage)
        if prompt:
            least, _, most = _IDS_PER_TOKEN
            ratio = len(self.request.ids) / prompt
            self.engine._ids_per_token = min(max(ratio, least), most)
        return Chunk(
            tuple(ids),
            None,
            finish=finish,
            prefilled=prefilled,
            cached=cached,
            counted=counted or -(-self._bytes // _BYTES_PER_TOKEN),
            estimated=not counted,
        )


def _counts(usage: dict[str, Any]) -> tuple[int, int, int, int]:
    """Tokens sampled, prompt tokens computed, cached, and in all; 0 for what is not told."""
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    names = ("completion_tokens", "prompt_tokens", "total_tokens")
    told = (*map(usage.get, names), cached)
    sampled, prompt, total, held = (each if type(each) is int and each > 0 else 0 for each in told)
    if sampled and prompt:  # some servers count hidden thoughts in the total alone
        sampled = max(sampled, total - prompt)
    return sampled, max(0, prompt - held) if cached is not None else 0, held, prompt


@dataclass(slots=True)
class _Reading:
    """Reads the events of one exact request into chunks."""

    engine: HttpEngine
    request: Request
    finder: StopFinder
    prompt: list[int]
    room: int
    _told: int = 0
    _finish: FinishReason | None = None
    _prefilled: int = 0
    _cached: int = 0
    _overshoot: int = 0

    def read(self, event: Any) -> Chunk | None:
        """The tokens of an event; its `finish` is set where the answer has to end here.

        Raises EngineError where it is not what was asked for.
        """
        if event == DONE:
            return None
        try:
            self._count(event.get("usage") or {})
            if not event.get("choices") or self._finish is not None:
                return None
            choice = event["choices"][0]
            given = choice.get("prompt_token_ids")
            if given is not None and given != self.prompt:
                raise EngineError(f"{self._host} did not take the context as it was sent")
            ids = [int(id) for id in choice.get("token_ids") or ()]
            logprobs = [float(p) for p in (choice.get("logprobs") or {}).get("token_logprobs", ())]
            reason = choice.get("finish_reason")
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise EngineError(f"{self._host} sent what is not a completion") from error
        if len(ids) != len(logprobs):
            raise EngineError(
                f"{self._host} sent {len(ids)} token ids with {len(logprobs)} log-probabilities"
            )
        return self._chunk(ids, logprobs, reason)

    @property
    def whole(self) -> bool:
        """True once the end has come."""
        return self._finish is not None

    def end(self) -> Chunk:
        """The last chunk, once the stream has ended. Raises StreamCut if its end is missing."""
        if self._finish is None:
            raise StreamCut(f"{self._host} broke off in the middle of an answer")
        counts = self._prefilled, self._cached, self._overshoot
        return Chunk((), (), None, self._finish, 0, *counts)

    @property
    def _host(self) -> str:
        return self.engine._server.host

    def _count(self, usage: dict[str, Any]) -> None:
        details = usage.get("prompt_tokens_details") or {}
        if details.get("cached_tokens") is not None:
            self._cached = int(details["cached_tokens"])
            self._prefilled = len(self.prompt) - self._cached

    def _chunk(self, ids: list[int], logprobs: list[float], reason: str | None) -> Chunk | None:
        """Ends where we say so, be it that the server says more: it may check stop strings less
        often than once a token.
        """
        early = None
        for count, id in enumerate(ids, start=1):
            if id in self.engine.tokenizer.eos_ids:
                early = FinishReason.EOS
            elif self.finder.push(id):
                early = FinishReason.STOP
            elif self._told + count == self.room:
                early = FinishReason.LENGTH
            if early is not None:
                self._overshoot = len(ids) - count
                ids, logprobs = ids[:count], logprobs[:count]
                break
        self._told += len(ids)
        if reason in _ENDED:
            self._finish = early or FinishReason.EOS
        elif reason in _CUT:
            self._finish = early or _CUT[reason]
        elif reason is not None:
            raise StreamCut(f"{self._host} ended an answer with {reason!r}")
        if not ids:
            return None
        drawn, raw = self._as_drawn(logprobs)
        if early is None or self._finish is not None:
            return Chunk(tuple(ids), drawn, raw)
        return Chunk(tuple(ids), drawn, raw, early, overshoot=self._overshoot)

    def _as_drawn(
        self, logprobs: list[float]
    ) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
        """Log-probabilities under the distribution that was sampled from, and at temperature 1."""
        sampling, given = self.request.sampling, tuple(min(p, 0.0) for p in logprobs)
        plain = sampling.top_p == 1 and not sampling.top_k
        raw = self.engine._found.raw_logprobs
        if sampling.temperature == 1 and plain:
            return given, None
        if sampling.temperature == 0:
            return (0.0,) * len(given), given if raw else None
        return (None, None) if raw else (given, None)


async def served_models(address: str) -> list[dict[str, Any]]:
    """List a server's models: the `id` of each, and `root` and `context_length` if reported.

    Raises ModelError if the server does not answer, UsageError for an invalid address.
    """
    base, wanted = split_address(address)
    if wanted is not None:
        raise UsageError(f"leave out #{wanted} to see what {base} serves")
    server = ServerClient(base, key=api_key(base), tries=2)
    try:
        return await served(server)
    except EngineError as error:
        raise ModelError(str(error)) from error
    finally:
        await server.aclose()
