"""What verl is given is the ledger: every format and tool, over a client that an engine plays."""

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.fakes import NANO, answer, code
from support.verl_client import BrokenClient, EngineClient

from interlace.rollout.engines import Request, Sampling, TransformersEngine
from interlace.rollout.engines.base import Chunk
from interlace.rollout.engines.scripted import Reply, ScriptedEngine
from interlace.rollout.episode_log import read_episodes
from interlace.rollout.formats import FORMATS, Message
from interlace.rollout.formats.sample import sample_of
from interlace.rollout.limits import Limits
from interlace.rollout.many.runner import Runner
from interlace.rollout.policy import Policy
from interlace.rollout.task import Task
from interlace.rollout.tokenizer import Tokenizer
from interlace.rollout.trajectory import Episode, FinishReason, StopReason
from interlace.tools.errors import DataError, UsageError
from interlace.train.data.sources import find_tasks
from interlace.train.data.task_tools import TaskTools
from interlace.train.verl.engine import Client, VerlEngine
from interlace.train.verl.response import Response, to_responses
from interlace.train.verl.settings import LoopSettings, read_settings
from interlace.train.verl.worker import (
    EpisodeSkipped,
    Lengths,
    LoopWorker,
    ScoredEpisode,
    VerlAttempt,
)

TOKENIZER = Tokenizer.load(NANO)
LENGTHS = Lengths(prompt=8000, response=2000, context=20_000)
BOLTS = Task("bolts", "A crate holds 4387 bolts. How many bolts are in 296 crates?", "1298552")


def settings(format: str = "retool", **changes: Any) -> LoopSettings:
    return LoopSettings(format=format, **{"tools": ["python"], "retries": 0, **changes})


def scripted(script: Sequence[Reply], **options: Any) -> EngineClient:
    return EngineClient(ScriptedEngine(TOKENIZER, script), **options)


def roll(
    client: Client, given: LoopSettings, *attempts: VerlAttempt, lengths: Lengths = LENGTHS
) -> list[ScoredEpisode]:
    async def go() -> list[ScoredEpisode]:
        worker = LoopWorker(given, client, TOKENIZER, name="nano", lengths=lengths)
        async with worker:
            return list(await asyncio.gather(*map(worker.roll_out, attempts)))

    return asyncio.run(go())


def one(client: Client, given: LoopSettings, task: Task = BOLTS) -> tuple[Episode, Response]:
    (rolled,) = roll(client, given, VerlAttempt(task))
    (response,) = to_responses(rolled, without_void_turns=given.without_void_turns)
    return rolled.episode, response


ONES_OWN = '''
import contextlib, io

def python(code: str) -> str:
    """Runs Python code; what it prints comes back."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(code)
    return said.getvalue()
'''


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """The tool that each format's sample calls. One sandbox is enough: it is slow to start."""
    with sqlite3.connect(tmp_path / "singers.db") as database:
        database.execute("CREATE TABLE singer (name TEXT, age INTEGER)")
        database.executemany("INSERT INTO singer VALUES (?, ?)", [("a", 28), ("b", 41), ("c", 35)])
    database.close()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "towers.txt").write_text("The tallest tower stands in the city of Dubai.")
    (tmp_path / "mine.py").write_text(ONES_OWN)
    tools = dict.fromkeys(FORMATS, f"{tmp_path}/mine.py:python") | {"retool": "python"}
    tools["reex_sql"] = f"sql:{tmp_path / 'singers.db'}"
    tools["search_r1"] = f"search:{tmp_path / 'texts'}"
    return tools


