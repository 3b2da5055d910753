"""Rows of the benchmarks that have checkers of their own, turned into tasks."""

import ast
import base64
import io
import json
import pickle
import random
import re
import zlib
from typing import Any

from ...rollout.task import Task
from .rows import Adapter, OtherKind, Row, row_task, text_id, text_in

__all__ = ["BENCHMARKS", "commongen", "gpqa", "humaneval", "livecodebench", "mbpp"]

_LETTERS = "ABCD"
_GPQA = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


def gpqa(row: Row) -> Task:
    """GPQA (arXiv 2311.12022): `Question`, `Correct Answer`, `Incorrect Answer 1` to `3`.

    The published order has the right option first. It is shuffled here, by a seed that follows
    from the question, so that a task has the same letters in every run and file.
    """
    text = text_in(row, "Question")
    options = [text_in(row, column) for column in _GPQA]
    right = options[0]
    if right in options[1:]:
        raise OtherKind("the right option is also among the wrong ones")
    random.Random(text_id(text)).shuffle(options)
    listed = "\n".join(
        f"({letter}) {option}" for letter, option in zip(_LETTERS, options, strict=True)
    )
    data = {"checker": "choice", "options": options}
    data |= {key: row[key] for key in ("High-level domain", "Subdomain") if row.get(key)}
    own = {"id": row["Record ID"]} if row.get("Record ID") else {}
    return row_task("gpqa", own, f"{text}\n\n{listed}", _LETTERS[options.index(right)], data)


def humaneval(row: Row) -> Task:
    """HumanEval (arXiv 2107.03374): `task_id`, `prompt`, `entry_point`, `test`.

    The question is the prompt, a function without its body; an answer is the whole function, or the
    body.
    """
    name = text_in(row, "entry_point")
    data = {"checker": "tests", "tests": f"{row['test']}\n\ncheck({name})\n", "functions": [name]}
    prompt = str(row["prompt"])
    own = {"id": row.get("task_id")}
    return row_task("humaneval", own, text_in(row, "prompt"), None, data | {"prelude": prompt})


def mbpp(row: Row) -> Task:
    """MBPP (arXiv 2108.07732), full (`text`) or sanitized (`prompt`), with `code`, `test_list`.

    The question gives the tests, as in the paper (section 3): the name of the function stands
    nowhere else. The names that tests take from an answer are those that `code` defines.
    """
    asserts = "\n".join(map(str, row["test_list"]))
    text = text_in(row, "prompt" if "prompt" in row else "text")
    before = row["test_imports"] if "test_imports" in row else [row.get("test_setup_code") or ""]
    tests = "\n".join([*map(str, before), asserts])
    called = {node.id for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.Name)}
    names = re.findall(r"^(?:def|class)\s+(\w+)", str(row["code"]), re.MULTILINE)
    functions = sorted(called & set(names), key=names.index)
    if not functions:
        raise OtherKind("its tests call nothing that its code defines")
    data = {"checker": "tests", "tests": tests, "functions": functions}
    question = f"{text}\nYour code should pass these tests:\n\n{asserts}"
    return row_task("mbpp", {"id": row.get("task_id")}, question, None, data)


def livecodebench(row: Row) -> Task:
    """LiveCodeBench (arXiv 2403.07974): `question_content`, `starter_code`, public and private
    tests on stdin or of a function.

    Packed private tests (base64 of zlib of a pickled string) are unpacked without running anything.
    """
    cases = [*_cases(row["public_test_cases"]), *_cases(row.get("private_test_cases") or "[]")]
    starter = str(row.get("starter_code") or "").strip()
    kinds = {case["testtype"] for case in cases}
    data: dict[str, Any] = {"checker": "tests"}
    if kinds == {"stdin"}:
        data["tests"] = [{"input": case["input"], "output": case["output"]} for case in cases]
    elif kinds == {"functional"}:
        about = row.get("metadata") or {}
        about = json.loads(about) if isinstance(about, str) else about
        data["functions"] = [about["func_name"]]
        data["tests"] = [
            {
                "arguments": [
                    json.loads(line) for line in case["input"].split("\n") if line.strip()
                ],
                "returns": json.loads(case["output"]),
            }
            for case in cases
        ]
    else:
        raise ValueError(f"the tests are of the kinds {kinds}, not of one that can be run")
    if row.get("difficulty"):
        data["level"] = str(row["difficulty"])
    question = text_in(row, "question_content")
    question += f"\n\nComplete this code:\n\n{starter}" if starter else ""
    return row_task("livecodebench", {"id": row.get("question_id")}, question, None, data)


def commongen(row: Row) -> Task:
    """CommonGen (arXiv 1911.03705): `concepts`, or `concept_set` as `ski_V#mountain_N`.

    Rows with the same concepts and other references are one task.
    """
    if "concept_set" in row:
        concepts = [each.split("_")[0] for each in text_in(row, "concept_set").split("#")]
    else:
        concepts = [str(each) for each in row["concepts"]]
    if not concepts:
        raise ValueError("there are no concepts")
    question = "Write a text that makes sense and uses all of these words, in any form: "
    data = {"checker": "coverage", "concepts": concepts}
    return row_task("commongen", {}, question + ", ".join(concepts), None, data)


_PACKED = 256_000_000
"""Bytes of unpacked tests of one task, at most."""


class _Text(pickle.Unpickler):
    """Reads a pickled text and nothing that would import, and so run, anything."""

    def find_class(self, module: str, name: str) -> Any:
        raise ValueError(f"the packed tests want {module}.{name}")


def _cases(text: Any) -> list[dict[str, Any]]:
    if not isinstance(text, str):
        raise ValueError(f"the tests are no text but {text!r:.40}")
    if not text.lstrip().startswith("["):
        unzip = zlib.decompressobj()
        raw = unzip.decompress(base64.b64decode(text, validate=True), _PACKED)
        if not unzip.eof:
            raise ValueError("the packed tests are too large or cut off")
        text = _Text(io.BytesIO(raw)).load()
    listed: list[dict[str, Any]] = json.loads(text)
    return listed


BENCHMARKS: dict[str, Adapter] = {
    "gpqa": gpqa,
    "humaneval": humaneval,
    "mbpp": mbpp,
    "livecodebench": livecodebench,
    "commongen": commongen,
}
"""The adapters, by the names that `--tasks NAME:FILE` takes."""
