"""A model's tokenizer, with one rule on top: text we did not write can't become a control token.

Read with the `tokenizers` library alone, so that the base install needs neither torch nor
transformers.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers.decoders import DecodeStream

from ..tools.base import encodable
from ..tools.errors import DataError, MissingExtra, ModelError
from ..tools.files import read_object, read_text
from .ledger import Ids

__all__ = ["TextStream", "Tokenizer", "TokenizerError", "shown_output", "truncate_middle"]

# What transformers can make a fast tokenizer of, each set whole. From less (a vocabulary without
# its merges, a tokenizer_config.json alone) it makes one all the same, which cuts text otherwise.
_SLOW = (("tokenizer.model",), ("vocab.json", "merges.txt"), ("vocab.txt",), ("spiece.model",))


_LONG_TEXT = 20_000
"""Characters from which text is encoded as a batch of one: other threads run meanwhile."""
_LONGEST_OUTPUT = 400_000
"""Characters of a tool's output that are encoded, about half a second's work."""
_LONGEST_TEMPLATE = 1_000_000
"""Bytes of a chat template; those of models have some thousands."""


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

        A tokenizer without that file is converted by transformers. Raises TokenizerError where
        there is no tokenizer or it is broken, MissingExtra where transformers is needed and not
        installed.
        """
        folder = Path(path)
        file = folder / "tokenizer.json"
        if not folder.is_dir():
            raise TokenizerError(f"no tokenizer: {folder} is not a folder")
        if file.is_file():
            try:
                fast = tokenizers.Tokenizer.from_file(str(file))
            except Exception as error:  # the library raises a bare Exception
                raise TokenizerError(f"{file} is not a readable tokenizer: {error}") from error
        elif any(all((folder / name).is_file() for name in names) for names in _SLOW):
            fast = _convert(folder)
        else:
            raise TokenizerError(
                f"no tokenizer.json in {folder}, nor the files of another tokenizer: fetch it again"
            )
        fast.no_truncation()
        fast.no_padding()
        config = {
            **_read_json(folder / "special_tokens_map.json"),
            **_read_json(folder / "tokenizer_config.json"),
        }
        template = folder / "chat_template.jinja"
        if template.is_file():
            try:
                config["chat_template"] = read_text(template, most=_LONGEST_TEMPLATE)
            except DataError as error:
                raise TokenizerError(str(error)) from error
        generation = _read_json(folder / "generation_config.json")
        if "eos_token_id" in generation:
            config["eos_token_id"] = generation["eos_token_id"]
        return cls(fast, config, folder)

    def __len__(self) -> int:
        """The number of ids, added tokens included."""
        return self._fast.get_vocab_size(with_added_tokens=True)

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """The ids that end the model's turn: those that its files name, and what its chat template
        writes after an assistant's words. Raises TokenizerError where they are no ids.
        """
        return self.named_eos_ids | (frozenset() if self.turn_end is None else {self.turn_end})

    @cached_property
    def turn_end(self) -> int | None:
        """The control token that the chat template writes after an assistant's words, found by
        rendering some; None without one.

        Base models often name another token (`<|endoftext|>`) than their template ends turns with
        (`<|im_end|>`): taught by it, they would run on through the latter.
        """
        from .formats.template import ChatTemplate, TemplateRefusal  # which imports this module

        said = "Qzsaid"
        messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": said}]
        try:
            if self.chat_template is None:
                return None
            text = ChatTemplate(self).render(messages, open_turn=False)
        except (TemplateRefusal, TokenizerError):
            return None  # whoever uses the template says what is wrong with it
        _, found, behind = text.rpartition(said)
        ids = self.encode_continuation(behind.lstrip())[:1] if found else []
        return ids[0] if ids and ids[0] in self.control_ids else None

    @cached_property
    def named_eos_ids(self) -> frozenset[int]:
        """The ids that the model's files name as its end of a turn. Raises TokenizerError where
        they are no ids.
        """
        ids: set[int] = set()
        listed = self.config.get("eos_token_id")
        if listed is not None:
            ids.update(listed if isinstance(listed, list) else [listed])
        for id in ids:
            if type(id) is not int or id < 0:
                raise TokenizerError(f"{self.path}: eos_token_id {id!r} is no token id")
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
    def adds_bos(self) -> bool:
        """True if this tokenizer begins every text with its `bos_token`."""
        first = self._fast.encode("").ids[:1]
        return bool(first) and self.token(first[0]) == self.special_text("bos_token")

    @cached_property
    def _controls(self) -> dict[int, tuple[str, bool]]:
        """The text of each control token by its id, and whether it is marked as special."""
        return {
            id: (token.content, token.special)
            for id, token in self._fast.get_added_tokens_decoder().items()
            if token.content and (token.special or re.search(r"[<\[{|]", token.content))
        }

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """The ids of the control tokens."""
        return frozenset(self._controls)

    @cached_property
    def control_texts(self) -> tuple[str, ...]:
        """The texts that this tokenizer turns into one added token: control tokens and the like.

        White space and plain words among the added tokens are no control tokens.
        """
        texts = {text for text, _ in self._controls.values()}
        return tuple(sorted(texts, key=lambda text: (-len(text), text)))

    def encode(self, text: str) -> list[int]:
        """Ids of text that we wrote ourselves (a template): control tokens in it are live."""
        text = encodable(text)
        if len(text) > _LONG_TEXT:
            return self._fast.encode_batch([text], add_special_tokens=False)[0].ids
        return self._fast.encode(text, add_special_tokens=False).ids

    def encode_continuation(self, text: str, *, after: str | None = None) -> list[int]:
        """Ids of text that follows other tokens: no blank is put before its first word.

        `after` is the control token that is before it, where there is one: the ids are then
        those it has within the whole text.
        """
        if not text:
            return []
        if not self._joins or after:
            for anchor in (after, "a", ".", "\n", "1"):
                if anchor:
                    head, ids = self.encode(anchor), self.encode(anchor + text)
                    if head and ids[: len(head)] == head:
                        return ids[len(head) :]
        return self.encode(text)

    @cached_property
    def _joins(self) -> bool:
        """True if texts can be encoded separately (SentencePiece would put a blank before each)."""
        return all(
            self.decode(self.encode("a") + self.encode(text)) == "a" + text
            for text in ("b", "\n<b", "[b")
        )

    def escape_control_tokens(
        self, text: str, tags: Sequence[str] = (), *, special_only: bool = False
    ) -> str:
        r"""Text in which no control token and none of `tags` is left whole, changed visibly.

        A backslash goes in after the first character: `</answer>` becomes `<\/answer>`. With
        `special_only`, control tokens that are not marked as special (`<think>`) are left as they
        are. Text that can't be encoded is written as escapes.
        """
        text = encodable(text)
        controls = {
            id: text
            for id, (text, special) in self._controls.items()
            if special or not special_only
        }
        marks = sorted({*controls.values(), *tags}, key=lambda mark: (-len(mark), mark))
        if not marks:
            return text
        text = _broken_up(text, marks)
        if self._fast.normalizer is None or text.isascii():
            return text
        # A normalizer may turn other characters into those of a mark (fullwidth ones, say).
        if controls.keys().isdisjoint(self.encode(text)):
            return text
        text = _broken_up(unicodedata.normalize("NFKC", text), marks)
        if controls.keys().isdisjoint(self.encode(text)):
            return text
        return _broken_up(text.encode("ascii", "replace").decode("ascii"), marks)

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """The text of ids, control tokens included. A view: nothing encodes it again."""
        return self._fast.decode([int(i) for i in ids], skip_special_tokens=False)

    def stream(self) -> TextStream:
        """A decoder for tokens that come one by one."""
        return TextStream(self._fast)

    def pieces(self, ids: Sequence[int] | Ids) -> list[str]:
        """The text that each token adds; "" for one that does not complete a character."""
        stream = self.stream()
        return [stream.push(int(id)) for id in ids]

    def token(self, id: int) -> str:
        """The vocabulary's own spelling of one id, for reports."""
        return self._fast.id_to_token(id) or f"<{id}>"

    @property
    def chat_template(self) -> str | None:
        """The Jinja source of the chat template, if the model has one.

        Of several named ones, the one for tools if there is one, else the default. Raises
        TokenizerError where it is no text.
        """
        template = self.config.get("chat_template")
        if isinstance(template, list):
            named = {entry.get("name"): entry.get("template") for entry in template}
            template = named.get("tool_use") or named.get("default")
        if template is not None and not isinstance(template, str):
            raise TokenizerError(f"{self.path}: the chat template is no text")
        return template


