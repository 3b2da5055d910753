"""A model's tokenizer, with one rule on top: text we did not write can't become a control token.

Read with the `tokenizers` library alone, so that the base install needs neither torch nor
transformers.
"""

import json
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers.decoders import DecodeStream

from ..tools.errors import ModelError
from .ledger import Ids

__all__ = ["TextStream", "Tokenizer", "TokenizerError"]


class TokenizerError(ModelError):
    """These files are no tokenizer we can use; the message says which and why."""


class TextStream:
    """Decodes token by token; holds back the bytes of a character that is not complete yet."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=False)

    def push(self, token: int) -> str:
        """The text that this token completes."""
        return self._stream.step(self._tokenizer, token) or ""


class Tokenizer:
    """Text to ids and back. Build one with `Tokenizer.load`."""

    def __init__(self, fast: tokenizers.Tokenizer, config: dict[str, Any], path: Path) -> None:
        self._fast = fast
        self.config = config
        self.path = path

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read `tokenizer.json` and its companions from a model's folder.

        Raises TokenizerError where there is none or it is broken.
        """
        folder = Path(path)
        file = folder / "tokenizer.json"
        if not file.is_file():
            raise TokenizerError(f"no tokenizer.json in {folder}")
        try:
            fast = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises a bare Exception
            raise TokenizerError(f"{file} is not a readable tokenizer: {error}") from error
        fast.no_truncation()
        fast.no_padding()
        config = _read_json(folder / "tokenizer_config.json")
        template = folder / "chat_template.jinja"
        if template.is_file():
            config["chat_template"] = template.read_text(encoding="utf-8")
        generation = _read_json(folder / "generation_config.json")
        if "eos_token_id" in generation:
            config["eos_token_id"] = generation["eos_token_id"]
        return cls(fast, config, folder)

    def __len__(self) -> int:
        """The number of ids, added tokens included."""
        return self._fast.get_vocab_size(with_added_tokens=True)

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """The ids that end the model's turn."""
        ids: set[int] = set()
        listed = self.config.get("eos_token_id")
        if listed is not None:
            ids.update(listed if isinstance(listed, list) else [listed])
        token = self._fast.token_to_id(self.special_text("eos_token") or "")
        if token is not None:
            ids.add(token)
        return frozenset(ids)

    def special_text(self, name: str) -> str | None:
        """The text of a named special token (`eos_token`, `bos_token`), if there is one."""
        token = self.config.get(name)
        if isinstance(token, dict):
            token = token.get("content")
        return token if isinstance(token, str) else None

    @cached_property
    def control_texts(self) -> tuple[str, ...]:
        """The texts that this tokenizer turns into one added token: control tokens and the like.

        White space and plain words among the added tokens are no control tokens.
        """
        texts = {
            token.content
            for token in self._fast.get_added_tokens_decoder().values()
            if token.special or re.search(r"[<\[{|]", token.content)
        }
        return tuple(sorted(texts - {""}, key=lambda text: (-len(text), text)))

    def encode(self, text: str) -> list[int]:
        """Ids of text that we wrote ourselves (a template): control tokens in it are live."""
        return self._fast.encode(text, add_special_tokens=False).ids

    def harmless(self, text: str, tags: Sequence[str] = ()) -> str:
        r"""Text in which no control token and none of `tags` is left whole, changed visibly.

        A backslash goes in after the first character: `</answer>` becomes `<\/answer>`.
        """
        marks = sorted({*self.control_texts, *tags}, key=len, reverse=True)
        if not marks:
            return text
        pattern = re.compile("|".join(map(re.escape, marks)), re.IGNORECASE)
        # A replacement can't complete another mark unless a mark holds a backslash: loop for that.
        for _ in range(8):
            changed = pattern.sub(lambda match: f"{match[0][0]}\\{match[0][1:]}", text)
            if changed == text:
                break
            text = changed
        return text

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """The text of ids, control tokens included. A view: nothing encodes it again."""
        return self._fast.decode([int(i) for i in ids], skip_special_tokens=False)

    def stream(self) -> TextStream:
        """A decoder for tokens that come one by one."""
        return TextStream(self._fast)

    def token(self, id: int) -> str:
        """The vocabulary's own spelling of one id, for reports."""
        return self._fast.id_to_token(id) or f"<{id}>"

    @property
    def chat_template(self) -> str | None:
        """The Jinja source of the chat template, if the model has one."""
        template = self.config.get("chat_template")
        if isinstance(template, list):  # several named ones: the default
            template = next((t["template"] for t in template if t["name"] == "default"), None)
        return template


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TokenizerError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise TokenizerError(f"{path} does not hold a JSON object")
    return content
