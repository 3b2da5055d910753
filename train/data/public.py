"""Rows of public data sets, turned into tasks. Each adapter knows the shapes of one set.

A task checks itself: `data["checker"]` says how (see `train/rewards`), and `data["tools"]` names
what it is to be solved with. Many sets write into each question how to give the answer. Here that
is a format's business, so adapters leave it out unless told to keep it.
"""

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ...rollout.formats.scan import boxed, last_block
from ...rollout.row_values import answer_text, answer_texts, row_id
from ...rollout.task import Task
from ...tools.errors import UsageError
from ...tools.importing import find
from .benchmarks import BENCHMARKS
from .rows import Adapter, OtherKind, Row, only_answer, row_task, text_id, text_in

__all__ = [
    "ADAPTERS",
    "SOURCES",
    "Adapter",
    "OtherKind",
    "Row",
    "columns",
    "find_adapter",
    "fitting",
    "row_adapter",
    "shape_error",
]


def columns(
    question: str = "question",
    answer: str | None = "answer",
    id: str | None = None,
    *,
    checker: str = "exact",
    **data: str,
) -> Adapter:
    """An adapter for any table: which column holds the question, the answer, the id.

    Of a list of answers each is right. `data` names further columns under the keys that they get in
    the task's data; all others go there under their own names.

    Example:
        >>> adapter = columns("q", None, checker="sql", gold="sql")
        >>> adapter({"q": "How many?", "sql": "select 1"}).data
        {'gold': 'select 1', 'checker': 'sql'}
    """

    def adapt(row: Row) -> Task:
        answers = [] if answer is None else answer_texts(row[answer])
        taken = {question, answer, id, *data.values()}
        rest = {key: value for key, value in row.items() if key not in taken}
        rest |= {key: row[column] for key, column in data.items()}
        if len(answers) > 1:
            rest["answers"] = answers
        text = text_in(row, question)
        name = None if id is None else row_id(row[id])
        gold = next(iter(answers), None)
        return Task(name or text_id(text), text, gold, rest | {"checker": checker})

    return adapt


def gsm8k(row: Row, *, keep_instruction: bool = False) -> Task:
    """`question`, and `answer`: a solution whose last line is `#### 72`; or verl's Parquet of it.

    In the latter `extra_info` holds both, and `prompt` the question with an instruction.
    """
    if "reward_model" not in row:
        question, solution = text_in(row, "question"), text_in(row, "answer")
    else:
        extra = row.get("extra_info") or {}
        question, solution = _message(row["prompt"], 0), str(extra.get("answer") or "")
        if not keep_instruction:
            question = str(extra.get("question") or _before(question, _STEP_BY_STEP))
    reasoning, mark, answer = solution.rpartition("####")
    if "reward_model" in row:
        answer = only_answer(row["reward_model"]["ground_truth"])
    elif not mark:
        raise ValueError("the answer has no line that begins with ####")
    elif not answer.strip():
        raise ValueError("the answer has nothing behind ####")
    data = {"checker": "math", "tools": ["python"]}
    if mark:
        data["solution"] = reasoning.rstrip()
    return row_task("gsm8k", row, question.strip(), answer.strip().replace(",", ""), data)


_STEP_BY_STEP = " Let's think step by step and output the final answer"


def math(row: Row, *, keep_instruction: bool = False) -> Task:
    r"""`problem`, and `answer` or a `solution`, whose last `\boxed{}` is the answer otherwise.

    Or verl's Parquet of it: `prompt` with an instruction, `reward_model.ground_truth`.
    """
    data: dict[str, Any] = {"checker": "math", "tools": ["python"]}
    if "reward_model" in row:
        question = _message(row["prompt"], 0)
        if not keep_instruction:
            question = _before(question, _STEP_BY_STEP).strip()
        truth = only_answer(row["reward_model"]["ground_truth"])
        return row_task("math", row, question, truth, data)
    answer = answer_text(row.get("answer"))
    if "answer" in row and not row.get("solution"):
        answer = only_answer(answer)
    else:
        data["solution"] = text_in(row, "solution")
        answer = answer or _box(data["solution"])
    if not answer:
        raise ValueError("the solution has no \\boxed{}")
    data |= {key: row[key] for key in ("level", "type", "subject") if key in row}
    return row_task("math", row, text_in(row, "problem"), answer, data)


_DAPO_AFTER = "\n\nRemember to put your answer on its own line"
_DAPO_BEFORE = "is the answer to the problem.\n\n"


