"""Rows of the benchmarks that have checkers of their own, turned into tasks."""

import random

from ...rollout.task import Task
from .rows import Adapter, OtherKind, Row, row_task, text_id, text_in

__all__ = ["BENCHMARKS", "gpqa"]

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


BENCHMARKS: dict[str, Adapter] = {"gpqa": gpqa}
"""The adapters, by the names that `--tasks NAME:FILE` takes."""