def truncate_middle(text: str, limit: int, tokenizer: Tokenizer) -> str:
    """Text of at most about `limit` tokens: the head and the tail of a longer one, and a note
    between them that says how much was left out.
    """
    ids = tokenizer.encode(text)
    if len(ids) <= max(limit, 16):  # no note would be shorter
        return text
    left_out = f"{len(ids) - max(limit, 0)} tokens"
    return _head_and_tail(ids, ids, limit, f"{len(ids)} tokens", left_out, tokenizer)


def shown_output(text: str, limit: int, tokenizer: Tokenizer, tags: Sequence[str]) -> str:
    """A tool's output as the model reads it: without control tokens and tags, and of at most about
    `limit` tokens. Of a very long one only the head and the tail are looked at.
    """
    if len(text) <= _LONGEST_OUTPUT:
        return truncate_middle(tokenizer.escape_control_tokens(text, tags), limit, tokenizer)
    ends = text[: _LONGEST_OUTPUT * 3 // 4], text[-_LONGEST_OUTPUT // 4 :]
    head, tail = (tokenizer.encode(tokenizer.escape_control_tokens(end, tags)) for end in ends)
    seen = len(head) + len(tail)
    whole = seen * len(text) // _LONGEST_OUTPUT
    left_out = f"about {whole - min(max(limit, 0), seen)} tokens"
    return _head_and_tail(head, tail, limit, f"about {whole} tokens", left_out, tokenizer)


def _head_and_tail(
    head: list[int], tail: list[int], limit: int, whole: str, left_out: str, tokenizer: Tokenizer
) -> str:
    note = f"\n[... {left_out} left out ...]\n"
    keep = limit - len(tokenizer.encode(note))
    if keep < 16:
        return f"[output of {whole} left out: no room]"
    last = keep // 3
    return tokenizer.decode(head[: keep - last]) + note + tokenizer.decode(tail[-last:])


def _broken_up(text: str, marks: Sequence[str]) -> str:
    """Break every mark by inserting a character into it."""
    pattern = re.compile("|".join(map(re.escape, marks)), re.IGNORECASE)

    def change(match: re.Match[str]) -> str:
        mark = match[0]
        if len(mark) == 1:
            return "?"
        return mark[0] + (" " if mark[1] == "\\" else "\\") + mark[1:]

    # Marks that overlap (a run of backticks) take a second look. The bound is never reached by
    # marks without backslashes and blanks.
    for _ in range(8):
        changed = pattern.sub(change, text)
        if changed == text:
            break
        text = changed
    return text


def _convert(folder: Path) -> tokenizers.Tokenizer:
    """The fast form of a tokenizer that has only the files of a slow one."""
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingExtra(
            f"the tokenizer in {folder} (it has no tokenizer.json)", "local"
        ) from error
    try:
        return AutoTokenizer.from_pretrained(folder).backend_tokenizer
    except Exception as error:  # whatever a converter raises on a broken file
        reason = str(error).strip().partition("\n")[0]
        raise TokenizerError(f"the tokenizer in {folder} can't be converted: {reason}") from error


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return read_object(path)
    except DataError as error:
        raise TokenizerError(str(error)) from error
