"""verl's servers as an engine: token ids in, token ids and their log-probabilities out."""

from collections.abc import AsyncGenerator
from typing import Any, Literal, Protocol, TypeAlias

from ...rollout.engines.base import Chunk, EngineError, Request
from ...rollout.engines.stops import StopFinder
from ...rollout.tokenizer import Tokenizer
from ...rollout.trajectory import FinishReason

__all__ = ["Client", "Dialect", "VerlEngine"]

Dialect: TypeAlias = Literal["vllm", "sglang"]
"""Whose sampling parameters verl's server takes: it hands them on as they are."""
_CUT = ("length", "repetition")
"""What servers call a reply that was cut, which is the model's doing."""


class Client(Protocol):
    """The part we use of verl's LLMServerClient (verl 0.9.1, workers/rollout/llm_server.py)."""

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]
    ) -> Any:
        """A TokenOutput of verl's: `token_ids`, `log_probs`, `stop_reason`, `extra_fields`, ..."""
        ...


class VerlEngine:
    """Samples from verl's servers, for one episode.

    The server answers a request whole, so there is one chunk for each. A trajectory's requests go
    to the same server, which keeps its prefix cached. A request that is cancelled here runs on
    there to its end: verl has no way to stop one.
    """

    def __init__(
        self,
        client: Client,
        tokenizer: Tokenizer,
        *,
        name: str,
        context_length: int,
        dialect: Dialect = "vllm",
    ) -> None:
        self.name = name
        self.dialect: Dialect = dialect
        self.tokenizer = tokenizer
        self.context_length = context_length
        self._client = client
        self.first_step: int | None = None
        """verl's step of the oldest weights that drew a token."""
        self.last_step: int | None = None
        """... and of the newest."""
        self.preempted: int | None = None
        """How often vLLM put a request of ours back; None where it does not say."""

    async def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Sample one continuation; raises EngineError where the server fails or breaks off."""
        room = min(request.max_tokens, self.context_length - len(request.ids))
        if room < 1:
            yield Chunk((), (), finish=FinishReason.LENGTH)
            return
        try:
            output = await self._client.generate(
                request.context or "",
                prompt_ids=request.ids.tolist(),
                sampling_params=self._parameters(request, room),
            )
        except Exception as error:  # boundary: whatever Ray hands on from a server
            why = str(error).strip().rpartition("\n")[2]
            raise EngineError(f"verl's server failed: {type(error).__name__}: {why}") from error
        yield self._read(output, request, room)

    async def release(self, context: str) -> None:
        """Nothing is kept here: the server has its own cache."""

    async def aclose(self) -> None:
        """The servers are verl's."""

    def _parameters(self, request: Request, room: int) -> dict[str, Any]:
        """Keywords of SamplingParams in vLLM, or in SGLang (0.5.12: read in its source, not run).
        All that shapes the distribution is said; `logprobs` is verl's own word.
        """
        sampling = request.sampling
        parameters: dict[str, Any] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,
            "repetition_penalty": 1.0,
            "logprobs": True,
            "stop": list(request.stop),
            "stop_token_ids": sorted(self.tokenizer.eos_ids),
            "skip_special_tokens": False,
        }
        if self.dialect == "sglang":
            names = {"max_new_tokens": room, "no_stop_trim": True, "sampling_seed": sampling.seed}
        else:
            names = {
                "max_tokens": room, "include_stop_str_in_output": True, "seed": sampling.seed
            }  # fmt: skip
        return parameters | {name: value for name, value in names.items() if value is not None}

    def _read(self, output: Any, request: Request, room: int) -> Chunk:
        """Ends where we say so, be it that the server says more: it may check stop strings less
        often than once a token.
        """
        ids, logprobs = [int(id) for id in output.token_ids], output.log_probs
        if output.stop_reason in ("aborted", "abort"):
            raise EngineError("verl's server broke off in the middle of a request")
        if output.stop_reason not in (None, "completed", "stop", *_CUT):
            raise EngineError(f"verl's server ended a request with {output.stop_reason!r}")
        if logprobs is None or len(logprobs) != len(ids):
            raise EngineError(
                f"verl's server gave {len(ids)} tokens without their log-probabilities"
            )
        ids, finish = self._until_end(ids, request, room)
        if (
            finish is None
        ):  # it ended by a rule of its own: at an id that we don't know, or too soon
            finish = FinishReason.LENGTH if output.stop_reason in _CUT else FinishReason.EOS
        drawn = tuple(min(float(p), 0.0) for p in logprobs[: len(ids)])
        if request.sampling.temperature == 0:
            drawn = (0.0,) * len(ids)
        version = self._note(output)
        cached = int(output.extra_fields.get("num_cached_tokens") or 0)
        prefilled = len(request.ids) - cached
        return Chunk(tuple(ids), drawn, None, finish, version, prefilled, cached)

    def _until_end(
        self, ids: list[int], request: Request, room: int
    ) -> tuple[list[int], FinishReason | None]:
        finder = StopFinder(self.tokenizer, request.stop)
        for count, id in enumerate(ids, start=1):
            if id in self.tokenizer.eos_ids:
                return ids[:count], FinishReason.EOS
            if finder.push(id):
                return ids[:count], FinishReason.STOP
            if count == room:
                return ids[:count], FinishReason.LENGTH
        return ids, None

    def _note(self, output: Any) -> int:
        """The version of the weights at the dispatch, as verl counts: its global steps."""
        fields = output.extra_fields
        step = fields.get("global_steps")
        first, last = fields.get("min_global_steps", step), fields.get("max_global_steps", step)
        if first is not None:
            known = self.first_step
            self.first_step = int(first) if known is None else min(known, int(first))
        if last is not None:
            self.last_step = max(self.last_step or 0, int(last))
        if output.num_preempted is not None:
            self.preempted = (self.preempted or 0) + int(output.num_preempted)
        return 0 if first is None else int(first)
