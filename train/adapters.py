"""Rows of public data sets, turned into tasks. Each adapter knows one shape.

What an adapter gives back checks itself: `data["checker"]` says how (see `train/rewards`).
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from ..rollout.formats.scan import boxed, last_block
from ..rollout.task import Task

__all__ = ["ADAPTERS", "Adapter", "Row", "columns"]

Row: TypeAlias = Mapping[str, Any]
Adapter: TypeAlias = Callable[[Row], Task]
"""Raises KeyError for a column that is missing, ValueError for one that holds something else."""


def columns(
    question: str = "question",
    answer: str | None = "answer",
    id: str | None = None,
    *,
    checker: str = "exact",
    **data: str,
) -> Adapter:
    """An adapter for any table: which column holds the question, the answer, the id.

    `data` names further columns under the keys that they get in the task's data; all others go
    there under their own names.

    Example:
        >>> adapter = columns("q", None, checker="sql", gold="sql")
        >>> adapter({"q": "How many?", "sql": "select 1"}).data
        {'gold': 'select 1', 'checker': 'sql'}
    """

    def adapt(row: Row) -> Task:
        given = None if answer is None else row[answer]
        taken = {question, answer, id, *data.values()}
        rest = {key: value for key, value in row.items() if key not in taken}
        rest |= {key: row[column] for key, column in data.items()}
        text = _text(row, question)
        name = _hash(text) if id is None else str(row[id])
        return Task(name, text, None if given is None else str(given), rest | {"checker": checker})

    return adapt


def gsm8k(row: Row) -> Task:
    """`question`, and `answer`: a solution whose last line is `#### 72`."""
    solution, mark, answer = _text(row, "answer").rpartition("####")
    if not mark:
        raise ValueError("the answer has no line that begins with ####")
    data = {"checker": "math", "solution": solution.rstrip()}
    return _task("gsm8k", row, _text(row, "question"), answer.strip().replace(",", ""), data)


def math(row: Row) -> Task:
    r"""`problem` and `solution`, whose last `\boxed{}` is the answer where there is no `answer`."""
    solution = _text(row, "solution")
    answer = row.get("answer") or boxed(solution)
    if not answer:
        raise ValueError("the solution has no \\boxed{}")
    data = {"checker": "math", "solution": solution}
    data |= {key: row[key] for key in ("level", "type", "subject") if key in row}
    return _task("math", row, _text(row, "problem"), str(answer), data)


_DAPO_AFTER = "\n\nRemember to put your answer on its own line"
_DAPO_BEFORE = "is the answer to the problem.\n\n"


def dapo_math(row: Row) -> Task:
    """DAPO-Math-17k, as verl reads it: `prompt` as messages, `reward_model.ground_truth`.

    What its prompt says of the form of an answer is left out: that is a format's business.
    """
    question = _message(row["prompt"], 0)
    _, found, inner = question.partition(_DAPO_BEFORE)
    question = (inner if found else question).partition(_DAPO_AFTER)[0].strip()
    index = (row.get("extra_info") or {}).get("index")
    data = {"checker": "math", "source": row.get("data_source")}
    answer = str(row["reward_model"]["ground_truth"])
    return _task("dapo", {"id": index}, question, answer, data)


def aime(row: Row) -> Task:
    """`problem` and `answer`, in either case of the first letter."""
    lower = {key.casefold(): value for key, value in row.items()}
    data = {"checker": "math"}
    data |= {key: lower[key] for key in ("solution", "year", "url") if lower.get(key)}
    return _task("aime", lower, _text(lower, "problem"), str(lower["answer"]), data)


_RETOOL_BEFORE = "*user question:*"
_RETOOL_AFTER = "Remember to place the final answer"


def retool_sft(row: Row) -> Task:
    """ReTool-SFT: `messages`, a prompt that ends with the question, and a trace in tags.

    The trace stands in the task's data as `demonstration`.
    """
    prompt, trace = _message(row["messages"], 0), _message(row["messages"], 1)
    _, found, question = prompt.partition(_RETOOL_BEFORE)
    if not found:
        raise ValueError(f"the prompt has no {_RETOOL_BEFORE!r}")
    question = question.partition(_RETOOL_AFTER)[0].strip()
    block = last_block(trace, "answer", final=False)
    answer = boxed(block) or block if block else None
    return _task("retool", row, question, answer, {"checker": "math", "demonstration": trace})


def spider(row: Row) -> Task:
    """`db_id`, `question`, `query`. Where the databases lie, `with_databases` says."""
    data = {"checker": "sql", "rule": "spider", "gold": _text(row, "query")}
    data["db_id"] = _text(row, "db_id")
    return _task("spider", row, _text(row, "question"), None, data)


def bird(row: Row) -> Task:
    """`db_id`, `question`, `evidence` (goes into the question), `SQL`, `difficulty`."""
    data = {"checker": "sql", "rule": "bird", "gold": _text(row, "SQL")}
    data["db_id"] = _text(row, "db_id")
    if row.get("difficulty"):
        data["level"] = str(row["difficulty"])
    hint = str(row.get("evidence") or "").strip()
    question = _text(row, "question") + (f"\nHint: {hint}" if hint else "")
    return _task("bird", {"id": row.get("question_id")}, question, None, data)


def open_questions(row: Row) -> Task:
    """Natural Questions, HotpotQA and the like: `question`, and `answer` or `golden_answers`."""
    given = row["golden_answers"] if "golden_answers" in row else row["answer"]
    answers = [given] if isinstance(given, str) else [str(each) for each in given]
    if not answers:
        raise ValueError("there is no answer")
    data: dict[str, Any] = {"checker": "em", "answers": answers}
    data |= {key: row[key] for key in ("level", "type") if key in row}
    ids = {"id": row.get("id", row.get("_id"))}
    return _task("open", ids, _text(row, "question"), answers[0], data)


ADAPTERS: dict[str, Adapter] = {
    "gsm8k": gsm8k,
    "math": math,
    "dapo_math": dapo_math,
    "aime": aime,
    "retool_sft": retool_sft,
    "spider": spider,
    "bird": bird,
    "nq": open_questions,
    "hotpotqa": open_questions,
}


def _task(source: str, row: Row, question: str, answer: str | None, data: dict[str, Any]) -> Task:
    """A task whose id is the row's own, or follows from the question, never from its place."""
    own = row.get("id", row.get("unique_id"))
    name = _hash(question) if own is None else str(own)
    return Task(f"{source}-{name}", question, answer, data)


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()


def _text(row: Row, column: str) -> str:
    text = row[column]
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"the column {column!r} holds no text but {text!r:.40}")
    return text.strip()


def _message(messages: Any, place: int) -> str:
    if not isinstance(messages, Sequence) or len(messages) <= place:
        raise ValueError(f"there is no message number {place}")
    return _text(messages[place], "content")
