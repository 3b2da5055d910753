"""ReTool's cold start (arXiv 2504.11536, section 2.2): plain solutions, rewritten by a model.

A model is shown a problem and its solution in text and asked to put code in the place of the
calculations. What it writes is only a proposal: `check_traces` says what of it is true.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import ClassVar

from ...rollout.formats.base import Format, Parsed
from ...rollout.task import Task
from ...rollout.trajectory import CallRecord, FinishReason
from ...tools import Tool
from ...tools.errors import DataError

__all__ = ["TEMPLATE", "Rewriting", "to_rewrite"]

TEMPLATE = """\
Rewrite a solution so that Python does its calculations.

Keep the reasoning. In the place of each calculation write code that prints its result, and behind \
it exactly what that code prints:

<code>
```python
print(48 / 2)
```
</code>
<interpreter>
24.0
</interpreter>

Then go on with the result. Variables stay from one piece of code to the next. The last line is \
the final answer: <answer>\\boxed{{answer}}</answer>

Problem: {question}

Solution: {solution}

Answer: {answer}

Rewritten solution:"""
"""What the model is asked. `{question}`, `{solution}` and `{answer}` are filled in."""

_FENCED = re.compile(r"\A\s*```[a-z]*\n(.*)\n```\s*\Z", re.DOTALL)


class Rewriting(Format):
    """The format of a model that rewrites: no tools, no system prompt, all it says is the answer.

    Example:
        >>> Rewriting().parse("So it is.", FinishReason.EOS, ()).answer
        'So it is.'
    """

    name: ClassVar[str] = "rewriting"
    stop: ClassVar[tuple[str, ...]] = ()
    inline: ClassVar[bool] = True
    control_tags: ClassVar[tuple[str, ...]] = ()

    def check(self, tools: Sequence[Tool]) -> None:
        """There is nothing that it could call."""

    def system(self, tools: Sequence[Tool]) -> str:
        """Nothing: the template says it all."""
        return ""

    def parse(self, text: str, finish: FinishReason, tools: Sequence[Tool]) -> Parsed:
        """The whole text, without thoughts before it and a fence around it."""
        text = text.rpartition("</think>")[2]
        if fenced := _FENCED.match(text):
            text = fenced[1]
        return Parsed(answer=(text.strip() or None) if finish is FinishReason.EOS else None)

    def render(self, calls: Sequence[CallRecord]) -> str:
        """There are no results."""
        return ""


def to_rewrite(tasks: Iterable[Task], template: str = TEMPLATE) -> list[Task]:
    """The tasks of rewriting: one for each task that has a solution, under the same id.

    Raises DataError where none has, or where the template asks for something else.
    """
    made = []
    for task in tasks:
        solution = task.data.get("solution")
        if not isinstance(solution, str) or task.answer is None:
            continue
        try:
            text = template.format(
                question=task.question, solution=_MARKS.sub("", solution), answer=task.answer
            )
        except (KeyError, IndexError, ValueError) as error:
            raise DataError(
                f"the template can't be filled in ({error}): it may ask for question, solution and "
                "answer, and writes any other brace twice"
            ) from error
        made.append(replace(task, question=text))
    if not made:
        raise DataError("no task has both an answer and a solution: there is nothing to rewrite")
    return made


_MARKS = re.compile(r"<<[^<>]*>>")
"""GSM8K's, which would only be in the way."""
