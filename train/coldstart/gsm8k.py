"""GSM8K's solutions as traces: what is between << and >> is run instead of believed.

No model is needed: `Natalia sold 48/2 = <<48/2=24>>24 clips` becomes the call `print(48/2)`, whose
output the sentence continues with.
"""

import ast
import operator
import re
from collections.abc import Callable
from typing import Any

from ...rollout.formats import FORMATS
from ...rollout.task import Task, equal_answers
from ...rollout.trajectory import CallRecord

__all__ = ["trace_of"]

_RETOOL = FORMATS["retool"]
_LONGEST = 200
"""Characters of a calculation: deeper nesting than fits into it is not parsed everywhere."""
_MARK = re.compile(r"<<([^<>=]+)=([^<>=]+)>>")
_PERCENT = re.compile(r"(?<!\d)(\d+(?:\.\d+)?)%(?!\d)")


def trace_of(task: Task) -> str | None:
    """The task's `data["solution"]` as a trace in ReTool's format, with the last result as its
    answer; None if it has no marks, or a mark that is not arithmetic or whose result is wrong.
    """
    parts = _MARK.split(str(task.data.get("solution", "")))
    if len(parts) == 1:
        return None
    said, text = list[str](), parts[0]
    for expression, result, following in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        found = _calculation(expression.strip(), result.strip())
        if found is None:
            return None
        code, output = found
        said.append(_RETOOL.write_call("python", {"code": code}, thought=text.rstrip()))
        text = _RETOOL.render([CallRecord("python", {"code": code}, output)]) + following
    said.append(_RETOOL.write_answer(parts[-2].strip(), thought=text.rstrip()))
    return "".join(said)


def _calculation(expression: str, result: str) -> tuple[str, str] | None:
    """Code that gives the result a solution claims, and what it prints; None if none does."""
    if len(expression) > _LONGEST:
        return None
    expression = _PERCENT.sub(r"(\1/100)", expression)
    try:
        value = _value(ast.parse(expression, mode="eval").body)
        decimals = len(result.partition(".")[2])
        rounded = round(value, decimals) if decimals else value
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, KeyError):
        return None
    if equal_answers(str(value), result):
        return f"print({expression})", str(value)
    if equal_answers(str(rounded), result):
        return f"print(round({expression}, {decimals}))", str(rounded)
    return None


_OPERATIONS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}


def _value(node: ast.expr) -> int | float:
    """The value of the four operations on numbers. Raises KeyError for any other, ValueError for
    anything else.
    """
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value  # type: ignore[return-value]
    if isinstance(node, ast.UnaryOp):
        return _OPERATIONS[type(node.op)](_value(node.operand))  # type: ignore[no-any-return]
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left), _value(node.right)
        return _OPERATIONS[type(node.op)](left, right)  # type: ignore[no-any-return]
    raise ValueError("no arithmetic")