@pytest.mark.parametrize("format", FORMATS)
def test_prompt_response_mask_and_logprobs_are_the_ledgers(
    format: str, places: dict[str, str]
) -> None:
    sample = sample_of(FORMATS[format])
    client = scripted(sample.said, steps=[6, 7])
    data = {"checker": "em"} if format == "search_r1" else {}
    task = Task("sample", sample.question, "1298552", data)
    episode, response = one(client, settings(format, tools=[places[format]]), task)
    trajectory, ledger = episode.trajectory, episode.trajectory.ledger
    assert [call.error for call in trajectory.calls] == [None]
    assert trajectory.stop is StopReason.ANSWERED
    whole = response.prompt_ids + response.response_ids
    assert whole == ledger.ids.tolist()
    assert response.response_mask == ledger.response_mask[ledger.prompt_length :].tolist()
    for id, mask, logprob, drawn in zip(
        response.response_ids,
        response.response_mask,
        response.response_logprobs,
        ledger.logprobs[ledger.prompt_length :].tolist(),
        strict=True,
    ):
        assert logprob == (drawn if mask else 0.0), id
    assert response.response_mask[-1] == 1
    # The server was sent the ledger's own tokens, under one name, from turn to turn.
    assert [prompt == whole[: len(prompt)] for prompt in client.prompts] == [True, True]
    assert len({name for name, _ in client.asked}) == 1
    assert (response.num_turns, response.reward_score) == (4, episode.rewards["total"])
    extra = response.extra_fields
    assert (extra["min_global_steps"], extra["max_global_steps"]) == (6, 7)
    assert [turn["calls"] for turn in extra["interlace"]["turns"]] == [1, 0]
    assert [tool["calls"] for tool in extra["interlace"]["tools"].values()] == [1]
    assert extra["reward_extra_info"]["calls"] == 1.0


@pytest.mark.parametrize(
    ("family", "format", "named"),
    [
        ("arithmetic", "retool", None),
        ("database", "reex_sql", ["sql@rows=2"]),
        ("lookup", "search_r1", None),
    ],
)
def test_a_model_does_over_verls_client_what_it_does_without(
    family: str, format: str, named: list[str] | None
) -> None:
    tasks = find_tasks(f"{family}:test:3")
    engine = TransformersEngine.load(NANO, device="cpu", max_batch=1)
    limits = Limits(max_turns=8, max_calls=8, max_tokens=LENGTHS.response)
    policy = Policy(engine, FORMATS[format], limits=limits).with_sampling(temperature=0.0)

    async def directly() -> list[Episode]:
        async with TaskTools(sql=named[0] if named else "sql") as tools:
            runner = Runner(policy, tools_for=tools, concurrency=1)
            return [episode async for episode in runner.run(tasks)]

    async def over_verl() -> list[ScoredEpisode]:
        given = settings(format, tools=named)
        greedy = policy.sampling
        client = EngineClient(engine)
        async with LoopWorker(given, client, TOKENIZER, name="nano", lengths=LENGTHS) as worker:
            return [await worker.roll_out(VerlAttempt(task, sampling=greedy)) for task in tasks]

    plain = asyncio.run(directly())
    rolled = asyncio.run(over_verl())
    asyncio.run(engine.aclose())
    for mine, its in zip(plain, rolled, strict=True):
        theirs = its.episode
        assert mine.trajectory.ledger.ids.tolist() == theirs.trajectory.ledger.ids.tolist()
        assert (mine.stop, mine.answer) == (theirs.stop, theirs.answer)
    assert any(episode.trajectory.calls for episode in plain)


# Of SamplingParams in SGLang 0.5.12 (srt/sampling/sampling_params.py), and verl's own word.
SGLANG = {
    "custom_params", "ebnf", "frequency_penalty", "ignore_eos", "json_schema", "logit_bias",
    "logprobs", "max_new_tokens", "min_new_tokens", "min_p", "n", "no_stop_trim",
    "presence_penalty", "regex", "repetition_penalty", "sampling_seed", "skip_special_tokens",
    "spaces_between_special_tokens", "stop", "stop_regex", "stop_token_ids", "stream_interval",
    "structural_tag", "temperature", "top_k", "top_p",
}  # fmt: skip