def dapo_math(row: Row, *, keep_instruction: bool = False) -> Task:
    """DAPO-Math-17k, as verl reads it: `prompt` as messages, `reward_model.ground_truth`.

    The public file holds each prompt about a hundred times: a task's id follows from its question,
    so that these are one.
    """
    question = _message(row["prompt"], 0)
    if not keep_instruction:
        _, found, inner = question.partition(_DAPO_BEFORE)
        question = _before(inner if found else question, _DAPO_AFTER).strip()
    data = {"checker": "math", "tools": ["python"], "source": row.get("data_source")}
    return row_task("dapo", {}, question, only_answer(row["reward_model"]["ground_truth"]), data)


def aime(row: Row) -> Task:
    """`problem` or `question`, and `answer`, in either case of the first letter."""
    lower = {key.casefold(): value for key, value in row.items()}
    data: dict[str, Any] = {"checker": "math", "tools": ["python"]}
    data |= {key: lower[key] for key in ("solution", "year", "url") if lower.get(key)}
    question = text_in(lower, "problem" if "problem" in lower else "question")
    return row_task("aime", lower, question, only_answer(lower["answer"]), data)


_RETOOL_BEFORE = "*user question:*"
_RETOOL_AFTER = "Remember to place the final answer"
_RETOOL_LINE = re.compile(r"\AAnswer the following [^\n]*\\boxed\{answer\}[^\n]*\n")


def retool_sft(row: Row, *, keep_instruction: bool = False) -> Task:
    """ReTool-SFT: `messages`, a prompt that ends with the question, and a trace in tags.

    The trace is in the task's data as `demonstration`.
    """
    prompt, trace = _message(row["messages"], 0), _message(row["messages"], 1)
    _, found, question = prompt.partition(_RETOOL_BEFORE)
    if not found:
        raise ValueError(f"the prompt has no {_RETOOL_BEFORE!r}")
    question = _before(question, _RETOOL_AFTER).strip()
    question = prompt if keep_instruction else _RETOOL_LINE.sub("", question).strip()
    block = last_block(trace, "answer", final=False)
    answer = _box(block) or block if block else None
    data = {"checker": "math", "tools": ["python"], "demonstration": trace}
    return row_task("retool", row, question, answer, data)


_THOUGHTS_BEFORE = "Return your final response within \\boxed{}."
_SOLUTION = re.compile(r"<\|begin_of_solution\|>(.*?)(?:<\|end_of_solution\|>|\Z)", re.DOTALL)


def openthoughts(row: Row, *, keep_instruction: bool = False) -> Task:
    r"""OpenThoughts-114k, mathematics only, in either shape: `conversations`, whose reply is kept
    as `demonstration`; or the metadata's `problem` and `ground_truth_solution`.

    The answer is the last `\boxed{}` of the solution. Raises OtherKind for programming and the
    like.
    """
    data: dict[str, Any] = {"checker": "math", "tools": ["python"]}
    if "conversations" in row:
        question = _message(row["conversations"], 0, "value")
        reply = _message(row["conversations"], 1, "value")
        if not keep_instruction:
            question = question.removeprefix(_THOUGHTS_BEFORE).strip()
        data["demonstration"] = reply
        solution = match[1] if (match := _SOLUTION.search(reply)) else reply
        where = "reply"
    else:
        question, given = text_in(row, "problem"), row["ground_truth_solution"]
        if row.get("domain") not in (None, "math") or not given:
            raise OtherKind(
                f"there is no ground_truth_solution of mathematics (domain {row.get('domain')!r})"
            )
        solution, where = str(given), "ground_truth_solution"
    answer = _box(solution)
    if not answer:
        raise OtherKind(f"the {where} has no \\boxed{{}}, so that there is no answer to check")
    return row_task("openthoughts", row, question, answer, data)


def spider(row: Row, *, checker: str = "sql", suite: bool = False) -> Task:
    """`db_id`, `question`, `query`. `with_databases` adds their files: all of a folder's, if it is
    a test suite (arXiv 2010.02840). `checker` may be `set_match`.
    """
    data: dict[str, Any] = {"checker": checker, "tools": ["sql"], "rule": "spider"}
    data |= {"gold": text_in(row, "query"), "db_id": text_in(row, "db_id")}
    if suite:
        data["suite"] = True
    return row_task("spider", row, text_in(row, "question"), None, data)


