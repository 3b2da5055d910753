"""Engines without a model: finding stops, a script, a recording played again."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny_models import byte_tokenizer

from interlace.rollout.engines import (
    Chunk,
    Engine,
    EngineError,
    ReplayEngine,
    Request,
    Sampling,
    ScriptedEngine,
    StopFinder,
)
from interlace.rollout.engines.stops import completing_ids
from interlace.rollout.ledger import Ledger, Source, Span
from interlace.rollout.task import Task
from interlace.rollout.tokenizer import Tokenizer
from interlace.rollout.trajectory import Episode, FinishReason, Trajectory, Turn


@pytest.fixture(scope="module")
def bytewise(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """One token a byte."""
    return byte_tokenizer(tmp_path_factory.mktemp("bytes"))


@pytest.fixture(scope="module")
def merging(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Tokens across the end of a tag: `>` with a line feed, `>` with the first byte of an arrow."""
    return byte_tokenizer(tmp_path_factory.mktemp("merging"), [(">", "Ċ"), (">", "â")])


@settings(deadline=None)
@given(
    text=st.text(alphabet="ab</code>\né→🙂", max_size=40),
    stops=st.lists(st.sampled_from(["</code>", ">", "</c", "e>\n"]), min_size=1, max_size=3),
)
def test_every_token_that_completes_a_stop_is_among_those_that_may(
    merging: Tokenizer, text: str, stops: list[str]
) -> None:
    may = completing_ids(merging, stops)
    assert may is not None and len(may) < len(merging)
    finder = StopFinder(merging, stops)
    for id in merging.encode(text):
        if finder.push(id):
            assert id in may
            break
    assert completing_ids(merging, ["→"]) is None
    assert completing_ids(merging, []) == []


def ask(engine: Engine, ids: list[int], max_tokens: int = 1000, **rest: Any) -> list[Chunk]:
    async def drain() -> list[Chunk]:
        return [chunk async for chunk in engine.generate(request)]

    request = Request(np.array(ids, np.int32), max_tokens, **rest)
    return asyncio.run(drain())


def ids_of(chunks: list[Chunk]) -> list[int]:
    return [id for chunk in chunks for id in chunk.ids]


def first_stop(tokenizer: Tokenizer, ids: list[int], *stops: str) -> int | None:
    finder = StopFinder(tokenizer, stops)
    return next((count for count, id in enumerate(ids, start=1) if finder.push(id)), None)


@given(
    text=st.text(alphabet="ab</code>é→🙂", max_size=30),
    stop=st.sampled_from(["</code>", "b", "→a", "🙂", "<<"]),
)
def test_a_stop_is_found_at_the_byte_that_completes_it(
    bytewise: Tokenizer, text: str, stop: str
) -> None:
    at = text.encode().find(stop.encode())
    expected = None if at < 0 else at + len(stop.encode())
    assert first_stop(bytewise, bytewise.encode(text), stop, "never") == expected


def test_a_stop_is_found_in_a_token_that_ends_in_half_a_character(merging: Tokenizer) -> None:
    ids = merging.encode("a</code>→b")
    assert len(ids) == len("a</code>→b".encode()) - 1
    assert first_stop(merging, ids, "</code>") == len("a</code>")


def test_a_script_pauses_after_the_token_that_completes_a_stop(merging: Tokenizer) -> None:
    engine = ScriptedEngine(merging, ["a</code>\nb"])
    chunks = ask(engine, [1], stop=("</code>",))
    assert merging.decode(ids_of(chunks)) == "a</code>\n"
    assert [chunk.finish for chunk in chunks] == [None, FinishReason.STOP]


def test_a_script_goes_on_where_it_paused_and_starts_the_next_reply_otherwise(
    bytewise: Tokenizer,
) -> None:
    engine = ScriptedEngine(bytewise, ["one;two;three", "other"])
    prompt = bytewise.encode("?")
    first = prompt + ids_of(ask(engine, prompt, stop=(";",), context="t"))
    second = first + ids_of(ask(engine, first, stop=(";",), context="t"))
    assert bytewise.decode(second) == "?one;two;"
    answered = second + bytewise.encode("[4]")
    last = ask(engine, answered, stop=(";",), context="t")
    (eos,) = bytewise.eos_ids
    assert ids_of(last) == [*bytewise.encode("other"), eos]
    assert last[-1].finish is FinishReason.EOS
    with pytest.raises(EngineError, match="used up"):
        ask(engine, prompt)


def test_a_script_closed_halfway_goes_on_with_what_was_not_given_out(bytewise: Tokenizer) -> None:
    engine = ScriptedEngine(bytewise, ["abcdefgh"], chunk=3)

    async def one_chunk() -> list[int]:
        stream = engine.generate(Request(np.array([1], np.int32), 100))
        chunk = await anext(stream)
        await stream.aclose()
        return list(chunk.ids)

    begun = asyncio.run(one_chunk())
    assert bytewise.decode(begun + ids_of(ask(engine, [1, *begun]))).startswith("abcdefgh")


