"""A server that fails: patience where it helps, one sentence where it does not, and no key told.

Every server here is a real one on this machine.
"""

import asyncio
import json
import logging
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from support.fakes import Echo
from support.servers import Asked, Served, delta, serving

from interlace import Agent
from interlace.rollout.engines import Chunk, EngineError, HttpEngine, Request
from interlace.rollout.episode_log import EpisodeLog
from interlace.rollout.formats import FORMATS, ChatContext, Message
from interlace.rollout.limits import Limits
from interlace.rollout.loop import Rollout
from interlace.rollout.policy import Policy
from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode, FinishReason, StopReason, Trajectory
from interlace.tools.errors import UsageError

SECRET = "sk-do-not-tell"
QUESTION = "A crate holds 4387 bolts. How many bolts are in 296 crates?"


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("INTERLACE_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    yield


async def roll_out(engine: HttpEngine, limits: Limits | None = None) -> Trajectory:
    policy = Policy(engine, FORMATS["hermes"], [Echo()], limits=limits)
    async with Rollout(policy, name="a", seed=3) as rollout:
        return await rollout.ask(QUESTION)


async def take(engine: HttpEngine, request: Request) -> list[Chunk]:
    async with aclosing(engine.generate(request)) as chunks:
        return [chunk async for chunk in chunks]


class Faulty:
    """A text server that answers `faults` first, one a request, and is well from then on."""

    def __init__(self, *faults: Any) -> None:
        self.faults = list(faults)
        self.dripped, self.told = asyncio.Event(), asyncio.Event()

    async def __call__(self, asked: Asked) -> None:
        if asked.path == "/v1/models":
            return await asked.json({"data": [{"id": "big"}]})
        fault = self.faults.pop(0) if self.faults else "well"
        if isinstance(fault, int):
            body = {"error": {"message": f"no: {asked.headers.get('authorization', '')}"}}
            await asked.json(body, fault, retry_after="0")
        elif fault == "html":
            await asked.raw(b"<html>proxy</html>", "text/html")
        elif fault == "not json":
            await asked.events([delta("A"), "data: {oops\n\n"])
        elif fault == "drip":
            await asked.events(self._drip(asked))
        elif isinstance(fault, str) and fault.startswith("ends with "):
            reason = fault.removeprefix("ends with ")
            await asked.events([delta("It is \\boxed{17}."), delta(None, reason)])
        elif fault == "error event":
            await asked.events([delta("A"), {"error": {"message": "out of memory"}}])
        else:
            text = [delta("It is \\boxed{17}."), delta(None, "stop")]
            await asked.events(text[: 1 if fault == "cut" else 2], cut=fault == "cut")

    async def _drip(self, asked: Asked) -> AsyncIterator[dict[str, Any]]:
        for drop in range(10**6):
            if asked.gone:
                break
            yield delta("a ")
            await asyncio.sleep(0.01)
            if drop == 20:
                self.dripped.set()
        self.told.set()


async def ask(faulty: Faulty, limits: Limits | None = None) -> tuple[Trajectory, Served]:
    async with serving(faulty) as server:
        engine = await HttpEngine.connect(server.url, pause=0.001, tries=5)
        trajectory = await roll_out(engine, limits)
        await engine.aclose()
        return trajectory, server


@pytest.mark.parametrize("faults", [[429] * 4, [500], [503, 429, 502]])
def test_what_passes_is_waited_for(faults: list[int]) -> None:
    trajectory, server = asyncio.run(ask(Faulty(*faults)))
    assert trajectory.answer == "17"
    assert len(server.at("/v1/chat/completions")) == len(faults) + 1


@pytest.mark.parametrize(
    ("fault", "requests", "says"),
    [
        (429, 5, "failed 5 times"),
        (400, 1, "refused the request"),
        (401, 1, "refused the key"),
        (404, 1, "refused the request"),
        ("not json", 1, "not JSON"),
        ("html", 1, "not JSON"),
        ("cut", 1, "broke off"),
        ("error event", 1, "out of memory"),
        ("ends with error", 1, "ended a reply with 'error'"),
        ("ends with abort", 1, "ended a reply with 'abort'"),
        ("ends with insufficient_system_resource", 1, "insufficient_system_resource"),
    ],
)
def test_what_does_not_pass_ends_the_trajectory_with_one_sentence(
    fault: Any, requests: int, says: str
) -> None:
    trajectory, server = asyncio.run(ask(Faulty(*[fault] * 9)))
    assert trajectory.stop is StopReason.INFRASTRUCTURE
    assert says in (trajectory.error or "")
    assert len(server.at("/v1/chat/completions")) == requests


def test_what_a_filter_cut_is_no_answer_and_no_reason_for_a_new_try() -> None:
    """It is what the model said: by a new try on demand a model could choose its attempts."""
    trajectory, server = asyncio.run(ask(Faulty("ends with content_filter")))
    assert (trajectory.stop, trajectory.answer) == (StopReason.ENDED, None)
    assert trajectory.turns[-1].finish is FinishReason.FILTERED
    assert len(server.at("/v1/chat/completions")) == 1


def test_whoever_is_cancelled_keeps_what_came_and_the_server_is_told() -> None:
    faulty = Faulty("drip")

    async def go() -> Trajectory:
        async with serving(faulty) as server:
            engine = await HttpEngine.connect(server.url)
            policy = Policy(engine, FORMATS["hermes"], [Echo()])
            async with Rollout(policy, name="a") as rollout:
                asking = asyncio.create_task(rollout.ask(QUESTION))
                await faulty.dripped.wait()
                asking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asking
                await faulty.told.wait()  # before the engine is closed
            await engine.aclose()
            return rollout.trajectory

    trajectory = asyncio.run(go())
    assert trajectory.stop is StopReason.CANCELLED
    assert trajectory.sampled_tokens > 0


def test_a_silent_server_is_given_up_after_its_patience() -> None:
    async def handler(asked: Asked) -> None:
        if asked.path == "/v1/models":
            return await asked.json({"data": [{"id": "big"}]})
        await asyncio.sleep(3600)

    async def go() -> None:
        async with serving(handler) as server:
            engine = await HttpEngine.connect(server.url, patience=0.1, tries=2, pause=0.001)
            asked = ChatContext((Message("user", "Hi"),))
            request = Request(np.array([1], np.int32), 10, conversation=lambda: asked)
            with pytest.raises(EngineError, match="ReadTimeout"):
                await take(engine, request)
            assert len(server.at("/v1/chat/completions")) == 2
            await engine.aclose()

    asyncio.run(go())


def test_a_key_is_sent_and_told_to_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in errors (a server may repeat it), records or logs; OpenAI's only goes to OpenAI."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another")
    caplog.set_level(logging.DEBUG)

    async def go() -> tuple[Trajectory, Served]:
        async with serving(Faulty(400)) as server:
            engine = await HttpEngine.connect(server.url)
            ended = await roll_out(engine)
            await engine.aclose()
            return ended, server

    _, server = asyncio.run(go())
    assert all("authorization" not in asked.headers for asked in server.asked)
    monkeypatch.setenv("INTERLACE_API_KEY", SECRET)
    trajectory, server = asyncio.run(go())
    assert all(asked.headers["authorization"] == f"bearer {SECRET}" for asked in server.asked)
    assert "***" in (trajectory.error or "")
    with EpisodeLog(tmp_path / "log.jsonl") as log:
        log.append(Episode("a", Task("a", QUESTION), "a", 0, [trajectory]))
    for place in (trajectory.error or "", (tmp_path / "log.jsonl").read_text(), caplog.text):
        assert SECRET not in place


SPELLED = 'sk/do+not"tell'
"""A key that addresses, JSON and Python each spell in a way of their own."""


@pytest.mark.parametrize("place", ["key", "headers", "query"])
def test_a_secret_is_masked_however_a_server_or_a_log_spells_it(
    place: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As the word that it is, also of a header that says more; in JSON, in addresses; in httpx's
    log; and in all that a traceback shows of the error.
    """
    caplog.set_level(logging.DEBUG)
    ways = [SPELLED, json.dumps(SPELLED), repr(SPELLED), quote(SPELLED, safe=""), quote(SPELLED)]
    given: dict[str, Any] = {
        "key": SPELLED,
        "headers": {"X-Auth": f"Token {SPELLED}"},
        "query": {"code": SPELLED},
    }

    async def handler(asked: Asked) -> None:
        if asked.path.startswith("/v1/models"):
            return await asked.json({"data": [{"id": "big"}]})
        said = " ".join(ways)
        if asked.body["messages"][-1]["content"] == "stream":
            return await asked.events([delta("A"), {"error": {"message": said, "code": 500}}])
        await asked.json({"error": {"message": said, "detail": asked.headers}}, 400)

    async def go() -> list[str]:
        async with serving(handler) as server:
            engine = await HttpEngine.connect(server.url, **{place: given[place]})
            shown = []
            for question in ("stream", "status"):
                asked = ChatContext((Message("user", question),))
                request = Request(np.array([1], np.int32), 10, conversation=lambda c=asked: c)
                with pytest.raises(EngineError) as caught:
                    await take(engine, request)
                shown += traceback.format_exception(caught.value)
                assert "***" in str(caught.value)
                shown.append(str(vars(caught.value)))
            await engine.aclose()
            return shown

    text = "\n".join([*asyncio.run(go()), caplog.text])
    assert place != "query" or "/v1/models?code=*** " in caplog.text
    assert all(way not in text for way in ways) and "not tell" not in text


def test_an_address_with_a_key_in_it_is_refused_before_anything_shows_it() -> None:
    for address in (f"http://me:{SECRET}@host/v1", f"http://host/v1?key={SECRET}"):
        with pytest.raises(UsageError, match="leave the key") as caught:
            Agent(address)
        assert SECRET not in str(caught.value)


def test_a_key_from_a_file_with_its_line_feed_is_a_key_and_a_broken_one_is_refused_unseen() -> None:
    async def go() -> None:
        async with serving(Faulty("error event")) as server:
            engine = await HttpEngine.connect(server.url, key=f"{SECRET}\n")
            assert server.asked[0].headers["authorization"] == f"bearer {SECRET}"
            await engine.aclose()
            for broken in (f"{SECRET}\r\nX: y", f"{SECRET}\u00e4"):
                with pytest.raises(UsageError, match="the key for 127") as caught:
                    await HttpEngine.connect(server.url, key=broken)
                assert SECRET not in str(caught.value)

    asyncio.run(go())


def test_a_word_that_stands_in_for_a_key_is_not_cut_out_of_messages() -> None:
    async def go() -> str:
        async with serving(Faulty("error event")) as server:
            engine = await HttpEngine.connect(server.url, key="m")
            trajectory = await roll_out(engine)
            await engine.aclose()
            return str(trajectory.error)

    assert "out of memory" in asyncio.run(go())