def bird(row: Row) -> Task:
    """`db_id`, `question`, `evidence` (goes into the question), `SQL`, `difficulty`."""
    data: dict[str, Any] = {"checker": "sql", "tools": ["sql"], "rule": "bird"}
    data |= {"gold": text_in(row, "SQL"), "db_id": text_in(row, "db_id")}
    if level := answer_text(row.get("difficulty")):
        data["level"] = level
    hint = (answer_text(row.get("evidence")) or "").strip()
    question = text_in(row, "question") + (f"\nHint: {hint}" if hint else "")
    return row_task("bird", {"id": row.get("question_id")}, question, None, data)


def open_questions(row: Row, *, keep_instruction: bool = False) -> Task:
    """Questions of facts: `question`, and the answers that are right in `golden_answers`, `answer`,
    `answers` or `possible_answers`, with `answer_aliases`.

    Natural Questions, HotpotQA, TriviaQA (`value` and `aliases`), SQuAD (`text`), PopQA, MuSiQue,
    2WikiMultihopQA; or Search-R1's Parquet of them, whose `prompt` holds an instruction and the
    question, and whose `reward_model.ground_truth.target` are the answers.
    """
    row = {key.casefold(): value for key, value in row.items()}
    answers = _right_answers(row)
    if keep_instruction and "prompt" in row:
        question = _message(row["prompt"], 0)
    elif "question" in row:
        question = text_in(row, "question")
    else:
        whole = _message(row["prompt"], 0)
        question = whole.rpartition("</answer>. Question:")[2].strip() or whole
    data: dict[str, Any] = {"checker": "em", "tools": ["search"], "answers": answers}
    data |= {key: row[key] for key in ("level", "type") if row.get(key) is not None}
    own = next((row[key] for key in ("id", "_id", "question_id") if key in row), None)
    return row_task("open", {"id": own}, question, answers[0], data)


def _right_answers(row: Row) -> list[str]:
    """All answers of a row of facts, of the first column that has one."""
    truth = row.get("reward_model")
    given = {name: row.get(name) for name in ("golden_answers", "answer", "answers")}
    given["reward_model"] = truth.get("ground_truth") if isinstance(truth, Mapping) else None
    listed = row.get("possible_answers")
    given["possible_answers"] = json.loads(listed) if isinstance(listed, str) else listed
    for value in given.values():
        if isinstance(value, Mapping):
            parts = {name.casefold(): each for name, each in value.items()}
            known = [name for name in ("target", "value", "aliases", "text") if name in parts]
            if not known:
                raise ValueError(f"an answer has no keys {', '.join(map(str, value))}")
            found = [text for name in known for text in answer_texts(parts[name])]
        else:
            found = answer_texts(value)
        if found:
            return list(dict.fromkeys([*found, *answer_texts(row.get("answer_aliases"))]))
    if not given.keys() & row.keys():
        raise KeyError("answer")
    raise OtherKind("it has no answer")


def verl_row(row: Row) -> Task:
    """Any row for verl: the last message of `prompt` as it is, `reward_model.ground_truth`.

    A list of answers, also as {"target": [...]}, means that all of them are right. Where we wrote
    the row ourselves, `extra_info.task` holds the whole task.
    """
    extra = row.get("extra_info")
    extra = extra if isinstance(extra, Mapping) else {}
    if isinstance(extra.get("task"), str):
        whole = json.loads(extra["task"])
        return Task(whole["id"], whole["question"], whole["answer"], whole["data"])
    if isinstance(row["prompt"], str) and "reward_model" not in row:
        raise ValueError("the prompt is no list of messages, and there is no reward_model")
    question = _message(row["prompt"], -1)
    truth = row.get("reward_model")
    truth = truth.get("ground_truth") if isinstance(truth, Mapping) else None
    if isinstance(truth, Mapping):  # Search-R1's rows
        truth = truth.get("target")
    data: dict[str, Any] = {"source": str(row.get("data_source", ""))}
    answers = answer_texts(truth)
    if not isinstance(truth, str | None):
        data["answers"] = answers
    ids = (row_id(each) for each in (extra.get("index"), row.get("index"), row.get("uid")))
    id = next(filter(None, ids), None) or text_id(question)
    return Task(id, question, next(iter(answers), None), data)


