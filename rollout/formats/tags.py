"""Formats with tags inside the model's own text: ReTool, ReEx-SQL, Search-R1.

A call is written between two tags, its result follows between two others, and the model continues
in the same message. The formats differ in the names of the tags and in what counts as an answer.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from ...tools import Tool
from ...tools.errors import UsageError
from ..trajectory import CallRecord, FinishReason
from .base import Block, Call, Format, Parsed, Sample
from .scan import (
    Marks,
    boxed,
    in_python_string,
    in_sql_string,
    last_block,
    scan,
    unfenced,
    unlabelled,
    without_thoughts,
)

__all__ = ["PYTHON_SAMPLE", "ReexSql", "Retool", "SearchR1", "Tagged"]

PYTHON_SAMPLE = ("python", "code", "Runs Python code; what it prints comes back.")
"""The tool in the samples of formats that call Python."""


class Tagged(Format):
    """Base class of tag formats. A subclass names its tags and writes its system prompt."""

    inline: ClassVar[bool] = True
    name: ClassVar[str]
    stop: ClassVar[tuple[str, ...]]
    tool: ClassVar[str]
    """The one tool that can be called."""
    argument: ClassVar[str]
    """The argument that takes what stands between the tags."""
    call_tag: ClassVar[str]
    result_tag: ClassVar[str]
    answer_tag: ClassVar[str]
    more_tags: ClassVar[tuple[str, ...]] = ()
    language: ClassVar[str] = ""
    """The language of the code in a call."""
    answer_language: ClassVar[str] = ""

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The call and the answer."""
        call, answer = self.call_tag, self.answer_tag
        return (
            Block(f"<{call}>", f"</{call}>", "code", self.language),
            Block(f"<{answer}>", f"</{answer}>", "answer", self.answer_language),
        )

    @cached_property
    def marks(self) -> Marks:
        """The marks around a call and a result, and before an answer."""
        return Marks.tags(self.call_tag, self.result_tag, self.answer_tag)

    @cached_property
    def _own_tags(self) -> re.Pattern[str]:
        """The format's tags, which are not for people. A Markdown fence is."""
        tags = (re.escape(tag) for tag in self.control_tags if tag.startswith("<"))
        return re.compile("|".join(tags) or "(?!)")

    @property
    def control_tags(self) -> tuple[str, ...]:
        """The opening and closing tags of calls, results, answers and thoughts."""
        tags = (self.call_tag, self.result_tag, self.answer_tag, *self.more_tags)
        return tuple(form for tag in tags for form in (f"<{tag}>", f"</{tag}>"))

    def check(self, tools: Sequence[Tool]) -> None:
        """Raise UsageError for any tool but the one that the tags stand for."""
        for tool in tools:
            if tool.name != self.tool or self.argument not in tool.arguments.model_fields:
                raise UsageError(
                    f"the format {self.name} can only call a tool {self.tool!r} with an argument "
                    f"{self.argument!r}, not {tool.name!r}; use the format hermes for any tool"
                )

    def parse(self, text: str, finish: FinishReason, tools: Sequence[Tool]) -> Parsed:
        """Read one turn: its calls in order, or, where it has none, its answer."""
        final = finish is not FinishReason.STOP
        found = scan(text, self.marks, final=final, in_string=self.in_string)
        if found.pending:
            return Parsed(forged=found.forged, complete=False)
        blocks = zip(found.calls, found.leads, strict=True)
        calls = tuple(self.call(body, lead) for body, lead in blocks)
        said = self.outside_thoughts(found.plain)
        answer = None if calls else self.answer(said, finish)
        if not calls and answer is None and found.unclosed and finish is FinishReason.EOS:
            calls = (Call(self.tool, None, f"The {self.what} was not closed."),)
        # A stop that closes nothing: the policy has not finished speaking.
        complete = final or bool(calls) or answer is not None
        return Parsed(
            calls, answer, found.forged, complete, text=self._own_tags.sub("", said).strip()
        )

    def render(self, calls: Sequence[CallRecord]) -> str:
        """A block for each result, on lines of its own after the calls."""
        tag = self.result_tag
        return "\n" + "".join(f"<{tag}>\n{call.output}\n</{tag}>\n" for call in calls)

    def write_call(
        self, tool: str, arguments: Mapping[str, Any], *, thought: str = "", after: bool = False
    ) -> str:
        """A thought and a block. Raises UsageError for another tool or other arguments."""
        if tool != self.tool or set(arguments) != {self.argument}:
            raise UsageError(
                f"the format {self.name} can only write calls of {self.tool!r} with the argument "
                f"{self.argument!r}, not of {tool!r} with {sorted(arguments)}"
            )
        return self.write_thought(thought) + self.write_block(str(arguments[self.argument]))

    def write_answer(self, answer: str, *, thought: str = "", after: bool = False) -> str:
        """A thought and the answer's block."""
        return f"{self.write_thought(thought)}<{self.answer_tag}>{answer}</{self.answer_tag}>"

    def write_block(self, argument: str) -> str:
        """The block of a call; `read` gets the argument back from what is between its tags."""
        return f"<{self.call_tag}>{argument}</{self.call_tag}>"

    def write_thought(self, thought: str) -> str:
        """The thought before a call or an answer, on lines of its own."""
        if not thought:
            return ""
        return f"<think>{thought}</think>\n" if "think" in self.more_tags else f"{thought}\n"

    def in_string(self, body: str) -> bool:
        """True if a closing tag after `body` would be inside a string of the call."""
        return False

    def read(self, body: str) -> str:
        """The argument, from what is between the tags."""
        return body.strip()

    def answer(self, plain: str, finish: FinishReason) -> str | None:
        """The final answer in text without calls, results and thoughts."""
        return last_block(plain, self.answer_tag, final=finish is FinishReason.EOS) or None

    def outside_thoughts(self, plain: str) -> str:
        """The part of a turn that may hold an answer."""
        return without_thoughts(plain, *self.thought)

    def call(self, body: str, lead: str) -> Call:
        """The call that a block stands for; `lead` is the text before it."""
        argument = self.read(body)
        if not argument:
            return Call(self.tool, None, f"The {self.what} is empty.")
        return Call(self.tool, {self.argument: argument})

    @property
    def what(self) -> str:
        """The name of a call in errors about one written wrongly."""
        return f"<{self.call_tag}> block"