def test_a_script_serves_many_and_raises_what_it_says(bytewise: Tokenizer) -> None:
    def script(request: Request) -> str | Exception:
        text = bytewise.decode(request.ids)
        return EngineError("a fault") if text == "bad" else text.upper()

    engine = ScriptedEngine(bytewise, script, context_length=8)
    assert bytewise.decode(ids_of(ask(engine, bytewise.encode("good")))[:4]) == "GOOD"
    with pytest.raises(EngineError, match="a fault"):
        ask(engine, bytewise.encode("bad"))
    (full,) = ask(engine, bytewise.encode("eight..."))
    assert (full.ids, full.finish) == ((), FinishReason.LENGTH)


def test_made_up_logprobs_fit_a_ledger(bytewise: Tokenizer) -> None:
    for temperature in (0.0, 1.0):
        (chunk,) = ask(
            ScriptedEngine(bytewise, ["abc"], chunk=9),
            [1],
            sampling=Sampling(temperature=temperature),
        )
        span = Span.policy(chunk.ids, logprobs=chunk.logprobs, raw_logprobs=chunk.raw_logprobs)
        assert span.logprobs is not None
        assert (span.logprobs == 0).all() == (temperature == 0)


def episode(tokenizer: Tokenizer, id: str, *ledgers: list[str]) -> Episode:
    """Texts from prompt, policy, tool, policy, ... in turn; a new question for each ledger."""
    trajectory = Trajectory(model="recorded", format="retool")
    random = np.random.default_rng(len(id))
    for number, texts in enumerate(ledgers):
        ledger = Ledger()
        for at, text in enumerate(texts):
            ids = tokenizer.encode(text)
            if at % 2 == 0:
                source = Source.TOOL if at else Source.PROMPT
                ledger.append(Span.given(source, ids))
                continue
            finish = FinishReason.STOP if text.endswith(";") else FinishReason.LENGTH
            end = len(ledger) + len(ids)
            trajectory.turns.append(Turn(number, len(ledger), end, finish))
            ledger.append(
                Span.policy(
                    ids,
                    logprobs=-random.random(len(ids), np.float32),
                    raw_logprobs=-random.random(len(ids), np.float32),
                    version=at,
                )
            )
        trajectory.ledgers.append(ledger)
    return Episode(id, Task("t", "?"), "t", 0, [trajectory])


def policy_spans(engine: Engine, ledger: Ledger, context: str) -> Iterator[tuple[Span, Span]]:
    """Each recorded policy span, and the one that the engine gives for its context."""
    at = 0
    for span in ledger:
        if span.source is Source.POLICY:
            chunks = ask(engine, ledger.ids[:at].tolist(), stop=(";",), context=context)
            yield (
                span,
                Span.policy(
                    ids_of(chunks),
                    logprobs=[x for chunk in chunks for x in chunk.logprobs or ()],
                    raw_logprobs=[x for chunk in chunks for x in chunk.raw_logprobs or ()],
                    version=chunks[0].version,
                ),
            )
        at += len(span)


def test_a_replay_gives_back_the_recorded_spans_of_every_turn_and_ledger(
    bytewise: Tokenizer,
) -> None:
    recorded = [
        episode(bytewise, "a", ["?", "x=1;", "[1]", "y=2;", "[2]", "three"], ["? again", "four;"]),
        episode(bytewise, "bb", ["?", "z=1;", "[9]", "nine"]),
    ]
    engine = ReplayEngine(recorded, bytewise)
    assert engine.name == "recorded"
    for one in recorded:
        for ledger in one.trajectory.ledgers:
            for span, again in policy_spans(engine, ledger, context=one.id):
                assert span == again


def test_the_samples_of_a_group_are_replayed_each_once(bytewise: Tokenizer) -> None:
    group = [episode(bytewise, str(n), ["?", f"try {n};", "[]", f"end {n}"]) for n in range(3)]
    engine = ReplayEngine(group, bytewise)
    prompt = bytewise.encode("?")
    begun = [bytewise.decode(ids_of(ask(engine, prompt, context=f"c{n}"))) for n in range(3)]
    assert begun == ["try 0;", "try 1;", "try 2;"]


def test_a_replay_pauses_at_a_false_alarm_and_goes_on(bytewise: Tokenizer) -> None:
    engine = ReplayEngine([episode(bytewise, "a", ["?", "x=';';"])], bytewise)
    prompt = bytewise.encode("?")
    first = ask(engine, prompt, stop=(";",))
    assert bytewise.decode(ids_of(first)) == "x=';"
    second = ask(engine, prompt + ids_of(first), stop=(";",))
    assert (bytewise.decode(ids_of(second)), second[-1].finish) == ("';", FinishReason.STOP)


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ("?x=1;[7]", r"at token 6: '1' is recorded, '7' was asked for"),
        ("?x=1;", r"the tool goes on, not the policy"),
        ("?x=1;[1]end", r"ends with this context"),
        ("?x=1;[1]end?", r"at token 11: the recording ends, '\?' was asked for"),
    ],
)
def test_a_replay_says_where_a_context_departs(
    bytewise: Tokenizer, context: str, message: str
) -> None:
    engine = ReplayEngine([episode(bytewise, "ep", ["?", "x=1;", "[1]", "end"])], bytewise)
    with pytest.raises(EngineError, match=message):
        ask(engine, bytewise.encode(context))


def test_a_recording_without_a_ledger_is_refused(bytewise: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to replay"):
        ReplayEngine([], bytewise)
