"""An answer as a value of a type: read leniently, checked strictly, asked for again once."""

import asyncio
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, PositiveInt, RootModel
from support.fakes import Echo, answer, code
from support.teams import cast, team, verdict
from support.tiny_models import byte_tokenizer

from interlace import Agent, Budget
from interlace.agent import read_rounds
from interlace.agent.output import OutputSchema
from interlace.rollout.engines import ScriptedEngine
from interlace.rollout.trajectory import StopReason
from interlace.tools.errors import UsageError


class Parcel(BaseModel):
    town: str
    grams: PositiveInt
    state: Literal["lost", "waiting"] = "waiting"


class Bolts(RootModel[PositiveInt]):
    pass


@pytest.mark.parametrize(
    "said",
    [
        '{"town": "Oslo", "grams": 900}',
        'Here it is:\n```json\n{"town": "Oslo", "grams": 900}\n```',
        'The parcel is {"town": "Oslo", "grams": "900"}.',
    ],
)
def test_json_is_found_where_models_put_it(said: str) -> None:
    assert OutputSchema(Parcel).read(said) == Parcel(town="Oslo", grams=900)


def test_what_does_not_fit_is_told_in_words() -> None:
    with pytest.raises(ValueError, match="grams: Input should be greater than 0; state: "):
        OutputSchema(Parcel).read('{"town": "Oslo", "grams": -1, "state": "eaten"}')
    with pytest.raises(UsageError, match="has no JSON schema"):
        OutputSchema(type(byte_tokenizer))


def test_a_wrong_answer_is_repaired_in_the_same_conversation(tmp_path: Path) -> None:
    wrong, right = '{"town": "Oslo", "grams": 0}', '{"town": "Oslo", "grams": 900}'
    script = [
        code("say 900"),
        f"<answer>{wrong}</answer>",
        f"<answer>{right}</answer>",
    ]
    engine = ScriptedEngine(byte_tokenizer(tmp_path), script)
    result = asyncio.run(Agent(engine, tools=[Echo()], output=Parcel).run("Which parcel?"))
    assert result.output is not None and result.output.grams == 900  # an editor knows the type
    assert (result.stop, result.answer, result.output_problem) == (StopReason.ANSWERED, right, None)
    assert result.usage.turns == 3 and len(result.calls) == 1
    prompts = [engine.tokenizer.decode(request.ids.tolist()) for request in engine.requests]
    assert '"exclusiveMinimum": 0' in prompts[0]
    assert "does not fit: grams: Input should be greater than 0" in prompts[-1]


def test_an_answer_that_never_fits_is_still_a_result(tmp_path: Path) -> None:
    engine = ScriptedEngine(byte_tokenizer(tmp_path), [answer("many"), answer("a lot")])
    result = asyncio.run(Agent(engine, tools=[], output=Bolts).run("How many?"))
    assert (result.answer, result.output) == ("a lot", None)
    assert result.output_problem is not None and "valid integer" in result.output_problem


@pytest.mark.parametrize("accepted", [True, False])
def test_a_teams_wrong_answer_is_repaired_by_its_solver(accepted: bool) -> None:
    wrong, right = '{"town": "Oslo", "grams": 0}', '{"town": "Oslo", "grams": 900}'
    engine = cast(
        {
            "solver": [answer("Oslo"), f"<answer>{wrong}</answer>", f"<answer>{right}</answer>"],
            "evaluator": [verdict(int(accepted))],
        }
    )
    result = asyncio.run(team(engine, rounds=1, output=Parcel, repairs=2).run("Which parcel?"))
    assert result.output is not None and result.output.grams == 900  # an editor knows the type
    assert (result.question, result.answer) == ("Which parcel?", right)
    assert all('"exclusiveMinimum": 0' in prompts[0] for prompts in engine.heard.values())
    told = engine.heard["solver"][-1]
    assert "[Ada]: " in told and "does not fit: grams: Input should be greater than 0" in told
    (round,) = read_rounds(result.episode)
    assert len(round.plans) == 3 and round.correct is accepted
    assert result.trajectory.team is not None
    assert result.trajectory.team.why == ("accepted" if accepted else "rounds")


def test_a_teams_answer_that_never_fits_is_still_a_result() -> None:
    late = cast({"solver": [answer("many")]})
    for repairs in (0, 1):
        result = asyncio.run(team(late, output=Bolts, repairs=repairs).run("How many?"))
        assert (result.stop, result.answer) == (StopReason.ANSWERED, "many")
        assert result.output is None and "valid integer" in (result.output_problem or "")
    budget = Budget(calls=0, tokens=250)
    result = asyncio.run(team(late, output=Bolts, repairs=99, budget=budget).run("How many?"))
    assert result.stop is StopReason.BUDGET and result.output is None


def test_the_bundled_model_answers_with_a_number() -> None:
    with Agent(output=Bolts) as agent:
        result = agent.run_sync("A crate holds 4387 bolts. How many bolts are in 296 crates?")
    assert result.output is not None and result.output.root == 1298552
