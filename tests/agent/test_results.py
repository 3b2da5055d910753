"""Results and records outside of interlace: as JSON, pickled, printed, in a notebook."""

import asyncio
import json
import pickle
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support.fakes import Echo, answer, code
from support.teams import cast, team
from support.tiny_models import byte_tokenizer

from interlace import Agent, Budget
from interlace.agent import Result
from interlace.rollout.engines import Reply, ScriptedEngine
from interlace.rollout.ledger import Ledger, Source, Span
from interlace.rollout.trajectory import StopReason


def result_of(folder: Path, *script: Reply) -> Result[Any]:
    engine = ScriptedEngine(byte_tokenizer(folder), script)
    return Agent(engine, tools=[Echo()], format="retool").run_sync("How <many>?")


@pytest.mark.parametrize(
    "script",
    [
        [code("say 42"), answer("42")],
        ["I don't know."],
        [RuntimeError("the engine broke")],
        [code("bug")],
        [code("fail"), answer("caf\u00e9 <b>")],
    ],
)
def test_a_result_is_json_survives_a_pickle_and_has_a_short_name(
    tmp_path: Path, script: list[Reply]
) -> None:
    result = result_of(tmp_path, *script)
    data = result.to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert (data["schema_version"], data["stop"], data["answer"]) == (
        1,
        result.stop.value,
        result.answer,
    )
    again = pickle.loads(pickle.dumps(result))
    assert again == result and again.to_dict() == data and len(pickle.dumps(result)) < 50_000
    for one in (result, result.episode, result.trajectory, result.trajectory.ledger, *result.calls):
        assert repr(one).startswith(f"<{type(one).__name__}") and len(repr(one)) < 400
        assert " object at " not in repr(one)


def test_the_team_s_and_a_strategy_s_results_are_json_too(tmp_path: Path) -> None:
    made = team(cast())
    assert made.run_sync("?").to_dict()["answer"] == "42"
    assert repr(made) == "<Team of <Agent scripted: tools=['python']>: up to 4 experts>"
    made.close()
    engine = ScriptedEngine(byte_tokenizer(tmp_path), [answer("1")] * 2)
    with Agent(engine, tools=[], format="retool", strategy="vote@2") as agent:
        assert agent.run_sync("?").to_dict()["answer"] == "1"

    async def cancelled() -> dict[str, Any]:
        other = team(cast(delay=1))
        async with other.stream("?") as run:
            run.cancel()
            async for _ in run:
                pass
        assert run.result is not None
        return run.result.to_dict()

    assert asyncio.run(cancelled())["stop"] == "cancelled"


class Spans(HTMLParser):
    """The text of each span, with its title."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self._title: str | None = None

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._title = dict(attributes).get("title") if tag == "span" else None

    def handle_data(self, data: str) -> None:
        if self._title is not None:
            self.found.append((self._title, data))

    def handle_endtag(self, tag: str) -> None:
        self._title = None


def test_a_notebook_shows_who_wrote_which_text(tmp_path: Path) -> None:
    result = result_of(tmp_path, code("say 42"), answer("<b>42</b>"))
    reader = Spans()
    reader.feed(result._repr_html_())
    *spans, _, _, _, _ = reader.found
    assert [title for title, _ in spans] == ["prompt", "policy", "tool", "policy"]
    assert "How <many>?" in spans[0][1] and spans[3][1].startswith("So <answer>\\boxed{<b>42")
    ids = Spans()
    ids.feed(result.trajectory.ledger._repr_html_())
    assert ids.found[1][1] == " ".join(map(str, result.trajectory.ledger.spans[1].ids))


def test_records_say_what_they_hold() -> None:
    ledger = Ledger([Span.given(Source.PROMPT, [1, 2])])
    assert repr(Ledger()) == "<Ledger of 0 tokens: empty>"
    for _ in range(6):
        ledger.append(Span.policy([3], version=2))
        ledger.append(Span.given(Source.TOOL, [4, 5]))
    assert repr(ledger) == (
        "<Ledger of 20 tokens: prompt 2, policy 1, tool 2, policy 1, ..., "
        "policy 1, tool 2, policy 1, tool 2>"
    )
    assert repr(ledger.spans[1]) == "<Span of 1 tokens: policy, version 2, weight 1>"
    assert repr(Budget(tokens=5)) == "<Budget: Left(tokens=5, calls=None, seconds=None)>"


def test_a_strategy_that_is_stopped_at_once_tells_of_no_other_question(tmp_path: Path) -> None:
    engine = ScriptedEngine(byte_tokenizer(tmp_path), [answer("1")] * 4)

    async def main() -> Result[Any] | None:
        async with Agent(engine, tools=[], format="retool", strategy="vote@2") as agent:
            await agent.run("The first?")
            run = agent.stream("The second?")
            run.cancel()
            async for _ in run:
                pass
            return run.result

    result = asyncio.run(main())
    assert result is not None
    assert (result.question, result.stop) == ("The second?", StopReason.CANCELLED)