ADAPTERS: dict[str, Adapter] = {
    "gsm8k": gsm8k,
    "math": math,
    "dapo_math": dapo_math,
    "aime": aime,
    "retool_sft": retool_sft,
    "openthoughts": openthoughts,
    "spider": spider,
    "bird": bird,
    "nq": open_questions,
    "hotpotqa": open_questions,
    "verl": verl_row,
    **BENCHMARKS,
}

SOURCES: Mapping[str, str] = {
    "math_dapo": "dapo_math",
    "openai/gsm8k": "gsm8k",
    "DigitalLearningGmbH/MATH-lighteval": "math",
    "lighteval/MATH": "math",
    "HuggingFaceH4/MATH-500": "math",
    **dict.fromkeys(
        ("nq", "hotpotqa", "triviaqa", "popqa", "2wikimultihopqa", "musique", "bamboogle"), "nq"
    ),
}
"""What a row's `data_source` says of its shape: the adapter's name. The last seven are the sets of
Search-R1 (arXiv 2503.09516)."""


def find_adapter(name: str, *, keep_instruction: bool = False) -> Adapter:
    """The adapter of that name, by the grammar of `tools/importing.py`.

    Raises UsageError for an unknown one, or if its set has no instruction to keep.
    """
    found = find("adapter", name, ADAPTERS)
    adapter: Adapter = found.bind(found.value)
    if not callable(adapter) or found.source:
        raise UsageError(f"{name!r} is not an adapter: name a function of a row")
    if not keep_instruction or adapter is verl_row:  # which takes nothing away
        return adapter
    if "keep_instruction" not in inspect.signature(adapter).parameters:
        raise UsageError(f"the questions of {name} hold no instruction that could be kept")
    return partial(adapter, keep_instruction=True)  # type: ignore[call-arg]  # just looked at


def row_adapter(row: Row) -> str | None:
    """The adapter's name for a row in verl's shape, as its `data_source` says.

    `verl` for one that we wrote ourselves; None where no adapter knows the source.
    """
    extra = row.get("extra_info")
    if isinstance(extra, Mapping) and isinstance(extra.get("task"), str):
        return "verl"
    return SOURCES.get(str(row.get("data_source")))


def fitting(row: Row) -> list[str]:
    """The adapters that make a task of a row, found by trying each."""
    found: list[str] = []
    for name, adapter in ADAPTERS.items():
        try:
            adapter(row)
        except (KeyError, TypeError, ValueError, AttributeError, LookupError):
            continue
        if adapter not in [ADAPTERS[each] for each in found]:
            found.append(name)
    return found


def shape_error(error: Exception, row: Any) -> str:
    """Why an adapter could not use a row, which columns are there, and which adapters fit."""
    why = f"there is no {error}" if isinstance(error, KeyError) else str(error)
    if not isinstance(row, Mapping):
        kind = "a list" if isinstance(row, list) else f"{row!r:.40}"
        return f"it is {kind}, not an object with columns"
    fits = fitting(row)
    plain = isinstance(row.get("question"), str)
    choices = [f"{name}:FILE" for name in fits] + ["FILE alone, as tasks of your own"] * plain
    said = f"{why}; its columns are {', '.join(map(str, row))}"
    return said + (f", which fit {' or '.join(choices)}" if choices else ", which fit no adapter")


def _message(messages: Any, place: int, column: str = "content") -> str:
    """The text of one of the messages, which are a list, out of Parquet an array, or one text."""
    if isinstance(messages, str):
        messages = [{"content": messages}]
    if isinstance(messages, Mapping) or not hasattr(messages, "__len__"):
        raise ValueError(f"{messages!r:.40} are no messages")
    listed: Sequence[Any] = list(messages)
    if len(listed) <= max(place, 0):
        raise ValueError(f"there is no message number {place}")
    role = listed[place].get("role", listed[place].get("from", "user"))
    if place <= 0 and role not in ("user", "human"):
        raise ValueError(f"the message that should be the question is of the role {role!r}")
    return text_in(listed[place], column)


def _before(text: str, mark: str) -> str:
    return text.partition(mark)[0]


_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s+([^\s{$](?:(?!\\[)\]]|[$\n]).)*)")


def _box(solution: str) -> str | None:
    r"""The last box of a solution, which may be written without braces: `$\boxed 2$`."""
    bare = [*_BARE_BOX.finditer(solution)]
    if bare and "\\boxed{" not in solution[bare[-1].start() :]:
        return bare[-1][1].strip(" .")
    return boxed(solution)
