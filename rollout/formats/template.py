"""A model's chat template, rendered as Hugging Face renders it, without transformers.

A template is code of whoever made the checkpoint. It runs in jinja's sandbox, which hides Python's
inner attributes, and within bounds: on the rounds of its loops and its calls, and on the length of
each text and list that it makes.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from functools import wraps
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes, pass_context
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..tokenizer import Tokenizer, TokenizerError

__all__ = ["PLAIN", "ChatTemplate", "TemplateRefusal"]

# The layout for a tokenizer that has no template (a base model).
PLAIN = """\
{{ bos_token }}
{%- for message in messages %}
{%- if not loop.first %}{{ "\\n\\n" }}{% endif %}
{%- if message.role == "system" %}{{ message.content }}
{%- else %}{{ message.role | capitalize + ":\\n" + message.content }}{% endif %}
{%- if message.role == "assistant" %}{{ eos_token }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ "\\n\\nAssistant:\\n" }}{% endif %}
"""

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


_MOST_STEPS = 2_000_000
"""Rounds of loops and calls of one rendering: a long conversation takes some thousands."""
_LONGEST = 8_000_000
"""Characters or items of what one step of a template makes, and the largest number it is given."""
_steps: ContextVar[list[int]] = ContextVar("steps")


class TemplateRefusal(ValueError):
    """The template raised an error for these messages; the message says which."""


class ChatTemplate:
    """Messages to text. Build one from a tokenizer; raises TokenizerError where it is broken."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        source = tokenizer.chat_template
        self.plain = source is None
        try:
            self._template = _environment().from_string(PLAIN if source is None else source)
        except _RAISED as error:
            raise TokenizerError(
                f"the chat template in {tokenizer.path} is broken: {error}"
            ) from error
        self._names = {
            name: text for name in NAMED if (text := tokenizer.special_text(name)) is not None
        }
        if self.plain and not tokenizer.adds_bos:
            self._names["bos_token"] = ""

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        open_turn: bool = True,
    ) -> str:
        """The text of a conversation; `open_turn` adds what opens the assistant's next message.

        Raises TemplateRefusal where the template does not take these messages.
        """
        started = _steps.set([0])
        try:
            return self._template.render(
                messages=[dict(message) for message in messages],
                tools=[dict(tool) for tool in tools] if tools else None,
                documents=None,
                add_generation_prompt=open_turn,
                **self._names,
            )
        except _RAISED as error:
            raise TemplateRefusal(str(error) or type(error).__name__) from error
        finally:
            _steps.reset(started)


_RAISED = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    MemoryError,
)
"""The errors of a template's own code."""


def _bounded(value: Any) -> Any:
    """A value that a step has made, or is given, if it is not too large; counts one step, and more
    for a long one.
    """
    size = _size(value)
    if size > _LONGEST:
        raise jinja2.TemplateRuntimeError(f"it makes something larger than {_LONGEST:,}")
    count = _steps.get([0])
    count[0] += 1 + (0 if isinstance(value, int) else size // 1000)
    if count[0] > _MOST_STEPS:
        raise jinja2.TemplateRuntimeError(f"it takes more than {_MOST_STEPS:,} steps")
    return value


def _size(value: Any) -> int:
    """The size of a number, or the characters and items of a value; more than `_LONGEST` where it
    has more, since two steps can make a list twice as large as all before.
    """
    if isinstance(value, int):
        return abs(value)
    size, left = 0, [value]
    while left and size <= _LONGEST:
        each = left.pop()
        if isinstance(each, str | list | tuple | dict):
            size += len(each)
        if isinstance(each, list | tuple | dict) and size <= _LONGEST:
            left.extend(each.values() if isinstance(each, dict) else each)
    return size


def _check(*given: Any) -> None:
    """Raise TemplateRuntimeError for what a call is given, if its result may be too large: each
    character of one text may be replaced by all of another.
    """
    for each in given:
        _bounded(each)
    sizes = sorted(_size(each) for each in given if not isinstance(each, int))
    if len(sizes) > 1 and sizes[-1] * sizes[-2] > 25 * _LONGEST:
        raise jinja2.TemplateRuntimeError(f"it may make something larger than {_LONGEST:,}")


def _check_widths(text: object) -> None:
    if isinstance(text, str) and re.search(r"\d{7}|\*", text):
        raise jinja2.TemplateRuntimeError("its format has a field that is too wide")


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, with the bounds of this module."""

    intercepted_binops = frozenset(("*", "**", "%", "+"))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in [*tree.find_all(nodes.For)]:
            loop.body.insert(0, nodes.ExprStmt(_filtered(nodes.Const(1))))
            if loop.test is not None:
                loop.test = nodes.And(_filtered(nodes.Const(1)), loop.test)
        for output in [*tree.find_all(nodes.Output)]:
            output.nodes = [
                each if isinstance(each, nodes.TemplateData) else _filtered(each)
                for each in output.nodes
            ]
        for joined in [*tree.find_all(nodes.Concat)]:
            joined.nodes = [_filtered(each) for each in joined.nodes]
        return tree

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """An operator's result, where its operands say that it is not too large."""
        numbers = [each for each in (left, right) if isinstance(each, int)]
        if len(numbers) < 2:
            _check(left, right)
        elif operator in ("*", "**"):
            times = abs(right) if operator == "**" else 1
            _bounded(left.bit_length() * times + right.bit_length())
        if operator == "*" and len(numbers) == 1:
            _bounded(numbers[0] * _size(right if numbers[0] is left else left))
        if operator == "%":
            _check_widths(left)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, function: Any, *args: Any, **kwargs: Any) -> Any:
        """The result of a call, which is bounded as what the call is given."""
        _check(getattr(function, "__self__", None), *args, *kwargs.values())
        return _bounded(super().call(context, function, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """The sandbox's `str.format`, where no field is wider than the bound."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_widths(value.__self__)
        return wrapped


def _filtered(value: nodes.Expr) -> nodes.Expr:
    return nodes.Filter(value, "_bounded", [], [], None, None)


@pass_context
def _in_context(context: Context, value: Any) -> Any:
    """The value, bounded as it is rendered: without a context, constants are worked out before."""
    return _bounded(value)


def _bounded_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """One of jinja's filters, whose result is bounded as what it is given."""

    @wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        _check(*args, *kwargs.values())
        if name == "format":
            _check_widths(args[0])
        return _bounded(function(*args, **kwargs))

    return bounded


class _Generation(Extension):
    """`{% generation %}` marks the assistant's words in some templates; here it is nothing."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares it so)

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    del environment.globals["lipsum"]
    environment.filters["tojson"] = _to_json
    for name, function in environment.filters.items():
        environment.filters[name] = _bounded_filter(name, function)
    environment.filters["_bounded"] = _in_context
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    return environment


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as models read it: nothing escaped for HTML, and other scripts as they are."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
