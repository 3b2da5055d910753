"""Episodes as attempts: what statistics need of each, and whether it was right."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b

from ...rollout.formats import recorded_format
from ...rollout.many.votes import Classes, mean_logprob, numbered
from ...rollout.task import Task
from ...rollout.tokenizer import Tokenizer
from ...rollout.trajectory import Branch, CallRecord, Episode, Trajectory
from ...tools import ErrorKind
from ..rewards import Checker, Unscored, why_unscored

__all__ = ["Attempt", "read_attempts", "settle", "standing", "told_apart"]

_NOT_ITS_DOING = (ErrorKind.UNAVAILABLE, ErrorKind.REFUSED, ErrorKind.INTERRUPTED)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a task, in numbers.

    `vote` numbers the answer among those of the task's attempts that the checker tells apart, in
    the order in which they were first given; None where it has no vote. `logprob` is the mean over
    its sampled tokens, which settles ties. Tokens are those the policy
    sampled; `response_tokens` counts what tools and the host wrote, too.
    """

    task: str
    sample: int
    correct: bool
    stop: str
    question: str = ""
    """A digest of the question, by which the tasks of two runs are told to be the same."""
    answer: str | None = None
    vote: int | None = None
    logprob: float | None = None
    tokens: int = 0
    response_tokens: int = 0
    turns: int = 0
    seconds: float | None = 0.0
    """None if the clock failed."""
    calls: int = 0
    """Calls that were run; those that were refused are not counted."""
    failed_calls: int = 0
    """Of those, the ones that failed by the policy's doing."""
    code_lines: int = 0
    """Lines, blank ones aside, of what the calls were given: code, queries."""
    last_call_passed: bool | None = None
    first_call: float | None = None
    """Where the first call begins, as a share of the response: 0 its beginning, 1 its end."""
    corrected: bool = False
    """Whether a call that failed was followed by one that did not."""


def standing(episode: Episode) -> Task:
    """The task as its checker should see it in this episode.

    Where a task has both an answer and a gold query and names no checker, the format decides: what
    a policy of ReEx-SQL answers with is a query.
    """
    task = episode.task
    by_query = bool(episode.trajectories) and episode.trajectory.format == "reex_sql"
    if by_query and "gold" in task.data and "checker" not in task.data:
        return replace(task, data=task.data | {"checker": "sql"})
    return task


def settle(episode: Episode, checker: Checker) -> str | None:
    """Set `rewards["correct"]`; where that can't be said, take it away and return why."""
    episode.rewards.pop("correct", None)
    if why := why_unscored(episode):
        return why
    try:
        episode.rewards["correct"] = float(checker.right(standing(episode), episode.answer))
    except Unscored as error:
        return str(error)
    return None


def read_attempts(
    episodes: Iterable[Episode], checker: Checker, tokenizer: Tokenizer | None = None
) -> tuple[list[Attempt], Counter[str]]:
    """The attempts of episodes, and how many say nothing, by the reason; sets their `correct`.

    Of an episode that occurs twice (it was run again), the last counts. Without the tokenizer all
    is known but where the first call begins. Raises DataError where a task names a checker that
    does not exist.
    """
    last = {episode.id: episode for episode in episodes}
    groups: defaultdict[str, list[Episode]] = defaultdict(list)
    unjudged: Counter[str] = Counter()
    for episode in last.values():
        why = settle(episode, checker)
        if why is None:
            groups[episode.group].append(episode)
        else:
            unjudged[why] += 1
    attempts = []
    classes = told_apart(checker)
    for group in groups.values():
        ordered = sorted(group, key=lambda episode: episode.sample)
        try:
            votes = classes(ordered[0].task, ordered)
        except Unscored as error:
            unjudged[str(error)] += len(ordered)
            continue
        for episode, vote in zip(ordered, votes, strict=True):
            attempts.append(_attempt(episode, vote, tokenizer))
    return attempts, unjudged


def told_apart(checker: Checker) -> Classes:
    """Answers as the tasks' own checker tells them apart: what maj@k and `vote@k` go by.

    Queries by what they give on the task's database; see `query_classes`.
    """

    def classes(task: Task, episodes: Sequence[Episode]) -> list[int | None]:
        answers = [episode.answer for episode in episodes]
        task = standing(episodes[0]) if episodes else task
        if checker.by_query(task):
            return checker.sql.classes(task, answers)
        return numbered(answers, partial(_same, checker, task))

    return classes


def _same(checker: Checker, task: Task, a: str, b: str) -> bool:
    """True if texts are the same or the checker finds them equal; False if it can't tell."""
    if a == b:
        return True
    try:
        return checker.equal(task, a, b)
    except Unscored:  # it takes the known one for the gold one, and that one can't be worked out
        return False


def _attempt(episode: Episode, vote: int | None, tokenizer: Tokenizer | None) -> Attempt:
    turns = [turn for each in episode.trajectories for turn in each.own_turns]
    calls = [call for turn in turns for call in turn.calls]
    run = [call for call in calls if call.error not in _NOT_ITS_DOING]
    passed = [call.error is None for call in run]
    return Attempt(
        task=episode.group,
        sample=episode.sample,
        correct=episode.rewards["correct"] > 0,
        stop=episode.stop.value if episode.stop else "cancelled",
        question=_digest(episode.task.question),
        answer=episode.answer,
        vote=vote,
        logprob=_finite(mean_logprob(episode)),
        tokens=sum(each.sampled_tokens for each in episode.trajectories),
        response_tokens=sum(map(_response_tokens, episode.trajectories)),
        turns=len(turns),
        seconds=_finite(episode.seconds),
        calls=len(run),
        failed_calls=passed.count(False),
        code_lines=sum(map(_lines, run)),
        last_call_passed=passed[-1] if passed else None,
        first_call=None if tokenizer is None else _first_call(episode, tokenizer),
        corrected=False in passed and any(passed[passed.index(False) :]),
    )


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "replace"), digest_size=6).hexdigest()


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def _response_tokens(trajectory: Trajectory) -> int:
    """Of a branch, those that it does not share."""
    branch = trajectory.branch or Branch("")
    return sum(
        len(ledger) - max(ledger.prompt_length, branch.tokens if at == branch.ledger else 0)
        for at, ledger in enumerate(trajectory.ledgers)
        if at >= branch.ledger
    )


def _lines(call: CallRecord) -> int:
    texts = [value for value in (call.arguments or {}).values() if isinstance(value, str)]
    return sum(bool(line.strip()) for text in texts for line in text.splitlines())


def _first_call(episode: Episode, tokenizer: Tokenizer) -> float | None:
    """Tokens of the response before the first call's opening mark, over all of them."""
    before = 0
    for trajectory in episode.trajectories:
        for turn in trajectory.turns:
            if turn.calls:
                ledger = trajectory.ledgers[turn.ledger]
                text = trajectory.text(turn, tokenizer)
                start = _opening(trajectory.format, text)
                lead = turn.start - ledger.prompt_length + len(tokenizer.encode(text[:start]))
                return (before + lead) / sum(map(_response_tokens, episode.trajectories))
        before += _response_tokens(trajectory)
    return None


def _opening(format_name: str, text: str) -> int:
    """The position of the first call's opening mark in the text of a turn that has calls."""
    format = recorded_format(format_name)
    blocks = () if format is None else format.blocks
    found = [text.find(block.open) for block in blocks if block.kind != "answer"]
    return min((position for position in found if position >= 0), default=0)