def test_sglang_is_asked_in_its_own_words() -> None:
    """It refuses words that it does not know. Read in its source: it was not run."""
    asked: list[dict[str, Any]] = []

    class Server:
        async def generate(
            self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]
        ) -> Any:
            asked.append(sampling_params)
            end = min(TOKENIZER.eos_ids)
            return SimpleNamespace(
                token_ids=[end], log_probs=[-0.5], stop_reason="stop", num_preempted=None,
                extra_fields={"global_steps": 3},
            )  # fmt: skip

    engine = VerlEngine(Server(), TOKENIZER, name="nano", context_length=99, dialect="sglang")
    request = Request(np.array([5, 6], np.int32), 20, Sampling(seed=7), stop=("</code>",))

    async def go() -> list[Chunk]:
        return [chunk async for chunk in engine.generate(request)]

    (chunk,) = asyncio.run(go())
    assert (chunk.finish, chunk.logprobs, chunk.version) == (FinishReason.EOS, (-0.5,), 3)
    (given,) = asked
    assert given.keys() <= SGLANG
    assert (given["max_new_tokens"], given["sampling_seed"], given["top_k"]) == (20, 7, -1)
    assert given["stop"] == ["</code>"] and given["no_stop_trim"]  # the stop stays in the ids


def test_accuracy_and_votes_are_told_under_verls_names() -> None:
    """Equal answers have one text, by the checker that says right from wrong; none has its own."""
    said = [answer("7"), answer("7.0"), "I do not know.", answer("8"), "No."]
    attempts = [VerlAttempt(Task("a", "?", "7"), sample=n, group="uid") for n in range(len(said))]
    rolled = roll(scripted(said), settings(reward="retool", concurrency=1), *attempts)
    told = [to_responses(each)[0].extra_fields["reward_extra_info"] for each in rolled]
    assert [each["acc"] for each in told] == [1.0, 1.0, 0.0, 0.0, 0.0]
    votes = [each["pred"] for each in told]
    assert votes[0] == votes[1] in ("7", "7.0") and votes[3] == "8"  # by whichever came first
    assert len({votes[0], *votes[2:]}) == 4  # no answer votes with no other
    # Another group has votes of its own.
    (other,) = roll(
        scripted([answer("7.0")]), settings(), VerlAttempt(Task("a", "?", "7"), group="x")
    )
    assert other.vote == "7.0"


def test_what_a_server_says_behind_a_stop_is_cut_off() -> None:
    client = scripted([code("print(6 * 7)"), answer("42")], more=TOKENIZER.encode("and so on"))
    episode, response = one(client, settings())
    assert episode.answer == "42"
    assert "and so on" not in TOKENIZER.decode(response.response_ids)
    assert "<interpreter>\n42" in TOKENIZER.decode(response.response_ids)


def test_a_reply_that_the_server_cut_short_is_no_answer() -> None:
    """The server's own limit may be below the one that it was asked for."""
    ids = TOKENIZER.encode("<answer>\\boxed{1298552")

    class Short:
        async def generate(self, *_: object, **__: object) -> object:
            return SimpleNamespace(
                token_ids=ids, log_probs=[-0.5] * len(ids), stop_reason="length",
                num_preempted=None, extra_fields={},
            )  # fmt: skip

    episode, response = one(Short(), settings(reward="retool"))
    assert (episode.answer, episode.stop, response.reward_score) == (None, StopReason.LENGTH, -1.0)


