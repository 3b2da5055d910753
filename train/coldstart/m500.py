"""Multi-agent traces in the shape of M500 (arXiv 2504.09772): read to be learnt from, and written.

A row has a `question`, a `solution`, and for each role a list of messages (`role`, `content`):
`expert_recruiter_messages`, `problem_solver_messages`, `critic_messages`, `evaluator_messages`.
Ours have `ceo_messages` too, which M500 lacks. A system message begins its own conversation.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...rollout.formats import Encoder, Message
from ...rollout.formats.plain import PlainText
from ...rollout.ledger import Ledger, Source, Span
from ...rollout.task import Task
from ...rollout.tokenizer import Tokenizer
from ...rollout.trajectory import (
    Episode,
    FinishReason,
    Speaker,
    StopReason,
    TeamCall,
    Trajectory,
    Turn,
)
from ...tools.errors import DataError
from ...tools.files import read_text, write_beside

__all__ = ["LISTS", "read_m500", "write_m500"]

LISTS = {
    "ceo": "ceo_messages",
    "recruiter": "expert_recruiter_messages",
    "solver": "problem_solver_messages",
    "critic": "critic_messages",
    "evaluator": "evaluator_messages",
}
"""The list of each role's messages."""
_ROLES = ("system", "user", "assistant")


def read_m500(path: str | Path, tokenizer: Tokenizer, *, model: str) -> Iterator[Episode]:
    """The rows of a JSONL file as episodes to fine-tune on, for a model with that tokenizer.

    `model` is that model's name: the records bear it, so that the tokenizer is found again.
    Each of an assistant's messages is its own trajectory: what came before is its prompt, as
    at inference, where no member of a team sees its own earlier thoughts. Raises DataError, naming
    the line, for what is no such row.
    """
    encoder = Encoder(PlainText(), tokenizer, ())
    lines = read_text(path).splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            episode = _episode(row, f"m500-{number}", encoder, model)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{path}, line {number} is no trace of a team: {error}") from error
        yield episode


def _episode(row: Mapping[str, Any], id: str, encoder: Encoder, model: str) -> Episode:
    task = Task(id, str(row["question"]), data={"solution": str(row.get("solution", ""))})
    episode = Episode(f"{id}/0", task, id, 0)
    for role, name in LISTS.items():
        messages: list[Message] = []
        turn = 0
        for given in row.get(name) or []:
            message = _message(given)
            if message.role == "system":
                messages = []
            messages.append(message)
            if message.role == "assistant":
                said = _trajectory(messages, role, turn, encoder, model)
                episode.trajectories.append(said)
                turn += 1
    if not episode.trajectories:
        raise ValueError("there is no message of an assistant in it")
    return episode


def _message(given: Mapping[str, Any]) -> Message:
    role, content = given["role"], given["content"]
    if role not in _ROLES or not isinstance(content, str):
        raise ValueError(f"a message has a role of {', '.join(_ROLES)} and a text")
    return Message(role, content)


def _trajectory(
    messages: Sequence[Message], role: str, turn: int, encoder: Encoder, model: str
) -> Trajectory:
    if len(messages) < 2 or messages[-2].role != "user":
        raise ValueError(f"the {role}'s message {turn} answers no user's")
    *history, asked, said = messages
    tokenizer = encoder.tokenizer
    ledger = Ledger(encoder.prompt(asked.content, history))
    start = len(ledger)
    # What a model said may hold tags of its own, but no control token that it did not end with.
    content = tokenizer.escape_control_tokens(said.content, special_only=True)
    end = tokenizer.encode(tokenizer.special_text("eos_token") or "")
    ledger.append(Span.policy([*tokenizer.encode(content), *end]))
    return Trajectory(
        model=model,
        format=PlainText.name,
        ledgers=[ledger],
        turns=[Turn(0, start, len(ledger), FinishReason.EOS)],
        stop=StopReason.ANSWERED,
        answer=said.content,
        team=TeamCall(Speaker(role, role, 0, turn)),
    )


def write_m500(episodes: Iterable[Episode], path: str | Path, tokenizer: Tokenizer) -> int:
    """Write a team's episodes in the shape of M500, one per line, and return how many.

    Attempts that could not be parsed are left out. Where an expert called tools, its message
    includes their outputs as the expert saw them. To train on such episodes without training on
    the outputs, fine-tune on the log itself (`interlace sft`), whose mask excludes them. The file
    is written completely or not at all. Raises DataError if it can't be written, or if an episode
    is not a team's.
    """
    count = 0
    with (
        write_beside(path) as partial,
        partial.open("w", encoding="utf-8", errors="replace") as file,
    ):
        for episode in episodes:
            file.write(json.dumps(_row(episode, tokenizer), ensure_ascii=False) + "\n")
            count += 1
    return count


def _row(episode: Episode, tokenizer: Tokenizer) -> dict[str, Any]:
    row: dict[str, Any] = {"question": episode.task.question, "solution": ""}
    row |= {name: [] for name in LISTS.values()}
    for trajectory in episode.trajectories:
        team = trajectory.team
        if team is None or not team.asked:
            raise DataError(f"{episode.id} is no episode of a team")
        role = team.speaker.role
        if not team.read or role not in LISTS:
            continue
        row[LISTS[role]] += [
            *team.asked,
            {"role": "assistant", "content": _said(trajectory, tokenizer)},
        ]
        row["solution"] = team.read.get("plan", row["solution"])
    return row


def _said(trajectory: Trajectory, tokenizer: Tokenizer) -> str:
    """All after the prompt, without the token that ends it."""
    ids = [id for s in trajectory.ledger if s.source is not Source.PROMPT for id in s.ids.tolist()]
    return tokenizer.decode([id for id in ids if id not in tokenizer.eos_ids])
