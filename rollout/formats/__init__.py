"""How models ask for tools: the formats by name, and the encoder that turns them into ids."""

from .base import Block, Call, Format, Message, Parsed, Sample
from .encoder import Encoder
from .hermes import Hermes
from .markdown import Markdown
from .notebook import Notebook
from .tags import ReexSql, Retool, SearchR1

__all__ = ["FORMATS", "Block", "Call", "Encoder", "Format", "Message", "Parsed", "Sample"]

FORMATS: dict[str, Format] = {
    "retool": Retool(),
    "reex_sql": ReexSql(),
    "search_r1": SearchR1(),
    "hermes": Hermes(),
    "notebook": Notebook(),
    "markdown": Markdown(),
}
