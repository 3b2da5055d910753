"""Several attempts, one answer: what is chosen, what is recorded, and what is passed on."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import pytest
from support.fakes import NANO, Echo, answer

from interlace.agent import Agent
from interlace.rollout.engines.base import EngineError, Request
from interlace.rollout.engines.scripted import Reply, ScriptedEngine
from interlace.rollout.formats import FORMATS
from interlace.rollout.many.runner import Runner
from interlace.rollout.many.strategies import Strategy, best_of, find_strategy, think_twice, vote
from interlace.rollout.many.votes import elect, mean_logprob
from interlace.rollout.policy import Policy
from interlace.rollout.task import Task
from interlace.rollout.tokenizer import Tokenizer
from interlace.rollout.trajectory import Episode, StopReason
from interlace.tools.errors import UsageError

TOKENIZER = Tokenizer.load(NANO)


def decide(strategy: Strategy, say: Callable[[str], Reply]) -> Episode:
    """One episode; `say` is asked with the question of each attempt."""

    def script(request: Request) -> Reply:
        text = TOKENIZER.decode(request.ids)
        return say(text.split("<|im_start|>user\n")[-1].split("<|im_end|>")[0])

    policy = Policy(ScriptedEngine(TOKENIZER, script), FORMATS["retool"], [Echo()])
    runner = Runner(policy, strategy=strategy, concurrency=4)

    async def go() -> list[Episode]:
        return [episode async for episode in runner.run([Task("a", "What?")], seed=5)]

    (episode,) = asyncio.run(go())
    return episode


def answers(*texts: str) -> Callable[[str], Reply]:
    given = cycle(texts)
    return lambda question: answer(next(given))


def test_a_vote_is_won_by_the_most_frequent_answer_however_it_is_written() -> None:
    episode = decide(find_strategy("vote@5"), answers("7", "1,200", "7", "1200.0", "$1200"))
    assert (episode.id, episode.answer) == ("a/0", "1,200")  # as the first of its camp wrote it
    assert episode.trajectory.strategy == {
        "name": "vote",
        "votes": {"7": 2, "1,200": 3},
    }
    assert len(episode.trajectories) == 5  # every token that it cost is in the record
    given = Counter(each.answer for each in episode.trajectories)
    assert given == {"7": 2, "1,200": 1, "1200.0": 1, "$1200": 1}


def test_a_tie_goes_to_the_surer_then_to_the_earliest_and_silence_has_no_vote() -> None:
    said = cycle(["no idea", answer("3"), answer("4"), "none"])
    episode = decide(find_strategy("vote@4"), lambda question: str(next(said)))
    sure = {each.answer: mean_logprob(Episode("", episode.task, "", 0, [each])) for each in
            episode.trajectories}  # fmt: skip
    assert sure["4"] > sure["3"] and episode.answer == "4"  # type: ignore[operator]
    assert elect([0, 1, None], [-0.5, -0.5, -0.1]) == 0
    assert elect([None, 1, 1, 0], [-0.1, -0.9, -0.9, -0.1]) == 1
    assert elect([0, 1], [None, -0.9]) == 1 and elect([None], [-0.1]) is None


def test_without_any_answer_an_attempt_that_the_model_ended_counts() -> None:
    said: Iterator[Reply] = iter([EngineError("gone"), "I give up."])
    episode = decide(find_strategy("vote@2"), lambda question: next(said))
    assert (episode.stop, episode.answer) == (StopReason.ENDED, None)
    episode = decide(find_strategy("vote@2"), lambda question: EngineError("gone"))
    assert (episode.stop, episode.error) == (StopReason.INFRASTRUCTURE, "gone")


def test_the_best_is_what_scores_highest() -> None:
    async def score(episode: Episode) -> float:
        return -abs(int(episode.answer or 0) - 40)

    async def nearest(ask: object, task: Task) -> object:
        return await best_of(ask, task, k=3, score=score)  # type: ignore[arg-type]

    assert decide(nearest, answers("1", "39", "90")).answer == "39"  # type: ignore[arg-type]


def test_without_a_score_the_model_judges_its_answers() -> None:
    given = cycle(["5", "6", "7"])

    def say(question: str) -> Reply:
        if found := re.search(r"Proposed answer: (\d)", question):
            assert question.startswith("Question: What?")
            return answer({"5": "2", "6": "9", "7": "not sure"}[found[1]])
        return answer(next(given))

    episode = decide(find_strategy("best@3"), say)
    assert episode.answer == "6" and len(episode.trajectories) == 6


def test_thinking_twice_passes_on_the_answer_alone() -> None:
    asked: list[str] = []

    def say(question: str) -> Reply:
        asked.append(question)
        return "Hm, let me see. " + answer(str(len(asked)))

    episode = decide(find_strategy("twice@3"), say)
    assert episode.answer == "3"
    assert asked[0] == "What?" and asked[2].startswith("What?\nThe assistant's previous answer is")
    assert "<answer> 2 </answer>" in asked[2] and "Hm" not in asked[2]


def test_names_of_strategies() -> None:
    assert find_strategy("vote") is vote and find_strategy("twice") is think_twice
    for name, said in {
        "votes@3": "unknown strategy 'votes'; choose from vote, tree, best, twice",
        "vote@x": "unknown strategy 'vote@x'",
        "@3": "unknown strategy ''",
        "vote@0": "k of vote can't be 0: .* greater than or equal to 1",
        "vote@2.5": "k of vote can't be 2.5",
        "vote@votes=3": "unknown parameter of vote 'votes'; choose from k, classes",
        "vote:3": "without :3",
        "vote@8,k=3": "vote has its k twice",
        "math:pi": "'math:pi' can't be asked: 3.14.* is not a callable object",
        "json:loads": "'json:loads' can't be asked: too many positional arguments",
    }.items():
        with pytest.raises(UsageError, match=said):
            find_strategy(name)


OWN = """
from interlace.rollout.many.strategies import Decision

