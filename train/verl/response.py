"""An episode as verl wants it: a prompt, a response, a mask and a number, once for an agent, once
for each call of a team or leaf of a tree.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...rollout.formats import recorded_format
from ...rollout.ledger import Ledger
from ...rollout.tokenizer import Tokenizer
from ...rollout.trajectory import Trajectory
from ...tools import ErrorKind
from ..monitor import tag_logprobs
from ..objectives import void_turns
from ..rewards import CORRECT, TOTAL
from .team import row_name
from .worker import ScoredEpisode

__all__ = ["Response", "to_responses"]


@dataclass(frozen=True, slots=True)
class Response:
    """The fields of verl's AgentLoopOutput (verl 0.9.1), as plain data.

    `response_mask` is 1 where the policy's tokens are trained; `response_logprobs` are 0 where it
    is 0. The last token of a response is one of the policy's: what a tool said behind it conditions
    nothing, and a value model skips masked positions, a reward on one included.
    """

    prompt_ids: list[int]
    response_ids: list[int]
    response_mask: list[int]
    response_logprobs: list[float]
    reward_score: float
    num_turns: int
    metrics: dict[str, Any]
    extra_fields: dict[str, Any]


def to_responses(rolled: ScoredEpisode, *, without_void_turns: bool = False) -> list[Response]:
    """The responses that verl trains on, read from the ledgers: one for a single agent.

    For a team, one for each of its calls on which a loss is taken, for a tree one for each leaf: in
    the order of their start, with the answer's last, as verl takes the last one for the session's.
    """
    episode = rolled.episode
    if rolled.parts is None:
        trajectory = episode.trajectory
        void = without_void_turns and bool(void_turns(trajectory))
        return [_response(rolled, trajectory, trajectory.ledger, rolled.reward, void=void)]
    responses = []
    found = {  # by the list of ledgers, which a leaf has in common with its part
        id(trajectory.ledgers): (row_name(place, episode.sample, number), part.rewards[TOTAL])
        for number, (place, part) in enumerate(rolled.parts)
        for trajectory in part.trajectories
    }
    for trajectory in episode.trajectories:
        if id(trajectory.ledgers) not in found:
            continue
        name, reward = found[id(trajectory.ledgers)]
        for ledger in trajectory.ledgers:
            if ledger.loss_weights.any():
                responses.append(_response(rolled, trajectory, ledger, reward, part=name))
    return responses


def _response(
    rolled: ScoredEpisode,
    trajectory: Trajectory,
    ledger: Ledger,
    reward: float,
    *,
    void: bool = False,
    part: str | None = None,
) -> Response:
    engine, rewards = rolled.engine, rolled.episode.rewards
    begin, end = ledger.prompt_length, int(np.flatnonzero(ledger.response_mask)[-1]) + 1
    trained = ledger.loss_weights[begin:end] > 0
    if void:
        trained = np.zeros_like(trained)
    logprobs = np.where(trained, ledger.logprobs[begin:end], 0.0)
    calling = sum(bool(turn.calls) for turn in trajectory.turns)
    branch = trajectory.branch
    shared = ledger is trajectory.ledgers[branch.ledger] if branch else False
    return Response(
        prompt_ids=ledger.ids[:begin].tolist(),
        response_ids=ledger.ids[begin:end].tolist(),
        response_mask=trained.astype(int).tolist(),
        response_logprobs=logprobs.tolist(),
        reward_score=reward,
        # As verl counts: the question, each time the policy spoke, each message with results.
        num_turns=1 + len(trajectory.turns) + calling,
        metrics={
            "generate_sequences": sum(turn.seconds for turn in trajectory.own_turns),
            "tool_calls": sum(turn.tool_seconds for turn in trajectory.own_turns),
            "compute_score": rolled.scoring_seconds,
            "num_preempted": -1 if engine.preempted is None else engine.preempted,
        },
        extra_fields={
            # verl makes an array of whole numbers of these: None would end the run.
            "min_global_steps": engine.first_step or 0,
            "max_global_steps": engine.last_step or 0,
            # The names under which verl looks for the accuracy, and for what a majority votes on.
            "reward_extra_info": {**rewards, "acc": rewards[CORRECT], "pred": rolled.vote},
            "turn_scores": [],
            "tool_rewards": [],
            "interlace": {
                **_described(trajectory, engine.tokenizer),
                "part": part,
                "tokens": end,
                # Those that the leaf has from another one, whose row computes them as well.
                "shared": min(end, branch.tokens) if branch and shared else 0,
            },
        },
    )


def _described(trajectory: Trajectory, tokenizer: Tokenizer) -> dict[str, Any]:
    """How it went, turn by turn and tool by tool, times in seconds; and how likely the tokens of
    tags were to the policy, their sum and their number.
    """
    format = recorded_format(
        trajectory.format
    )  # a role of a team that only speaks has none of these
    tags = tag_logprobs(trajectory, tokenizer, format.control_tags) if format else []
    tools: dict[str, dict[str, float]] = {}
    own = trajectory.own_turns  # a leaf shares the others with the leaf that it left
    for call in (call for turn in own for call in turn.calls):
        tool = tools.setdefault(call.tool, {"calls": 0, "errors": 0, "timeouts": 0, "seconds": 0.0})
        tool["calls"] += 1
        tool["errors"] += call.error is not None
        tool["timeouts"] += call.error is ErrorKind.TIMEOUT
        tool["seconds"] += call.seconds
    return {
        "stop": trajectory.stop.value if trajectory.stop else None,
        "turns": [
            {
                "tokens": turn.stop - turn.start,
                "calls": len(turn.calls),
                "seconds": turn.seconds,
                "tool_seconds": turn.tool_seconds,
                "prefilled": turn.prefilled,
                "cached": turn.cached,
            }
            for turn in own
        ],
        "tools": tools,
        "tags": {"logprob": float(sum(tags)), "tokens": len(tags)},
    }
