"""How models ask for tools: the formats by name, and the encoder that turns them into ids."""

from pathlib import Path

from ...tools.errors import UsageError
from ...tools.importing import find
from .base import AnsweredCall, Block, Call, ChatContext, Format, Message, Parsed, Sample
from .encoder import Encoder
from .harmony import Harmony
from .hermes import Hermes
from .llama3 import Llama3, PythonCalls
from .markdown import Markdown
from .named_calls import DeepSeek, DeepSeekFenced, Kimi, Mistral, MistralList
from .notebook import Notebook
from .tagged_calls import DeepSeekInvoked, Glm, MiniMax, Qwen3Coder
from .tags import ReexSql, Retool, SearchR1

__all__ = [
    "FORMATS",
    "AnsweredCall",
    "Block",
    "Call",
    "ChatContext",
    "Encoder",
    "Format",
    "Message",
    "Parsed",
    "Sample",
    "find_format",
    "recorded_format",
]

FORMATS: dict[str, Format] = {
    "retool": Retool(),
    "reex_sql": ReexSql(),
    "search_r1": SearchR1(),
    "hermes": Hermes(),
    "notebook": Notebook(),
    "markdown": Markdown(),
    "qwen3_coder": Qwen3Coder(),
    "glm": Glm(),
    "gpt_oss": Harmony(),
    "llama3": Llama3(),
    "llama3_python": PythonCalls(),
    "mistral": Mistral(),
    "mistral_v3": MistralList(),
    "deepseek": DeepSeek(),
    "deepseek_v3": DeepSeekFenced(),
    "deepseek_v3_2": DeepSeekInvoked(),
    "kimi_k2": Kimi(),
    "minimax_m2": MiniMax(),
}


def find_format(name: str, *, trusted: bool = True, folder: Path | None = None) -> Format:
    """The format of that name, by the grammar of `tools/importing.py`.

    `hermes`; of your own `my_formats:Mine` or `my_formats.py:Mine`, a `Format` or its class.
    Raises UsageError for any other.
    """
    found = find("format", name, FORMATS, trusted=trusted, folder=folder)
    made = found.value
    if isinstance(made, type) or found.configured:
        made = found.make()
    if not isinstance(made, Format):
        raise UsageError(
            f"the format {name!r} is of type {type(made).__name__}: inherit from "
            "interlace.rollout.formats.Format"
        )
    return made


def recorded_format(name: str) -> Format | None:
    """The format that a record names, if interlace or an installed package has it."""
    try:
        return find_format(name, trusted=False)
    except UsageError:
        return None