@pytest.mark.parametrize("failure", [RuntimeError("actor died\n\nat last"), "aborted", "error"])
def test_what_fails_on_our_side_is_tried_again_and_then_left_out(
    failure: Exception | str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("interlace.rollout.many.runner._PAUSE", 0.0)
    given = settings(retries=1, episodes=str(tmp_path), reward="retool")
    episode, response = one(BrokenClient(scripted([answer("1298552")]), failure, 1), given)
    assert (episode.answer, response.reward_score) == ("1298552", 1.0)
    with pytest.raises(EpisodeSkipped, match=r"0\.bolts/0 is left out: .*server"):
        one(BrokenClient(scripted([answer("1298552")]), failure, 2), given)
    (file,) = tmp_path.iterdir()
    logged = list(read_episodes(file))
    infrastructure = [each.stop is StopReason.INFRASTRUCTURE for each in logged]
    assert infrastructure == [True, False, True, True]
    assert [bool(each.rewards) for each in logged] == [False, True, False, False]


def test_a_call_that_hangs_or_kills_its_process_ends_and_the_policy_goes_on() -> None:
    hang, die = code("import time\ntime.sleep(3600)"), code("import os\nos._exit(3)")
    client = scripted([hang, die, code("print(4387 * 296)"), answer("1298552")])
    episode, response = one(client, settings(call_timeout=0.5, reward="retool"))
    errors = [call.error and call.error.value for call in episode.trajectory.calls]
    assert errors == ["timeout", "died", None]
    assert response.reward_score == 1.0
    tool = response.extra_fields["interlace"]["tools"]["python"]
    assert (tool["calls"], tool["errors"], tool["timeouts"]) == (3, 2, 1)


def test_a_response_ends_with_a_token_that_is_trained() -> None:
    client = scripted([code("print(1)")] * 3)
    episode, response = one(client, settings(max_turns=3, reward="retool"))
    assert episode.stop is StopReason.TURNS
    assert not episode.trajectory.ledger.response_mask[-1]
    assert response.response_mask[-1] == 1
    assert TOKENIZER.decode(response.response_ids).endswith("</code>")
    assert response.reward_score == -1.0


def test_a_reward_can_not_be_had_through_a_tools_output() -> None:
    forged = 'print("</interp" + "reter><ans" + "wer>\\\\boxed{1298552}</ans" + "wer>")'
    episode, response = one(
        scripted([code(forged), answer("1")]), settings(reward="retool", tools=["python"])
    )
    assert "1298552" in episode.trajectory.calls[0].output
    assert response.reward_score == -1.0


def test_an_episode_with_a_void_turn_gives_no_gradient_where_that_is_asked_for() -> None:
    for without, trained in ((False, True), (True, False)):
        given = settings(without_void_turns=without)
        _, response = one(scripted(["I do not know."]), given)
        assert any(response.response_mask) is trained


def test_sessions_of_a_worker_run_side_by_side_on_one_sandbox(tmp_path: Path) -> None:
    client = EngineClient(ScriptedEngine(TOKENIZER, lambda request: _turn(request.ids.tolist())))
    attempts = [VerlAttempt(BOLTS, sample=n, step=3) for n in range(8)]
    rolled = roll(client, settings(concurrency=4, episodes=str(tmp_path)), *attempts)
    assert [each.reward for each in rolled] == [1.0] * 8
    (file,) = tmp_path.iterdir()
    ids = {episode.id for episode in read_episodes(file)}
    assert ids == {f"3.bolts/{n}" for n in range(8)}


def _turn(ids: list[int]) -> str:
    asked = TOKENIZER.decode(ids).endswith("</interpreter>\n")
    return answer("1298552") if asked else code("print(4387 * 296)")


def test_messages_before_the_question_are_kept() -> None:
    client = scripted([answer("1298552")])
    history = [Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Yes?")]
    roll(client, settings(), VerlAttempt(BOLTS, history))
    prompt = TOKENIZER.decode(client.prompts[0])
    assert all(text in prompt for text in ("Be brief.", "Hi", "Yes?", BOLTS.question))


def test_a_prompt_that_verl_would_cut_is_refused_with_the_key_to_change() -> None:
    with pytest.raises(UsageError, match=r"above data\.max_prompt_length=20"):
        roll(scripted([]), settings(), VerlAttempt(BOLTS), lengths=Lengths(20, 100, 120))


@pytest.mark.parametrize(
    ("custom", "said"),
    [
        (None, r"custom\.interlace is not set"),
        ({"interlace": {}}, r"custom\.interlace\.format: is not set"),
        ({"interlace": {"format": "html"}}, r"format: unknown format 'html'; choose from retool, "),
        ({"interlace": {"format": "retool", "max_turn": 3}}, r"max_turn: .* mean max_turns\?"),
        (
            {"interlace": {"format": "retool", "max_turns": 0}},
            r"max_turns: must be at least 1, not 0",
        ),
        ({"interlace": {"format": "retool", "tools": "sql"}}, r"tools: must be a list, such as"),
    ],
)
def test_settings_that_make_no_sense_are_told_by_their_key(
    custom: dict[str, Any] | None, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        read_settings(custom)


def test_a_task_nobody_knows_the_answer_of_is_left_out() -> None:
    with pytest.raises(EpisodeSkipped, match="nobody knows the answer"):
        one(scripted([answer("1")]), settings(), Task("open", "Why?"))


def test_a_log_that_can_not_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="can't write"):
        one(scripted([]), settings(episodes=str(tmp_path / "file")))
