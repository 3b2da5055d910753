"""Finding passages: in files on disk through an index, or by asking a search server."""

from .base import Hit, Passage, Retriever
from .http import HttpRetriever, is_private
from .index import SearchIndex
from .tool import SearchTool

__all__ = [
    "Hit",
    "HttpRetriever",
    "Passage",
    "Retriever",
    "SearchIndex",
    "SearchTool",
    "is_private",
]
