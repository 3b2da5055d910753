"""Putting together what a sandboxed cell shows: text from a pipe, messages from a channel.

Both come from a process that runs a model's code, so nothing in them is trusted: lengths are
checked before anything is kept, and what makes no sense is a `ProtocolError`, which ends the
process. Whatever it says, it can change nothing but the text of its own observation.
"""

import codecs
import json
import re
import struct
from collections import deque
from collections.abc import Iterator
from typing import Any

from ..interpreter import CellError
from ..output import CellOutput, as_text, one_line

__all__ = ["MessageReader", "ProtocolError", "Transcript"]

LONGEST_MESSAGE = 16_000_000
MOST_STRUCTURE = 1_000_000
"""Bytes of a message that are in no string."""
MOST_WAITING = 10_000
"""Messages that wait for their mark: a worker writes the mark first, into a pipe that is small."""
NOTE_CHARACTERS = 60
"""Kept free for the line that says how much was left out."""
FLOOD_BYTES = 50_000_000
"""Bytes of displays of one cell at which its process is taken to have lost its own bounds."""

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)


class ProtocolError(Exception):
    """A process did what no worker does; the message continues from "it was ended for"."""


class MessageReader:
    """Cuts a stream of bytes into messages: four bytes of length, then a JSON object."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, data: bytes) -> Iterator[tuple[dict[str, Any], int]]:
        """The messages that are complete now, and their sizes. Raises `ProtocolError`."""
        self._bytes += data
        while len(self._bytes) >= 4:
            (size,) = struct.unpack_from(">I", self._bytes)
            if size > LONGEST_MESSAGE:
                raise ProtocolError(f"sending a message of {size:,} bytes")
            if len(self._bytes) < 4 + size:
                return
            body = bytes(self._bytes[4 : 4 + size])
            del self._bytes[: 4 + size]
            yield _parsed(body), size


def _parsed(body: bytes) -> dict[str, Any]:
    # Brackets and commas become objects of many times their size; what is a string does not.
    if len(body) > MOST_STRUCTURE and len(_STRING.sub(b"", body)) > MOST_STRUCTURE:
        raise ProtocolError(f"sending a message with {len(body):,} bytes of brackets and numbers")
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("sending a message that is no JSON") from error
    if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
        raise ProtocolError("sending a message without a kind")
    return message


class Transcript:
    """One request and what comes back for it.

    In the text stands a mark for each message, where it belongs.
    """

    def __init__(self, number: str, output: CellOutput | None = None, characters: int = 0) -> None:
        """`number` names the request in marks and messages; `output` is None if it is no cell.

        Of a text longer than `characters` the head goes on at once, and the tail at the end.
        """
        self._number = number
        self._mark = f"\0{number}\0".encode()
        self._output = output
        self._text = bytearray()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._half = max(0, characters - NOTE_CHARACTERS) // 2
        self._room = self._half
        self._tail = ""
        self._left_out = 0
        self._messages: deque[dict[str, Any]] = deque()
        self._at_mark = False
        self._displayed = 0
        self.answer: dict[str, Any] | None = None
        """The content of the message that ended it."""

    def add_text(self, data: bytes) -> None:
        """Take in what came through the pipe. Raises `ProtocolError`."""
        if self._output is not None and self.answer is None:
            self._text += data
            self._advance()
            if self._at_mark and len(self._text) > LONGEST_MESSAGE:
                raise ProtocolError("sending a mark without its message")

    def add_message(self, message: dict[str, Any], size: int) -> None:
        """Take in a message of `size` bytes. Raises `ProtocolError`."""
        if message.get("id") != self._number or not isinstance(message.get("content"), dict):
            raise ProtocolError("sending a message that answers no request")
        self._displayed += size
        if self._displayed > FLOOD_BYTES:
            raise ProtocolError(f"showing more than {FLOOD_BYTES:,} characters")
        self._messages.append(message)
        if len(self._messages) > MOST_WAITING:
            raise ProtocolError("sending messages without their marks")
        self._advance()

    def end_text(self) -> None:
        """The process is gone: what is left of its text is all there will be."""
        if self._output is not None and self.answer is None:
            self._write(self._text.replace(self._mark, b""), final=True)
            self._text.clear()
            self.show_tail()

    def show_tail(self) -> None:
        """Hand on what was held back of the text: nothing more comes, or nobody waits for it."""
        if self._tail and self._output is not None:
            note = f"\n[... {self._left_out:,} characters left out ...]\n" if self._left_out else ""
            self._output.add("stream", {"text": note + self._tail})
            self._tail, self._left_out = "", 0

    def error(self) -> CellError | None:
        """The error that the answer tells of, if it does."""
        failure = (self.answer or {}).get("error")
        if failure is None:
            return None
        if not isinstance(failure, list) or len(failure) != 2:
            raise ProtocolError("sending an answer of the wrong form")
        return CellError(one_line(failure[0]), as_text(failure[1]))

    def _advance(self) -> None:
        if self._output is None:
            while self._messages and self.answer is None:
                self._take(self._messages.popleft())
            return
        while self.answer is None:
            if self._at_mark:
                if not self._messages:
                    return
                self._at_mark = False
                self._take(self._messages.popleft())
                continue
            at = self._text.find(self._mark)
            self._at_mark = at >= 0
            end = at if self._at_mark else self._begun_mark()
            self._write(self._text[:end], final=self._at_mark)
            del self._text[: end + len(self._mark) * self._at_mark]
            if not self._at_mark:
                return

    def _begun_mark(self) -> int:
        """The place where a mark whose rest has not come may begin; the text's end if none."""
        start = max(0, len(self._text) - len(self._mark) + 1)
        while (start := self._text.find(b"\0", start)) >= 0:
            if self._mark.startswith(self._text[start:]):
                return start
            start += 1
        return len(self._text)

    def _write(self, data: bytearray, final: bool = False) -> None:
        if self._output is not None:
            text = self._decoder.decode(data, final)
            if text and self._room:
                self._output.add("stream", {"text": text[: self._room]})
            self._tail += text[self._room :]
            self._room = max(0, self._room - len(text))
            self._left_out += max(0, len(self._tail) - self._half)
            self._tail = self._tail[-self._half :]

    def _take(self, message: dict[str, Any]) -> None:
        kind, content = message["kind"], message["content"]
        if kind == "done":
            self.show_tail()
            self.answer = content
        elif self._output is None:
            raise ProtocolError("sending a display without a cell")
        elif kind == "page":
            self._output.page(as_text(content.get("text", "")))
        else:
            self._output.add(kind, content)
