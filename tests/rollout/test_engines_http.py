"""A model behind a server: exact where the server can, patient where it fails, never leaking a key.

Every server here is a real one on this machine.
"""

import asyncio
import json
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest
from support.fakes import NANO, Echo
from support.servers import Asked, ExactServer, Served, close, delta, serving

from interlace.rollout.engines import (
    Chunk,
    HttpEngine,
    Request,
    Sampling,
    TransformersEngine,
)
from interlace.rollout.formats import FORMATS
from interlace.rollout.limits import Limits
from interlace.rollout.loop import Rollout
from interlace.rollout.models.load import load_engine
from interlace.rollout.policy import Policy
from interlace.rollout.trajectory import FinishReason, StopReason, Trajectory
from interlace.tools.errors import ModelError, UsageError

SECRET = "sk-do-not-tell"
QUESTION = "A crate holds 4387 bolts. How many bolts are in 296 crates?"


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("INTERLACE_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    yield


@pytest.fixture(scope="module")
def behind() -> Iterator[TransformersEngine]:
    engine = TransformersEngine.load(NANO, device="cpu")
    yield engine
    asyncio.run(engine.aclose())


async def roll_out(engine: Any, *, format: str = "retool", **options: Any) -> Trajectory:
    limits = options.pop("limits", Limits(max_turns=4, max_tokens=300))
    policy = Policy(engine, FORMATS[format], [Echo()], limits=limits, **options)
    async with Rollout(policy, name="a", seed=3) as rollout:
        return await rollout.ask(QUESTION)


# -- exact --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut_after", [None, 7])
def test_an_exact_server_gives_the_very_ledger_of_the_engine_behind_it(
    behind: TransformersEngine, cut_after: int | None
) -> None:
    """Also where its first stream is cut off: it is taken up behind the last token that came."""

    async def go() -> None:
        front = ExactServer(behind, cut_after=cut_after)
        sampling = Sampling(temperature=0.0 if cut_after else 1.0)
        async with serving(front) as server:
            engine = await HttpEngine.connect(server.url, pause=0.01)
            assert engine.exact and engine.context_length == front.engine.context_length
            there = await roll_out(engine, sampling=sampling)
            await engine.aclose()
            requests = len(server.at("/v1/completions"))
            assert server.connections == (2 if cut_after is None else 3) < requests
        here = await roll_out(front.engine, sampling=sampling)
        assert there.token_exact and there.stop is here.stop
        assert there.ledger.ids.tolist() == here.ledger.ids.tolist()
        mask = here.ledger.response_mask
        assert there.ledger.response_mask.tolist() == mask.tolist()
        assert close(there.ledger.logprobs[mask], here.ledger.logprobs[mask])
        assert close(there.ledger.raw_logprobs[mask], here.ledger.raw_logprobs[mask])
        assert len(there.turns) > 1 and there.turns[0].prefilled > 0

    asyncio.run(go())


@pytest.mark.parametrize("processed", [False, True])
def test_what_a_servers_log_probabilities_mean_is_found_out(
    behind: TransformersEngine, processed: bool
) -> None:
    """At another temperature than 1 only those that were sampled with can be trained on."""

    async def go() -> None:
        front = ExactServer(behind, processed=processed)
        async with serving(front) as server:
            engine = await HttpEngine.connect(server.url)
            there = await roll_out(engine, sampling=Sampling(temperature=0.7))
            await engine.aclose()
        here = await roll_out(front.engine, sampling=Sampling(temperature=0.7))
        assert there.ledger.ids.tolist() == here.ledger.ids.tolist()
        assert there.token_exact is processed
        mask = here.ledger.response_mask
        if processed:
            assert close(there.ledger.logprobs[mask], here.ledger.logprobs[mask])
        else:
            assert not there.ledger.loss_weights.any()

    asyncio.run(go())


def test_the_end_is_where_we_say_not_where_the_server_looks(behind: TransformersEngine) -> None:
    """A server may check stop strings once in several tokens: what overshoots is not kept."""

    async def go() -> None:
        front = ExactServer(behind)
        tokenizer = front.engine.tokenizer
        said = tokenizer.encode("<code>1</code>\nand so on")

        async def handler(asked: Asked) -> None:
            if asked.body is None or not asked.body.get("stream"):
                return await front(asked)
            ids, told = said, {"token_logprobs": [-0.5] * len(said)}
            choice = {"token_ids": ids, "logprobs": told, "finish_reason": "stop"}
            await asked.events([{"choices": [choice]}])

        async with serving(handler) as server:
            engine = await HttpEngine.connect(server.url)
            chunks = await take(engine, Request(np.array([5, 6], np.int32), 50, stop=("</code>",)))
            await engine.aclose()
        kept = [id for chunk in chunks for id in chunk.ids]
        assert kept == said[: len(kept)]
        text = tokenizer.decode(kept)
        assert "</code>" in text and "</code>" not in tokenizer.decode(kept[:-1])
        assert chunks[-1].finish is FinishReason.STOP

    asyncio.run(go())


def test_a_server_that_cuts_text_otherwise_is_text_only_or_an_error(
    behind: TransformersEngine,
) -> None:
    async def go() -> None:
        front = ExactServer(behind)

        async def handler(asked: Asked) -> None:
            if asked.body is not None and asked.body["prompt"]:
                return await asked.json({"choices": [{"prompt_token_ids": [1], "token_ids": [2]}]})
            await front(asked)

        async with serving(handler) as server:
            engine = await HttpEngine.connect(server.url)
            assert not engine.exact and "other tokens" in engine.why
            with pytest.raises(ModelError, match="not the tokenizer of tiny"):
                await HttpEngine.connect(server.url, tokenizer=front.engine.tokenizer)

    asyncio.run(go())


# -- text ---------------------------------------------------------------------------------------


def test_text_mode_speaks_messages_and_native_tool_calls() -> None:
    """The ledger holds our notation; the server sees its own protocol."""

    async def handler(asked: Asked) -> None:
        if asked.path == "/v1/models":
            return await asked.json({"data": [{"id": "big"}]})
        if len(server_side(asked)) == 2:
            call = {"index": 0, "id": "x", "function": {"name": "python", "arguments": '{"co'}}
            more = {"index": 0, "function": {"arguments": 'de": "say 17"}'}}
            await asked.events(
                [
                    ": a comment\n\n",
                    delta(None, reasoning_content="I should "),
                    delta(None, reasoning_content="run it."),
                    delta("Let me "),
                    delta("see \U0001f642."),
                    delta(None, tool_calls=[call]),
                    delta(None, tool_calls=[more]),
                    delta(None, "tool_calls"),
                ]
            )
        else:
            await asked.events([delta("It is \\boxed{17}."), delta(None, "stop")])

    def server_side(asked: Asked) -> list[dict[str, Any]]:
        return list(asked.body["messages"])

    async def go() -> tuple[Trajectory, Served]:
        async with serving(handler) as server:
            engine = await HttpEngine.connect(server.url)
            trajectory = await roll_out(engine, format="hermes")
            await engine.aclose()
            return trajectory, server

    trajectory, server = asyncio.run(go())
    assert (trajectory.stop, trajectory.answer) == (StopReason.ANSWERED, "17")
    assert not trajectory.token_exact and not trajectory.ledger.loss_weights.any()
    assert trajectory.calls[0].arguments == {"code": "say 17"}
    first, second = (asked.body for asked in server.at("/v1/chat/completions"))
    assert [tool["function"]["name"] for tool in first["tools"]] == ["python"]
    assert [message["role"] for message in first["messages"]] == ["system", "user"]
    assert first["messages"][1]["content"] == QUESTION and "top_k" not in first
    reply, result = second["messages"][2:]
    assert reply["content"] == "Let me see \U0001f642."
    assert json.loads(reply["tool_calls"][0]["function"]["arguments"]) == {"code": "say 17"}
    assert result == {
        "role": "tool",
        "tool_call_id": reply["tool_calls"][0]["id"],
        "content": "17",
    }


def test_tags_can_not_be_spoken_in_text_mode() -> None:
    async def handler(asked: Asked) -> None:
        await asked.json({"data": [{"id": "big"}]})

    async def go() -> Trajectory:
        async with serving(handler) as server:
            engine = await HttpEngine.connect(server.url)
            return await roll_out(engine, format="retool")

    trajectory = asyncio.run(go())
    assert trajectory.stop is StopReason.INFRASTRUCTURE
    assert "use --format hermes" in (trajectory.error or "")


# -- asking -------------------------------------------------------------------------------------


def test_a_server_is_asked_what_it_serves() -> None:
    async def handler(asked: Asked) -> None:
        cards = [{"id": "one", "max_model_len": 99}, {"id": "two", "meta": {"n_ctx_train": 7}}]
        await asked.json({"data": cards})

    async def go() -> None:
        async with serving(handler) as server:
            with pytest.raises(ModelError, match=r"serves one, two: say which with http.*#NAME"):
                await HttpEngine.connect(server.url)
            engine = await HttpEngine.connect(server.url.removesuffix("/v1") + "#two")
            # A token of the model is about two ids of our notation.
            assert engine.context_length == 2 * 7 and engine.name.endswith("#two")
            # Inside of an event loop too, as a program may.
            named = await asyncio.to_thread(load_engine, server.url + "#one")
            assert named.context_length == 2 * 99

    asyncio.run(go())


def test_addresses_that_can_not_be_asked() -> None:
    async def connect(address: str) -> None:
        await HttpEngine.connect(address, tries=1)

    with pytest.raises(ModelError, match=r"127.0.0.1:9 can't be reached .*is the server running"):
        asyncio.run(connect("http://127.0.0.1:9/v1"))
    for address in ("ftp://host/v1", "http:///v1", "http://host:port/v1"):
        with pytest.raises(UsageError):
            asyncio.run(connect(address))
    for address in (f"http://me:{SECRET}@host/v1", f"https://host/v1?api-key={SECRET}"):
        with pytest.raises(UsageError, match="INTERLACE_API_KEY") as caught:
            asyncio.run(connect(address))
        assert SECRET not in str(caught.value)


async def take(engine: HttpEngine | TransformersEngine, request: Request) -> list[Chunk]:
    async with aclosing(engine.generate(request)) as chunks:
        return [chunk async for chunk in chunks]