class Retool(Tagged):
    r"""ReTool (arXiv 2504.11536, section 2.3): Python in the middle of the reasoning.

    Example:
        >>> said = "<code>\n```python\nprint(6)\n```\n</code>"
        >>> parsed = Retool().parse(said, FinishReason.STOP, ())
        >>> parsed.calls[0].arguments
        {'code': 'print(6)'}
        >>> Retool().parse(r"So <answer>\boxed{6}</answer>", FinishReason.EOS, ()).answer
        '6'
    """

    name = "retool"
    stop = ("</code>",)
    tool, argument = "python", "code"
    call_tag, result_tag, answer_tag = "code", "interpreter", "answer"
    language = "python"
    sample = Sample(
        "A crate holds 4387 bolts. How many bolts are in 296 crates?",
        (
            "I multiply.\n<code>\n```python\nprint(4387 * 296)\n```\n</code>",
            "So there are 1298552 bolts.\n<answer>\\boxed{1298552}</answer>",
        ),
        ("1298552",),
        PYTHON_SAMPLE,
    )

    def system(self, tools: Sequence[Tool]) -> str:
        """How to run code (where it can be run) and how to answer."""
        answer = (
            "The last part of your response is the final answer: <answer>\\boxed{answer}</answer>"
        )
        if not tools:
            return f"Solve the problem step by step. {answer}"
        return (
            "Solve the problem step by step. Where it helps, write Python code between tags:\n"
            "<code>\n```python\nprint(1 + 1)\n```\n</code>\n"
            "It is run for you, and what it prints or its error comes back between <interpreter> "
            f"and </interpreter>. Then think on. {answer}"
        )

    def in_string(self, body: str) -> bool:
        """Inside a Python string."""
        return in_python_string(body)

    def read(self, body: str) -> str:
        """The code, without its fence."""
        return unfenced(body)

    def write_block(self, argument: str) -> str:
        """The code in a fence."""
        return f"<code>\n```python\n{argument}\n```\n</code>"

    def write_answer(self, answer: str, *, thought: str = "", after: bool = False) -> str:
        """A thought and the answer's block, with the answer in a box."""
        return super().write_answer(f"\\boxed{{{answer}}}", thought=thought)

    def answer(self, plain: str, finish: FinishReason) -> str | None:
        r"""The boxed part of the answer block, or all of it if nothing is boxed.

        A turn that ends without the block but with a `\boxed{}` has answered too.
        """
        block = last_block(plain, self.answer_tag, final=finish is FinishReason.EOS)
        if block is None:
            return (boxed(plain) or None) if finish is FinishReason.EOS else None
        found = boxed(block)
        return (block if found is None else found) or None


