"""Text cut to a number of tokens."""

from .tokenizer import Tokenizer

__all__ = ["cut"]


def cut(text: str, limit: int, tokenizer: Tokenizer) -> str:
    """Text of at most about `limit` tokens: the head and the tail of a longer one, and a note.

    The note between them says how much was left out.
    """
    ids = tokenizer.encode(text)
    if len(ids) <= max(limit, 16):  # no note would be shorter
        return text
    note = f"\n[... {len(ids) - max(limit, 0)} tokens left out ...]\n"
    keep = limit - len(tokenizer.encode(note))
    if keep < 16:
        return f"[output of {len(ids)} tokens left out: no room]"
    tail = keep // 3
    return tokenizer.decode(ids[: keep - tail]) + note + tokenizer.decode(ids[-tail:])
