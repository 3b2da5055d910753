"""A model's chat template, rendered as Hugging Face renders it, without transformers."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
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


class TemplateRefusal(ValueError):
    """The template raised an error for these messages; the message says which."""


class ChatTemplate:
    """Messages to text. Build one from a tokenizer; raises TokenizerError where it is broken."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        source = tokenizer.chat_template
        self.plain = source is None
        try:
            self._template = _environment().from_string(PLAIN if source is None else source)
        except jinja2.TemplateError as error:
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
        try:
            return self._template.render(
                messages=[dict(message) for message in messages],
                tools=[dict(tool) for tool in tools] if tools else None,
                documents=None,
                add_generation_prompt=open_turn,
                **self._names,
            )
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise TemplateRefusal(str(error) or type(error).__name__) from error


class _Generation(Extension):
    """`{% generation %}` marks the assistant's words in some templates; here it is nothing."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares it so)

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
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
