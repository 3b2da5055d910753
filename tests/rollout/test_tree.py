"""Trees: what branches share, what they keep to themselves, and what one costs the others."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from support.fakes import NANO, Echo, answer, code

from interlace.agent.cli.render.episodes import print_episode
from interlace.rollout.budget import Budget
from interlace.rollout.engines import ReplayEngine, TransformersEngine
from interlace.rollout.engines.base import Chunk, Engine, EngineError, Request
from interlace.rollout.engines.scripted import Reply, ScriptedEngine
from interlace.rollout.episode_log import EpisodeLog, read_episodes
from interlace.rollout.formats import FORMATS
from interlace.rollout.ledger import Source
from interlace.rollout.loop import Rollout, Until
from interlace.rollout.many.runner import Runner
from interlace.rollout.many.strategies import Ask, Decision, find_strategy
from interlace.rollout.many.votes import elect
from interlace.rollout.policy import Policy
from interlace.rollout.task import Task
from interlace.rollout.tokenizer import Tokenizer
from interlace.rollout.trajectory import Branch, Episode, StopReason, Trajectory
from interlace.rollout.tree.figures import design_effect, tree_figures
from interlace.rollout.tree.growth import Tree, grow, weigh
from interlace.rollout.tree.rules import make_rule
from interlace.rollout.tree.search import BestFirst, Node, search
from interlace.tools import ErrorKind, PythonTool, Tool, ToolResult, ToolSession, Unforkable
from interlace.tools.errors import DataError

TOKENIZER = Tokenizer.load(NANO)
BOLTS = Task("bolts", "A crate holds 4387 bolts. How many bolts are in 296 crates?", "1298552")


def run(policy: Policy, strategy: Any, task: Task = BOLTS, *, seed: int = 3, **how: Any) -> Episode:
    """One episode; a strategy by name, or a rule with the leaves and roots of a tree."""
    runner = Runner(policy, strategy=strategy, **how)

    async def go() -> Episode:
        async with aclosing(runner.run([task], seed=seed)) as episodes:
            return await anext(episodes)

    return asyncio.run(go())


def scripted(say: Callable[[str, str], Reply], *tools: Tool) -> Policy:
    """A policy that says what `say` makes of the leaf's name and the response so far."""

    def script(request: Request) -> Reply:
        leaf = str(request.context).rsplit(":", 1)[-1]
        response = TOKENIZER.decode(request.ids).split("<|im_start|>assistant\n")[-1]
        return say(leaf, response)

    return Policy(ScriptedEngine(TOKENIZER, script), FORMATS["retool"], tools or [Echo()])


def named(episode: Episode) -> dict[str, Trajectory]:
    return {leaf.branch.name: leaf for leaf in episode.trajectories if leaf.branch is not None}


def results(response: str) -> int:
    return response.count("</interpreter>")


def three_turns(leaf: str, response: str) -> str:
    """Two calls, then an answer."""
    done = results(response)
    return code(f"say {done}") if done < 2 else answer(leaf)


# -- the same tokens, computed once ---------------------------------------------------------------


class Counted:
    """An engine that counts its requests."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.requests = engine, 0

    def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        self.requests += 1
        return self._engine.generate(request)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


@dataclass
class Grown:
    """Episodes of nano, and how many requests each took."""

    linear: Trajectory
    alone: dict[str, Episode]  # trees of one leaf, by rule
    trees: dict[str, tuple[Episode, int]]
    again: list[tuple[Trajectory, Trajectory]]  # each leaf of the split tree, and its replay


@pytest.fixture(scope="module")
def grown() -> Grown:
    async def go() -> Grown:
        async with PythonTool() as tool:
            engine: Any = Counted(TransformersEngine.load(NANO, device="cpu"))
            nano = Policy(engine, FORMATS["retool"], [tool])

            async def one(policy: Policy, strategy: str | None = None) -> Episode:
                runner = Runner(policy, strategy=find_strategy(strategy) if strategy else None)
                async with aclosing(runner.run([BOLTS], seed=3)) as episodes:
                    return await anext(episodes)

            rules = ("split", "random", "surprise", "best")
            alone = {rule: await one(nano, f"tree@leaves=1,rule={rule}") for rule in rules}
            trees = {}
            for rule in ("split", "random"):
                engine.requests = 0
                hot = nano.with_sampling(temperature=1.3)
                tree = await one(hot, f"tree@leaves=8,roots=2,rule={rule}")
                trees[rule] = tree, engine.requests
            again = []
            for leaf in trees["split"][0].trajectories[:4]:
                recorded = ReplayEngine([Episode("one", BOLTS, "one", 0, [leaf])], TOKENIZER)
                again.append((leaf, (await one(nano.with_engine(recorded))).trajectory))
            linear = (await one(nano)).trajectory
            await engine.aclose()
            return Grown(linear, alone, trees, again)

    return asyncio.run(go())


@pytest.mark.parametrize("rule", ["split", "random", "surprise", "best"])
def test_a_tree_of_one_leaf_is_the_linear_rollout_bit_for_bit(grown: Grown, rule: str) -> None:
    (leaf,) = grown.alone[rule].trajectories
    assert leaf.ledger == grown.linear.ledger and leaf.branch == Branch("0")
    assert [turn.finish for turn in leaf.turns] == [turn.finish for turn in grown.linear.turns]


@pytest.mark.parametrize("rule", ["split", "random"])
def test_no_token_of_a_tree_is_computed_twice(grown: Grown, rule: str) -> None:
    episode, requests = grown.trees[rule]
    leaves = episode.trajectories
    assert len(leaves) == 8
    given = {
        leaf.ledger.ids[: at + 1].tobytes()
        for leaf in leaves
        for at, source in enumerate(leaf.ledger.sources)
        if source is not Source.POLICY
    }
    # Of each request after the first, the last token is computed again: it is sampled from.
    figures = tree_figures(leaves)
    assert figures["prefilled"] == len(given) + requests - 1
    assert figures["sampled"] == sum(leaf.sampled_tokens for leaf in leaves)
    whole = sum(len(leaf.ledger) for leaf in leaves)
    assert figures["shared"] == whole - sum(len(s) for leaf in leaves for s in leaf.own_spans) > 0


def test_each_leaf_is_a_whole_trajectory_that_replays_exactly(grown: Grown) -> None:
    for leaf, again in grown.again:
        assert again.ledger.ids.tolist() == leaf.ledger.ids.tolist()
        assert again.ledger.response_mask.tolist() == leaf.ledger.response_mask.tolist()
        assert [c.output for c in again.calls] == [c.output for c in leaf.calls]


def test_a_tree_is_the_same_in_every_run_and_siblings_have_seeds_of_their_own() -> None:
    policy = scripted(three_turns)
    engine = policy.engine
    assert isinstance(engine, ScriptedEngine)
    seeds = []
    for _ in range(2):
        engine.requests.clear()
        leaves = named(run(policy, find_strategy("tree@leaves=5,roots=2")))
        seeds.append({(r.context.split(":")[-1], len(r.ids)): r.sampling.seed
                      for r in engine.requests if r.context})  # fmt: skip
        assert sorted(leaves) == ["0", "0.1", "0.2", "1", "1.1"]
    assert seeds[0] == seeds[1] and len(set(seeds[0].values())) == len(seeds[0])


# -- where a tree branches, and what its leaves weigh ---------------------------------------------


def test_a_split_shares_its_budget_and_spends_what_a_short_leaf_left() -> None:
    leaves = named(run(scripted(three_turns), find_strategy("tree@leaves=8,roots=1")))
    weights = {name: (leaf.branch.turns, leaf.branch.weight) for name, leaf in leaves.items()
               if leaf.branch}  # fmt: skip
    # Eight become 4 + 4 at the first result, each four 2 + 2 at the second; then all of them end.
    assert weights == {
        "0": (0, 0.25), "0.1": (1, 0.25), "0.2": (2, 0.25), "0.1.1": (2, 0.25),
        **{name: weights[name] for name in weights if "+" in name},
    }  # fmt: skip
    assert len(leaves) == 8 and sum(weight for _, weight in weights.values()) == pytest.approx(
        sum(leaf.branch is not None and leaf.branch.parent is None for leaf in leaves.values())
    )


@pytest.mark.parametrize(
    ("left", "weights"),
    [
        ([("a", None, 0)], [1]),
        ([("a", None, 0), ("b", "a", 5), ("c", "a", 5)], [1 / 3] * 3),
        ([("a", None, 0), ("b", "a", 5), ("c", "a", 9)], [1 / 4, 1 / 2, 1 / 4]),
        ([("a", None, 0), ("b", "a", 5), ("c", "b", 9), ("d", None, 0)], [1 / 2, 1 / 4, 1 / 4, 1]),
    ],
)
def test_a_leaf_weighs_how_its_branch_was_multiplied(
    left: list[tuple[str, str | None, int]], weights: list[float]
) -> None:
    leaves = [
        Trajectory("m", "f", branch=Branch(name, parent, tokens=tokens))
        for name, parent, tokens in left
    ]
    weigh(leaves)
    assert [leaf.branch.weight for leaf in leaves if leaf.branch] == weights


def test_a_leaf_that_leaves_where_its_own_began_is_one_more_of_those_that_continue_there() -> None:
    async def strategy(ask: Ask, task: Task) -> Decision:
        async def rule(tree: Tree, root: Rollout, budget: int) -> None:
            await tree.advance(root, Until.RESULTS)
            child = await tree.branch(root)
            assert child is not None
            other = await tree.branch(child)
            assert other is not None
            for rollout in (root, child, other):
                await tree.advance(rollout)

        tree = await grow(ask, task.question, rule, leaves=3)
        return Decision(Episode("", task, "", 0, [tree.leaves[0]]))

    leaves = named(run(scripted(three_turns), strategy))
    told = [(name, leaf.branch.parent, leaf.branch.weight) for name, leaf in sorted(leaves.items())
            if leaf.branch]  # fmt: skip
    assert told == [("0", None, 1 / 3), ("0.1", "0", 1 / 3), ("0.1.1", "0", 1 / 3)]


@pytest.mark.parametrize("rule", ["split", "random", "surprise", "best"])
def test_a_question_that_can_not_be_asked_is_the_reason_that_is_told(
    rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = scripted(three_turns)

    def broken(*_: Any) -> None:
        raise DataError("the template has no question")

    monkeypatch.setattr(policy.encoder, "prompt", broken)
    episode = run(policy, find_strategy(f"tree@leaves=3,roots=1,rule={rule}"))
    assert episode.stop is StopReason.INFRASTRUCTURE
    assert episode.error == "the template has no question"
    shown = StringIO()
    print_episode(Console(file=shown), episode, None)
    assert "leaf 0: infrastructure" in shown.getvalue()


def test_where_the_model_is_unsure_others_say_something_else_in_its_place() -> None:
    episode = run(scripted(three_turns), find_strategy("tree@leaves=4,roots=1,rule=surprise"))
    branches = [leaf.branch for leaf in episode.trajectories if leaf.branch and leaf.branch.parent]
    assert len(episode.trajectories) == 4
    for branch in branches:  # after a result, before what was said to it
        ledger = named(episode)[branch.name].ledger
        assert branch.turns > 0 and ledger.sources[branch.tokens - 1] is Source.TOOL


def test_a_search_says_which_nodes_continue_and_leaves_end_where_it_gives_them_up() -> None:
    class Straight:
        """Expands the node that came last, twofold, until a leaf has ended."""

        def __init__(self) -> None:
            self.ended, self.seen_scores = False, list[float]()

        def pick(self, open: Sequence[Node], budget: int) -> Sequence[tuple[Node, int]]:
            return [] if self.ended else [(open[-1], min(2, budget + 1))]

        def seen(self, node: Node) -> None:
            self.ended |= node.ended
            self.seen_scores.append(node.score)

    method = Straight()

    async def judge(node: Node) -> float:
        if node.ended:
            raise RuntimeError("no judge")
        return node.turns

    async def strategy(ask: Ask, task: Task) -> Decision:
        rule = partial(search, method=lambda: method, value=judge)
        tree = await grow(ask, task.question, rule, leaves=4)
        assert tree.failed == ["RuntimeError: no judge"] * 2
        return Decision(Episode("", task, "", 0, [tree.leaves[0]]))

    leaves = named(run(scripted(three_turns), strategy))
    # 0 -> 0, 0.1; the last, 0.1 -> 0.1, 0.1.1, which answer; 0 waits after its second result.
    stops = {name: (leaf.stop, len(leaf.turns)) for name, leaf in leaves.items()}
    answered = StopReason.ANSWERED, 3
    given_up = StopReason.CANCELLED, 2
    assert stops == {"0": given_up, "0.1": answered, "0.1.1": answered}
    assert method.seen_scores == [1, 2, 2, -np.inf, -np.inf]


def test_best_first_continues_the_best_node_and_keeps_to_its_budget() -> None:
    episode = run(scripted(three_turns), find_strategy("tree@leaves=5,roots=1,rule=best"))
    assert 2 <= len(episode.trajectories) <= 5
    assert all(leaf.stop is StopReason.ANSWERED for leaf in episode.trajectories)
    nodes = [Node(None, 0, score=score) for score in (0.1, 0.9, 0.5)]  # type: ignore[arg-type]
    first = BestFirst(2)
    assert [first.pick(nodes, 3) for _ in range(2)] == [[(nodes[1], 2)], [(nodes[2], 2)]]
    assert first.pick(nodes, 0) == [(nodes[0], 1)] and first.pick(nodes, 3) == []


def test_leaves_vote_with_their_weights() -> None:
    # Three leaves of one branch against two that were multiplied less.
    assert elect([0, 0, 0, 1, 1], [-0.1] * 5, [1 / 6, 1 / 6, 1 / 6, 1 / 2, 1]) == 3
    assert elect([0, 1, 1], [-0.1, -0.9, -0.9], [2 / 3, 1 / 3, 1 / 3]) == 0  # a tie: the surer

    def say(leaf: str, response: str) -> str:
        if leaf.startswith("1"):
            return answer("7")
        return answer("5") if response else code("say 1")

    # Three leaves of one root say 5, a root and the fresh one that spends the rest of it say 7.
    episode = run(scripted(say), find_strategy("tree@leaves=5,roots=2,width=3"))
    assert episode.trajectory.strategy is not None
    votes = episode.trajectory.strategy["votes"]
    assert (episode.answer, votes) == ("7", {"5": 1.0, "7": 2.0})


# -- the state of tools ---------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["sandbox", pytest.param("jupyter", marks=pytest.mark.slow)])
def test_siblings_have_variables_and_files_of_their_own_and_nothing_stays_behind(
    backend: str,
) -> None:
    tool = PythonTool(backend)

    def say(leaf: str, response: str) -> str:
        if results(response) == 0:
            return code("x = 1; print(open('f', 'w').write('root'))")
        if results(response) == 1:
            here = leaf.replace(".", "_")
            return code(
                f"x += {len(leaf)}; print(x, open('f').read())\n"
                f"print(open('f', 'w').write('{here}'))"
            )
        if results(response) == 2:
            return code("print(x, open('f').read())")
        return answer(leaf)

    async def go() -> Episode:
        async with tool:
            runner = Runner(
                scripted(say, tool), strategy=find_strategy("tree@leaves=3,roots=1,width=3")
            )
            (episode,) = [one async for one in runner.run([BOLTS], seed=1)]
            pool = tool._pools[asyncio.get_running_loop()]
            assert not list(pool._folder.path.glob("s*"))  # a session's files go with its process
            return episode

    leaves = named(asyncio.run(go()))
    said = {name: [call.output.split("\n") for call in leaf.calls] for name, leaf in leaves.items()}
    assert said == {
        name: [["4"], [f"{1 + len(name)} root", str(len(name))],
               [f"{1 + len(name)} {name.replace('.', '_')}"]]
        for name in ("0", "0.1", "0.2")
    }  # fmt: skip
    again = {name: leaf.branch.replayed for name, leaf in leaves.items() if leaf.branch}
    copies = 0 if backend == "sandbox" else 1  # a kernel can't be copied: its call is run again
    assert again == {"0": 0, "0.1": copies, "0.2": copies}
    assert not any(leaf.branch.changed for leaf in leaves.values() if leaf.branch)


class Counter:
    """A stateful tool whose sessions can't be copied; `now` says something else in each."""

    name, description, arguments = "python", "Counts.", Echo.arguments

    def __init__(self) -> None:
        self.sessions = self.living = 0

    @asynccontextmanager
    async def session(self) -> AsyncIterator[ToolSession]:
        self.sessions += 1
        self.living += 1
        try:
            yield _Counting(self.sessions)
        finally:
            self.living -= 1


class _Counting:
    stateless = False  # said, or not said at all: it is the same

    def __init__(self, number: int) -> None:
        self.number, self.count = number, 0

    async def call(self, arguments: Mapping[str, Any], seconds: float) -> ToolResult:
        self.count += 1
        said = str(arguments["code"]).strip()
        if said == "hang":
            await asyncio.sleep(seconds)
            return ToolResult("late", ErrorKind.TIMEOUT)
        if said == "lost":
            raise RuntimeError("the process is gone")
        return ToolResult(f"{self.count}" + (f" in {self.number}" if said == "now" else ""))

    async def fork(self) -> ToolSession:
        raise Unforkable("it has threads")


def test_where_a_session_cannot_be_copied_its_calls_are_run_again_and_compared() -> None:
    tool = Counter()

    def say(leaf: str, response: str) -> str:
        return answer("1") if results(response) == 3 else code("now" if not response else "say 1")

    leaves = named(run(scripted(say, tool), find_strategy("tree@leaves=4,roots=1,rule=split")))
    told = {name: (leaf.branch.replayed, leaf.branch.changed) for name, leaf in leaves.items()
            if leaf.branch}  # fmt: skip
    assert told == {"0": (0, 0), "0.1": (1, 1), "0.2": (2, 1), "0.1.1": (2, 1)}
    assert all(leaf.calls[-1].output == "3" for leaf in leaves.values())
    assert (tool.sessions, tool.living) == (4, 0)


# -- what one leaf costs the others ---------------------------------------------------------------


@pytest.mark.parametrize("end", ["hang", "lost", "engine"])
def test_a_leaf_that_dies_or_is_late_costs_no_sibling(end: str) -> None:
    tool = Counter()

    def say(leaf: str, response: str) -> Reply:
        if not response:
            return code("say 1")
        if leaf == "0.1":
            return EngineError("gone") if end == "engine" else code(end)
        return answer("1") if results(response) == 2 else code("say 1")

    policy = scripted(say, tool).with_limits(timeout=2.0, call_timeout=1.5)
    episode = run(policy, find_strategy("tree@leaves=4,roots=1,width=4"))
    leaves = named(episode)
    stops = {name: leaf.stop for name, leaf in leaves.items()}
    assert {stops.pop("0.1")} <= {StopReason.INFRASTRUCTURE, StopReason.TIMEOUT}
    assert set(stops.values()) == {StopReason.ANSWERED} and len(stops) == 3
    assert (episode.answer, tool.living) == ("1", 0)


def test_what_leaves_sample_is_reserved_before_it_is_spent() -> None:
    budget = Budget(tokens=150, calls=3)
    episode = run(scripted(three_turns), find_strategy("tree@leaves=8,roots=2"), budget=budget)
    spent = budget.spent
    assert spent.tokens == sum(leaf.sampled_tokens for leaf in episode.trajectories) <= 150
    assert spent.calls == 3
    assert StopReason.BUDGET in {leaf.stop for leaf in episode.trajectories}


def test_a_tree_that_is_cancelled_keeps_its_leaves_and_closes_its_sessions() -> None:
    tool, reached = Counter(), asyncio.Event()

    def say(leaf: str, response: str) -> str:
        if results(response) == 1:
            reached.set()
        return code("say 1" if not response else "hang")

    async def go() -> list[Episode]:
        runner = Runner(scripted(say, tool), strategy=find_strategy("tree@leaves=4,roots=1"))
        running = asyncio.create_task(anext(runner.run([BOLTS], seed=1)))
        await reached.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return runner.interrupted

    (episode,) = asyncio.run(go())
    assert {leaf.stop for leaf in episode.trajectories} == {StopReason.CANCELLED}
    assert len(episode.trajectories) >= 2 and tool.living == 0


# -- going on from a prefix -----------------------------------------------------------------------


def test_a_rollout_continues_behind_any_token_of_its_own_with_words_of_the_host() -> None:
    said = iter(["The code will tell.\n" + answer("1"), "print(6 * 7)\n```\n</code>", answer("42")])
    policy = scripted(lambda leaf, response: next(said))
    hint = "\nCode can check this.\n<code>\n```python\n"

    async def go() -> tuple[Trajectory, Trajectory, Trajectory]:
        async with Rollout(policy, name="a") as parent:
            whole = await parent.ask("What is 6 * 7?")
            with pytest.raises(ValueError, match="only the policy may give"):
                await parent.fork("0.1", turns=0, tokens=4, words="<answer>\\boxed{7}</answer>")
            with pytest.raises(ValueError, match="no place after 1 turns"):
                await parent.fork("0.1", turns=1)
            child = await parent.fork("0.1", turns=0, tokens=4, words=hint)
            async with child:
                cut = await child.go_on(Until.RESULTS)
                early = Trajectory("", "", list(cut.ledgers), list(cut.turns), branch=cut.branch)
                await child.go_on()
                return whole, early, cut

    whole, early, cut = asyncio.run(go())
    words = TOKENIZER.encode_continuation(hint)
    start = whole.turns[0].start
    assert cut.branch == Branch("0.1", "0", turns=0, tokens=start + 4)
    assert cut.ledger.ids[: start + 4].tolist() == whole.ledger.ids[: start + 4].tolist()
    turn = cut.turns[0]
    assert (turn.start, turn.given, cut.answer) == (start, len(words), "42")
    assert cut.calls[0].arguments == {"code": "print(6 * 7)"}
    mask = cut.ledger.response_mask
    assert not mask[start + 4 : start + 4 + len(words)].any() and mask[start : start + 4].all()
    assert cut.sampled_tokens == mask.sum() - 4
    shared = cut.ledger.logprobs[start : start + 4]
    assert np.array_equal(shared, whole.ledger.logprobs[start : start + 4])
    assert early.branch == cut.branch


def test_a_question_that_has_ended_stays_as_it_is() -> None:
    policy = scripted(lambda leaf, response: "more" if response else answer("5"))

    async def go() -> tuple[Trajectory, int]:
        async with Rollout(policy, name="a") as rollout:
            length = len((await rollout.ask("What is 2 + 3?")).ledger)
            return await rollout.go_on(), length

    ended, length = asyncio.run(go())
    assert (ended.answer, ended.stop, len(ended.ledger)) == ("5", StopReason.ANSWERED, length)


# -- records --------------------------------------------------------------------------------------


def test_a_log_keeps_what_leaves_share_once(tmp_path: Path) -> None:
    episode = run(scripted(three_turns), find_strategy("tree@leaves=8,roots=1"))
    with EpisodeLog(tmp_path / "t.jsonl") as log:
        log.append(episode)
    text = (tmp_path / "t.jsonl").read_text()
    roots = [leaf for leaf in episode.trajectories if leaf.branch and not leaf.branch.parent]
    assert text.count('"source":"prompt"') == len(roots) < 8
    (read,) = read_episodes(tmp_path / "t.jsonl")
    assert read == episode
    for name, other in (("itself", "0.1"), ("more than", "0")):
        damaged = text.replace('"name":"0.1","parent":"0"', f'"name":"0.1","parent":"{other}"')
        if other == "0":
            damaged = damaged.replace('"parent":"0","turns":1', '"parent":"0","turns":99')
        (tmp_path / "d.jsonl").write_text(damaged)
        with pytest.raises(DataError, match=name):
            list(read_episodes(tmp_path / "d.jsonl"))


def test_leaves_of_one_name_are_kept_whole_and_a_strategy_grows_one_tree(tmp_path: Path) -> None:
    episode = run(scripted(three_turns), find_strategy("tree@leaves=2,roots=1"))
    twice = replace(episode, trajectories=episode.trajectories * 2)
    with EpisodeLog(tmp_path / "t.jsonl") as log:
        log.append(twice)
    assert list(read_episodes(tmp_path / "t.jsonl")) == [twice]
    damaged = (tmp_path / "t.jsonl").read_text().replace('"parent":"0"', '"parent":"0.1"')
    (tmp_path / "d.jsonl").write_text(damaged)
    with pytest.raises(DataError, match="itself"):  # whoever looked for its root never came back
        list(read_episodes(tmp_path / "d.jsonl"))

    async def strategy(ask: Ask, task: Task) -> Decision:
        for _ in range(2):
            await grow(ask, task.question, make_rule("split", width=2), leaves=2)
        raise AssertionError("it was not refused")

    failed = run(scripted(three_turns), strategy)
    assert failed.error is not None and "has a leaf '0' already" in failed.error


def test_leaves_that_agree_with_their_siblings_are_worth_less() -> None:
    def tree(answers: Mapping[str, str]) -> Episode:
        leaves = [
            Trajectory("m", "f", answer=said, branch=Branch(name, name[:-2] or None))
            for name, said in answers.items()
        ]
        return Episode("e", BOLTS, "g", 0, leaves)

    alike = [tree({"0": a, "0.1": a, "1": b, "1.1": b}) for a, b in itertools.product("12", "12")]
    assert design_effect(alike) == pytest.approx(2.0)  # two leaves are worth one
    apart = tree({"0": "1", "0.1": "2", "1": "1", "1.1": "2"})
    assert design_effect([apart]) == 1.0
    assert design_effect([tree({"0": "1", "1": "1"})]) is None
