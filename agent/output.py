"""Structured output: an answer as a value of a type, checked by pydantic."""

import json
import re
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from ..tools.errors import UsageError

__all__ = ["OutputSchema"]

T = TypeVar("T")

_FENCE = re.compile(r"```(?:json)?[^\S\n]*\n(.*?)```", re.DOTALL)


class OutputSchema(Generic[T]):
    """The required form of an answer: any type that pydantic supports.

    Objects and lists are asked for as JSON, with their schema after the question. A number or a
    text needs no words: the answer itself is read.

    Example:
        >>> OutputSchema(int).read("1,298,552".replace(",", ""))
        1298552
        >>> OutputSchema(dict[str, int]).read('It is {"bolts": 3}.')
        {'bolts': 3}
    """

    def __init__(self, kind: type[T]) -> None:
        """Raises UsageError for a type that has no JSON schema."""
        try:
            self._adapter: TypeAdapter[T] = TypeAdapter(kind)
            self.json_schema: dict[str, Any] = self._adapter.json_schema()
        except PydanticUserError as error:
            raise UsageError(f"{kind!r} has no JSON schema: take a pydantic model") from error
        self._simple = self.json_schema.get("type") in ("integer", "number", "string", "boolean")

    def ask(self, question: str) -> str:
        """The question, with what the answer has to look like."""
        if self._simple:
            return question
        return f"{question}\n\nThe final answer is JSON that fits this schema: {self._told}"

    def ask_again(self, problem: str) -> str:
        """The message to the model about an answer that does not fit."""
        fits = "." if self._simple else f", as JSON that fits this schema: {self._told}"
        return f"That answer does not fit: {problem}\nGive the final answer again{fits}"

    def read(self, answer: str) -> T:
        """The answer's value. Raises ValueError that says what is wrong with it."""
        problem: ValidationError | None = None
        for candidate in _candidates(answer):
            try:
                return self._adapter.validate_json(candidate)
            except ValidationError as error:
                is_json = error.errors()[0]["type"] != "json_invalid"
                problem = error if problem is None or is_json else problem
        try:
            if self._simple:
                return self._adapter.validate_python(answer.strip())
        except ValidationError as error:
            problem = error
        raise ValueError(_sentences(problem))

    def check(self, answer: str | None) -> tuple[T | None, str | None]:
        """The answer's value, or what is wrong with it: one of the two is None."""
        if answer is None:
            return None, "there is no answer"
        try:
            return self.read(answer), None
        except ValueError as error:
            return None, str(error)

    @property
    def _told(self) -> str:
        return json.dumps(self.json_schema, ensure_ascii=False)


def _candidates(answer: str) -> Iterator[str]:
    """Yield the texts that may be JSON: the whole answer, each fence, the outermost brackets."""
    yield answer.strip()
    for fenced in _FENCE.findall(answer):
        yield fenced.strip()
    for opening, closing in ("{}", "[]"):
        start, end = answer.find(opening), answer.rfind(closing)
        if 0 <= start < end:
            yield answer[start : end + 1]


def _sentences(error: ValidationError | None) -> str:
    if error is None:
        return "it is empty"
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    parts = [
        f"{'.'.join(map(str, problem['loc'])) or 'the answer'}: {problem['msg']}"
        for problem in problems[:5]
    ]
    return "; ".join(parts)
