"""The token with which a chat template ends the assistant's turn."""

from ...rollout.formats.template import ChatTemplate, Refused
from ...rollout.tokenizer import Tokenizer

__all__ = ["turn_end", "with_turn_end"]

_ASKED, _SAID = "Qzasked", "Qzsaid"


def turn_end(tokenizer: Tokenizer) -> int | None:
    """What the template writes behind an assistant's words, where that is one control token.

    Base models have a template whose turns end with another token than their end of text
    (`<|im_end|>` and `<|endoftext|>`): a policy that learns the template would run on through it to
    the limit. Raises TokenizerError where the template is broken.
    """
    messages = [{"role": "user", "content": _ASKED}, {"role": "assistant", "content": _SAID}]
    try:
        text = ChatTemplate(tokenizer).render(messages, open_turn=False)
    except Refused:
        return None
    _, said, behind = text.partition(_SAID)
    ids = tokenizer.encode(behind.lstrip()) if said and behind.strip() else []
    return ids[0] if ids and ids[0] in tokenizer.control_ids else None


def with_turn_end(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer, made to stop where its template ends a turn as well."""
    end = turn_end(tokenizer)
    if end is not None and end not in tokenizer.eos_ids:
        tokenizer.config["eos_token_id"] = sorted({*tokenizer.eos_ids, end})
        del tokenizer.eos_ids  # kept since it was asked for
    return tokenizer