class ReexSql(Tagged):
    """ReEx-SQL (arXiv 2505.12768): queries that look around before the final one.

    Example:
        >>> ReexSql().parse("<final_sql>SELECT 1</final_sql>", FinishReason.STOP, ()).answer
        'SELECT 1'
    """

    name = "reex_sql"
    stop = ("</intermediate_sql>", "</final_sql>")
    tool, argument = "sql", "query"
    call_tag, result_tag, answer_tag = "intermediate_sql", "result", "final_sql"
    more_tags = ("think",)
    language = answer_language = "sql"
    sample = Sample(
        "Table singer(name, age). How many singers are older than 30?",
        (
            "<think>\nI look at the ages first.\n"
            "<intermediate_sql>SELECT age FROM singer LIMIT 3</intermediate_sql>",
            "They are numbers.\n</think>\n"
            "<final_sql>SELECT count(*) FROM singer WHERE age > 30</final_sql>",
        ),
        ("age\n28\n41\n35",),
        ("sql", "query", "Runs a query."),
    )

    def system(self, tools: Sequence[Tool]) -> str:
        """How to look around in the database, what is in it and how to answer."""
        answer = "End with one query that answers the question: <final_sql>SELECT ...</final_sql>"
        if not tools:
            return (
                "Write an SQL query for the question. First reason between <think> and </think>. "
                f"{answer}"
            )
        told = "\n\n".join(tool.description for tool in tools)
        return (
            "Write an SQL query for the question. Reason between <think> and </think>. To look at "
            "the data or try a part of the query, write <intermediate_sql>SELECT "
            "...</intermediate_sql>: it is run, and its columns and first rows, or its error, come "
            f"back between <result> and </result>. Then think on. {answer}\n\n{told}"
        )

    def in_string(self, body: str) -> bool:
        """Inside an SQL string."""
        return in_sql_string(body)

    def read(self, body: str) -> str:
        """The query, without a fence."""
        return _query(body)

    def answer(self, plain: str, finish: FinishReason) -> str | None:
        """The final query."""
        block = last_block(plain, self.answer_tag, final=finish is FinishReason.EOS)
        return (_query(block) or None) if block else None


def _query(body: str) -> str:
    return unlabelled(unfenced(body, "sql")).strip()


class SearchR1(Tagged):
    """Search-R1 (arXiv 2503.09516): searches between thoughts.

    Example:
        >>> said = "<search>tallest tower</search>"
        >>> SearchR1().parse(said, FinishReason.STOP, ()).calls[0].arguments
        {'query': 'tallest tower'}
    """

    name = "search_r1"
    stop = ("</search>", "</answer>")
    tool, argument = "search", "query"
    call_tag, result_tag, answer_tag = "search", "information", "answer"
    more_tags = ("think",)
    sample = Sample(
        "In which country is the city with the tallest tower?",
        (
            "<think>I do not know the tower.</think>\n<search>city of the tallest tower</search>",
            "<think>Dubai lies in the Emirates.</think>\n<answer>United Arab Emirates</answer>",
        ),
        ("(1) Towers: the tallest tower stands in Dubai.",),
        ("search", "query", "Searches the corpus."),
    )

    def system(self, tools: Sequence[Tool]) -> str:
        """How to search and how to answer."""
        answer = "Give the answer without explanation: <answer>Paris</answer>"
        if not tools:
            return f"Answer the question. First reason between <think> and </think>. {answer}"
        return (
            "Answer the question. Reason between <think> and </think> first, and again whenever "
            "you have got new information. If you find that you lack knowledge, search for it: "
            "<search>query</search>. The best results come back between <information> and "
            "</information>. Search as often as you want. Once nothing is missing: "
            f"{answer[0].lower()}{answer[1:]}"
        )