async def longest(ask, task, *, rounds=2):
    episodes = [await ask(task.question) for _ in range(rounds)]
    return Decision(max(episodes, key=lambda one: len(one.answer or "")), {"rounds": rounds})

class Longest:
    def __init__(self, rounds: int = 2):
        self.rounds = rounds

    async def __call__(self, ask, task):
        return await longest(ask, task, rounds=self.rounds)
"""


@pytest.mark.parametrize("thing", ["longest", "Longest"])
def test_a_strategy_of_ones_own_has_parameters(thing: str, tmp_path: Path) -> None:
    (tmp_path / "ways.py").write_text(OWN)
    strategy = find_strategy(f"ways.py:{thing}@3", folder=tmp_path)
    episode = decide(strategy, answers("12", "7", "1234"))
    assert episode.answer == "1234"
    assert episode.trajectory.strategy == {"rounds": 3}
    with pytest.raises(UsageError, match="would load code"):
        find_strategy(f"ways.py:{thing}", folder=tmp_path, trusted=False)


def test_attempts_have_seeds_of_their_own_the_same_in_every_run() -> None:
    seeds: list[list[int]] = []
    for _ in range(2):
        seen: list[int | None] = []

        def script(request: Request, seen: list[int | None] = seen) -> Reply:
            seen.append(request.sampling.seed)
            return answer("1")

        policy = Policy(ScriptedEngine(TOKENIZER, script), FORMATS["retool"])
        runner = Runner(policy, strategy=find_strategy("vote@3"))

        async def go(runner: Runner = runner) -> None:
            async for _ in runner.run([Task("a", "?")], seed=1):
                pass

        asyncio.run(go())
        seeds.append(sorted(seed or 0 for seed in seen))
    assert seeds[0] == seeds[1] and len(set(seeds[0])) == 3


def test_an_agent_answers_with_a_strategy() -> None:
    said = iter([answer("3"), answer("4"), answer("4")])
    engine = ScriptedEngine(TOKENIZER, lambda request: next(said))
    agent = Agent(engine, tools=[Echo()], format="retool", strategy="vote@3")
    assert agent.sampling.temperature == 1.0
    result = agent.run_sync("What?")
    agent.close()
    assert (result.answer, result.usage.turns, agent.last) == ("4", 3, result)
    assert result.usage.tokens == sum(each.sampled_tokens for each in result.episode.trajectories)
