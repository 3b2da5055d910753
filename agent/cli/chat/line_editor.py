"""The line a person types at: editing, history, several lines."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.filters import is_searching
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output.defaults import create_output

from ....tools.files import state_dir

__all__ = ["LineEditor", "history_file"]


def history_file() -> Path:
    """The file that keeps the questions: below `$XDG_STATE_HOME`, else `~/.local/state`."""
    return state_dir() / "history"


class LineEditor:
    """Reads questions from a terminal. `loading` ends the reading if it fails; `interrupt` hears
    of Ctrl-C, and returns True to leave; Tab completes `words`; `example` is the text of the first
    prompt, to be asked with Enter or typed over.
    """

    def __init__(
        self,
        loading: asyncio.Task[object],
        interrupt: Callable[[], bool],
        *,
        words: Sequence[str] = (),
        example: str = "",
    ) -> None:
        self._session: PromptSession[str] = PromptSession(
            history=_history(),
            multiline=True,
            key_bindings=_keys(),
            prompt_continuation="… ",
            completer=WordCompleter(list(words), sentence=True),
            complete_while_typing=False,
            output=create_output(stdout=sys.stderr),
        )
        loading.add_done_callback(self._loaded)
        self._loading = loading
        self._interrupt = interrupt
        self._example = example

    async def read(self) -> AsyncGenerator[str, None]:
        """Yield one question after the other, until the person leaves. Raises as `loading` did."""
        while True:
            if self._loading.done():
                self._loading.result()
            try:
                example, self._example = self._example, ""
                yield (await self._session.prompt_async("> ", default=example)).strip()
            except KeyboardInterrupt:  # Ctrl-C clears the line
                if self._interrupt():
                    return
            except EOFError:
                return

    def _loaded(self, loading: asyncio.Task[object]) -> None:
        error = None if loading.cancelled() else loading.exception()
        if error is not None and self._session.app.is_running:
            self._session.app.exit(exception=error)


class _History(FileHistory):
    """Questions in a file; on a full disk they are remembered for this chat only."""

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            super().store_string(string)


def _history() -> History:
    file = history_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        return _History(str(file))
    except OSError:  # a home that can't be written to: remember for this chat only
        return InMemoryHistory()


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter", filter=~is_searching)  # in a search of the history it takes what was found
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys
