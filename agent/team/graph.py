"""The state machine of a team, as a LangGraph graph (arXiv 2504.09772, after AgentVerse).

    START -> ceo -> recruit -> solve -> critic (each, at the same time) -> gather
                                 ^                                           |
                                 +--- somebody disagrees --------------------+
                                                 nobody, or often enough ----> execute
    execute -> evaluate -> ceo, until it is right, the rounds are over or the CEO stops
            -> repair, as long as an answer of some type is wanted and this one does not fit
            -> finish
    Whatever ends the run (a budget, a cancel, a failure of ours) leads to its end from any node.

The state is small and plain, so that any checkpointer can keep it. Token ids are not in it: they
are in the run's record (`TeamCalls`), which a node finds by the state's `run`. The state is a
function of what the members said, so a run is resumed by going through the graph again: calls that
are kept are not made again.
"""

from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from ...rollout.team.replies import (
    CeoDecision,
    EvaluatorVerdict,
    Vote,
    read_decision,
    read_experts,
    read_verdict,
)
from ...rollout.team.replies import read_vote as read_vote_of
from ..events import Counted, Decided, Executed, Judged, Recruited, Speaker, Voted
from .calls import TeamCalls, TeamEnded
from .roles import NO_FEEDBACK, NO_SOLUTION, RolePrompts
from .state import State, TeamPlan, Update

if TYPE_CHECKING:
    from langgraph.graph import StateGraph

__all__ = ["DONT_KNOW", "Execute", "Graph"]

DONT_KNOW = "I don't know."
NO_REASON = "No reason was given."
_DONE = ("accepted", "stopped", "rounds")
"""Ends at which the answer is what the team has to say."""
_MOST_EXPERTS = 16
"""Against accidents, where the rules set no bound."""
_PROMPT = 512
"""Tokens of a prompt beside the question and the discussion: tools, names, direction."""
_SOLVER_SEES, _CRITIC_SEES = 5, 3
"""Messages of the discussion, the latest ones."""

Execute: TypeAlias = Callable[[TeamCalls, RolePrompts, int, str], Awaitable[str]]
"""Runs a plan in a round and says what came of it; "" for nothing. Raises TeamEnded."""


class Graph:
    """The nodes and edges. `find` gives the calls of the run that a state belongs to,
    `close` is called when it is over.
    """

    def __init__(
        self,
        plan: TeamPlan,
        find: Callable[[State], TeamCalls],
        close: Callable[[State], Awaitable[None]],
        execute: Execute | None,
    ) -> None:
        self._plan = plan
        self._rules = plan.rules
        self._find = find
        self._close = close
        self._execute = execute

    def build(self) -> "StateGraph[State]":
        """The graph, to be compiled with a checkpointer or without. Raises MissingExtra."""
        from langgraph.graph import END, START, StateGraph

        graph: StateGraph[State] = StateGraph(State)
        nodes: dict[str, Any] = {
            "ceo": self.ceo,
            "recruit": self.recruit,
            "solve": self.solve,
            "critic": self.critic,
            "gather": self.gather,
            "execute": self.execute,
            "evaluate": self.evaluate,
            "repair": self.repair,
            "finish": self.finish,
        }
        for name, node in nodes.items():
            graph.add_node(name, node)
        graph.add_edge(START, "ceo")
        graph.add_edge("critic", "gather")
        graph.add_edge("finish", END)
        ways: dict[str, tuple[Callable[[State], Any], list[str]]] = {
            "ceo": (_unless_ended("recruit"), ["recruit"]),
            "recruit": (_unless_ended("solve"), ["solve"]),
            "solve": (self.after_solve, ["critic", "execute"]),
            "gather": (self.after_gather, ["solve", "execute"]),
            "execute": (_unless_ended("evaluate"), ["evaluate"]),
            "evaluate": (_unless_ended("ceo"), ["ceo"]),
        }
        for name, (route, targets) in ways.items():
            graph.add_conditional_edges(name, route, [*targets, "repair"])
        graph.add_conditional_edges("repair", self.after_repair, ["repair", "finish"])
        return graph

    # -- nodes ----------------------------------------------------------------------------------

    async def ceo(self, state: State) -> Update:
        """Go on or stop, how many experts, in what direction, with how many tokens each."""
        calls, round = self._find(state), state["round"]
        prompts = self._prompts(calls)
        prompt = prompts.ceo(state["solution"], state["feedback"], self._resources(state, calls))
        try:
            speaker = Speaker("ceo", "CEO", round)
            said = await calls.say(
                speaker, prompt, read_decision, lambda d: asdict(self._clamped(round, d))
            )
        except TeamEnded as ended:
            return {"why": str(ended)}
        held = self._clamped(round, said.read)
        calls.announce(held)
        if self._rules.honours_stop and not held.goes_on and state["plan"]:
            return {"why": "stopped"}
        resources = f"Experts: {held.experts}. Tokens for each: {held.tokens}."
        return {
            "count": held.experts,
            "tokens": held.tokens,
            "direction": held.direction,
            "resources": resources,
        }

    async def recruit(self, state: State) -> Update:
        """Name the experts; the first one solves. What the CEO has to say is said to all."""
        calls, round, count = self._find(state), state["round"], state["count"]
        prompt = self._prompts(calls).recruiter(count, state["feedback"])
        try:
            said = await calls.say(
                Speaker("recruiter", "Recruiter", round),
                prompt,
                lambda text: read_experts(text, count),
                lambda names: {"experts": names},
            )
        except TeamEnded as ended:
            return {"why": str(ended)}
        experts = said.read or ["Scientist"] * count
        calls.announce(Recruited(round, tuple(experts)))
        spoken = list(state["said"])
        if state["direction"]:
            spoken.append({"sender": "CEO", "text": state["direction"], "round": round})
        return {"experts": experts, "said": spoken, "turn": 0, "votes": None}

    async def solve(self, state: State) -> Update:
        """A plan, in the light of the last few things that were said. Where there is one, a reply
        that can't be read or has lost the answer leaves it as it is, and ends the discussion.
        """
        calls, name = self._find(state), state["experts"][0]
        speaker = Speaker("solver", name, state["round"], state["turn"])
        seen = _seen(state["said"], _SOLVER_SEES, calls, state["tokens"])
        prompt = self._prompts(calls).solver(name, state["direction"], seen)
        try:
            said = await calls.say(
                speaker,
                prompt,
                _text,
                lambda text: {"plan": text},
                tokens=state["tokens"],
                answers=state["answer"] is not None,
            )
        except TeamEnded as ended:
            return {"why": str(ended)}
        if said.read is None and state["solution"] not in (NO_SOLUTION, DONT_KNOW):
            return {"turn": self._plan.critiques, "votes": None}
        plan = said.read or DONT_KNOW
        note = {"sender": name, "text": plan, "round": state["round"]}
        return {
            "solution": plan,
            "answer": said.answer,
            "plan": speaker.key,
            "said": [*state["said"], note],
            "votes": None,
        }

    async def critic(self, state: Update) -> Update:
        """One critic's vote on the plan; it sees this round alone."""
        calls = self._find(State(run=state["run"], question=state["question"]))
        index, round = state["index"], state["round"]
        speaker = Speaker("critic", state["name"], round, state["turn"], index)
        of_round = [each for each in state["said"] if each["round"] == round]
        seen = _seen(of_round, _CRITIC_SEES, calls, state["tokens"]) or _seen(of_round, 1)
        prompt = self._prompts(calls).critic(state["name"], state["direction"], seen)
        try:
            said = await calls.say(
                speaker,
                prompt,
                self._read_vote,
                lambda vote: {"agrees": vote.agrees, "answer": state["answer"]},
                tokens=state["tokens"],
            )
        except TeamEnded as ended:
            return {"votes": [{"index": index, "agrees": None, "review": "", "why": str(ended)}]}
        vote = said.read or Vote(True if self._rules.silence_agrees else None, "")
        calls.announce(Voted(speaker, vote))
        return {"votes": [{"index": index, **asdict(vote), "why": ""}]}

    async def gather(self, state: State) -> Update:
        """The reviews of those who disagree, in the order of the critics, are told to all."""
        calls, round = self._find(state), state["round"]
        votes = sorted(state["votes"], key=lambda vote: vote["index"])
        ended = [vote["why"] for vote in votes if vote["why"]]
        if ended:
            return {"why": ended[0]}
        notes = [
            {
                "sender": state["experts"][vote["index"] + 1],
                "text": vote["review"] or NO_REASON,
                "round": round,
            }
            for vote in _objections(votes)
        ]
        said = [vote["agrees"] for vote in votes]
        counts = (said.count(True), said.count(False), said.count(None))
        calls.announce(Counted(round, state["turn"], *counts))
        return {"said": [*state["said"], *notes], "turn": state["turn"] + 1}

    async def execute(self, state: State) -> Update:
        """Run the plan, where that is wanted; only the evaluator is told what came of it. What an
        earlier process ran and had judged is not run again.
        """
        if self._execute is None:
            return {"output": ""}
        calls, round = self._find(state), state["round"]
        ran = calls.record.last_read("evaluator", "output", round)
        if ran is not None:
            return {"output": ran}
        try:
            output = await self._execute(calls, self._prompts(calls), round, state["solution"])
        except TeamEnded as ended:
            return {"why": str(ended)}
        calls.announce(Executed(round, output))
        return {"output": output}

    async def evaluate(self, state: State) -> Update:
        """Accept the plan, or say what to do better. One that can't be read rejects, and where
        there is no plan there is nothing to accept.
        """
        calls, round = self._find(state), state["round"]
        votes = state["votes"]
        prompt = self._prompts(calls).evaluator(
            state["experts"],
            state["solution"],
            state["output"],
            unheard=bool(votes) and all(vote["agrees"] is None for vote in votes),
        )
        try:
            said = await calls.say(
                Speaker("evaluator", "Evaluator", round),
                prompt,
                read_verdict,
                lambda verdict: {
                    **asdict(verdict),
                    "answer": state["answer"],
                    "output": state["output"],
                },
            )
        except TeamEnded as ended:
            return {"why": str(ended)}
        verdict = said.read or EvaluatorVerdict(False, "")
        if state["solution"] == DONT_KNOW:
            verdict = replace(verdict, correct=False)
        calls.announce(Judged(round, verdict))
        last = round + 1 >= self._plan.rounds
        why = "accepted" if verdict.correct else "rounds" if last else ""
        return {
            "correct": verdict.correct,
            "feedback": verdict.advice or NO_FEEDBACK,
            "round": round + 1,
            "why": why,
        }

    async def repair(self, state: State) -> Update:
        """Have the solver give an answer again that is not of the type that was asked for; each
        time is a separate step.
        """
        calls = self._find(state)
        problem = _problem(state, calls)
        if problem is None or calls.schema is None:
            return {}
        round, _, turn = state["plan"].split(".")
        speaker = Speaker("solver", state["experts"][0], int(round), int(turn) + 1)
        again = calls.schema.ask_again(problem)
        prompt = self._prompts(calls).repair(speaker.name, state["solution"], again)
        try:
            said = await calls.say(
                speaker, prompt, _text, lambda text: {"plan": text}, tokens=state["tokens"]
            )
        except TeamEnded as ended:
            return {"why": str(ended)}
        if said.answer is None:  # the last answer stands
            return {"repairs": calls.repairs}
        return {
            "answer": said.answer,
            "plan": speaker.key,
            "solution": said.read or state["solution"],
            "repairs": state["repairs"] + 1,
        }

    async def finish(self, state: State) -> Update:
        """Close the run's record."""
        await self._close(state)
        return {}

    # -- edges ----------------------------------------------------------------------------------

    def after_solve(self, state: State) -> Any:
        """To every critic at the same time; past them if there is none."""
        from langgraph.types import Send

        if state["why"]:
            return "repair"
        critics = state["experts"][1:]
        if not critics or not self._plan.critiques or state["turn"] >= self._plan.critiques:
            return "execute"
        told = ("run", "question", "round", "turn", "direction", "said", "answer", "tokens")
        shared = {name: value for name, value in state.items() if name in told}
        return [Send("critic", {**shared, "index": i, "name": n}) for i, n in enumerate(critics)]

    def after_gather(self, state: State) -> str:
        """Once more where somebody disagrees."""
        if state["why"]:
            return "repair"
        return "solve" if _objections(state["votes"]) else "execute"

    async def after_repair(self, state: State) -> str:
        """Once more where the answer does not fit yet."""
        return "finish" if _problem(state, self._find(state)) is None else "repair"

    # -- rules ----------------------------------------------------------------------------------

    def _prompts(self, calls: TeamCalls) -> RolePrompts:
        return RolePrompts(calls.question, self._plan.max_experts, self._plan.menu)

    def _clamped(self, round: int, read: CeoDecision | None) -> Decided:
        """The decision with its numbers brought within bounds, and defaults for missing ones."""
        least, most = self._plan.tokens
        decision = read or CeoDecision(True, None, "", None)
        missing = {
            "decision": read is None,
            "experts": decision.experts is None,
            "tokens": decision.tokens is None,
        }
        defaults = tuple(name for name, default in missing.items() if default)
        count = 2 if decision.experts is None else max(2, decision.experts)
        count = min(count, self._plan.max_experts if self._rules.clamps_experts else _MOST_EXPERTS)
        tokens = most if decision.tokens is None else min(max(decision.tokens, least), most)
        return Decided(round, decision.goes_on, count, tokens, decision.direction, defaults)

    def _read_vote(self, text: str) -> Vote | None:
        """None where it can't be read, so that it is asked again."""
        vote = read_vote_of(text, agrees_first=self._rules.agrees_first)
        return None if vote.agrees is None else vote

    def _resources(self, state: State, calls: TeamCalls) -> str:
        """The CEO's resources in words: its last allocation, and the tokens spent and left."""
        if self._rules.name == "paper":
            return state["resources"]
        spent = sum(each.sampled_tokens for each in calls.record.trajectories)
        left = calls.budget.left.tokens
        more = "" if left is None else f" Tokens left for all: {left}."
        return f"{state['resources']} Tokens spent so far: {spent}.{more}"


def _problem(state: State, calls: TeamCalls) -> str | None:
    """The validation error to send back to the solver, or None if the answer is final."""
    done = state["why"] in _DONE and state["answer"] is not None
    if calls.schema is None or not done or state["repairs"] >= calls.repairs:
        return None
    return calls.schema.check(state["answer"])[1]


def _unless_ended(name: str) -> Callable[[State], str]:
    def route(state: State) -> str:
        return "repair" if state["why"] else name

    return route


def _objections(votes: list[Update]) -> list[Update]:
    """Of the votes, those that disagree, in the order of the critics."""
    against = [vote for vote in votes if vote["agrees"] is False]
    return sorted(against, key=lambda vote: vote["index"])


def _seen(
    said: list[Update], count: int, calls: TeamCalls | None = None, tokens: int = 0
) -> list[tuple[str, str]]:
    """The latest messages; with `calls` only as many as leave room for an answer of `tokens`, or
    for one of a quarter of the context.
    """
    seen = [(each["sender"], each["text"]) for each in said[-count:]]
    if calls is None:
        return seen
    engine = calls.policy.engine
    context, encode = engine.context_length, engine.tokenizer.encode
    room = context - min(tokens, context // 4) - _PROMPT - len(encode(calls.question))
    while seen and sum(len(encode(text)) for _, text in seen) > room:
        del seen[0]
    return seen


def _text(text: str) -> str | None:
    return text or None
