"""Cells with a notebook's meaning, run in a worker: IPython's shell, without a kernel around it.

What a cell shows goes to a `sink`: text to the file descriptor, displays as messages. Errors read
as they do in a Jupyter kernel: notebook.py writes both.
"""

# IPython's classes are changed here, and typed differently from version to version.
# mypy: disable-error-code="no-untyped-call,no-any-return,override,assignment,misc"
# mypy: disable-error-code="attr-defined,union-attr,arg-type"
# ruff: noqa: D102 (methods that IPython and io describe)

import asyncio
import base64
import builtins
import getpass
import io
import linecache
import os
import re
import signal
import sys
import warnings
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from IPython.core.autocall import IPyAutocall
from IPython.core.compilerop import CachingCompiler
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.formatters import DisplayFormatter
from IPython.core.inputtransformer2 import TransformerManager
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.macro import Macro
from IPython.core.prefilter import PrefilterManager
from IPython.core.profiledir import ProfileDir
from IPython.lib.pretty import _repr_pprint
from traitlets import HasTraits, Instance
from traitlets.config import Config

from .. import displays, notebook

__all__ = ["CellShell", "CellStream", "DisplaySink", "make_shell", "run_at_once"]


WARM_UPS = 20
TEXT_ONLY = frozenset({bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset})
NOT_ONLY_PYTHON = re.compile(r"\A\s|[%!?]|^\s*(?:[,;/]|>>>|\.\.\.|In\b)", re.MULTILINE)
"""What IPython may take for more than Python; a cell without it stays as it is."""
FIRST_WORD = re.compile(r"(\w*)\s*(.?)", re.DOTALL)
"""The first word of a line, and the character after it."""


class DisplaySink(Protocol):
    """A receiver of displays."""

    def show(self, kind: str, content: Mapping[str, Any]) -> None:
        """Send one message of a notebook's output channel."""
        ...


class Displays(DisplayPublisher):
    """Sends what is displayed."""

    def publish(
        self,
        data: Mapping[str, Any],
        metadata: object = None,
        *_: object,
        transient: Mapping[str, Any] | None = None,
        update: bool = False,
        **__: object,
    ) -> None:
        kind = "update_display_data" if update else "display_data"
        self.shell.show(kind, data, str((transient or {}).get("display_id", "")))

    def clear_output(self, wait: bool = False) -> None:
        self.shell.sink.show("clear_output", {"wait": wait})


class Values(DisplayHook):
    """Sends the value of a cell's last expression."""

    shown: dict[str, Any] | None = None

    def start_displayhook(self) -> None:
        self.shown = {}

    def write_output_prompt(self) -> None:
        pass

    def write_format_data(self, format_dict: dict[str, Any], md_dict: object = None) -> None:
        self.shown = format_dict

    def finish_displayhook(self) -> None:
        data, self.shown = self.shown, None
        if data:
            self.shell.show("execute_result", data)

    @staticmethod
    def semicolon_at_end_of_expression(expression: str) -> bool:
        # To tokenize the cell takes as long as running a short one.
        if "#" in expression:
            return DisplayHook.semicolon_at_end_of_expression(expression)
        return expression.rstrip().endswith(";")


class Formats(DisplayFormatter):
    """Displays in all formats, with a short way for what has but one: text."""

    def format(
        self, obj: object, include: object = None, exclude: object = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        if type(obj) in TEXT_ONLY and include is exclude is None:
            text = self.formatters["text/plain"]
            others = (self.ipython_display_formatter, self.mimebundle_formatter)
            every = (*others, *(each for each in self.formatters.values() if each is not text))
            special = [printers for each in every if (printers := each.type_printers)]
            if not any(kind in printers for printers in special for kind in type(obj).__mro__):
                shown = repr(obj) if self._by_repr(text, obj) else text(obj)
                return ({} if shown is None else {"text/plain": shown}), {}
        return super().format(obj, include, exclude)

    @staticmethod
    def _by_repr(text: Any, obj: Any) -> bool:
        """True for a number or text that the pretty printer shows as `repr` does, at more cost."""
        kind = int if type(obj) is bool else type(obj)
        if kind is int and obj.bit_length() > 10_000:
            return False  # `repr` may refuse it, which is then the formatter's to show
        return kind in (int, str) and text.type_printers.get(kind) is _repr_pprint


class Transformer(TransformerManager):
    """Turns magics, shell commands and prompts into Python, where a cell could have any."""

    def transform_cell(self, cell: str) -> str:
        changed = self.cleanup_transforms + self.line_transforms != self.usual
        if changed or NOT_ONLY_PYTHON.search(cell):
            return super().transform_cell(cell)
        return cell if cell.endswith("\n") else cell + "\n"

    def __init__(self) -> None:
        super().__init__()
        self.usual = self.cleanup_transforms + self.line_transforms


class Prefilter(PrefilterManager):
    """Has a line looked at by IPython's eight checkers only if they could find anything there."""

    def prefilter_lines(self, lines: str, continue_prompt: bool = False) -> str:
        word, behind = FIRST_WORD.match(lines).groups()
        if (
            not self.shell.autocall
            and not self.transformers
            and len(self.checkers) == self.usual
            and behind != "."
            and not self.shell.find_magic(word)
            and not isinstance(self.shell.user_ns.get(word), IPyAutocall | Macro)
        ):
            return lines.rstrip("\n")
        return super().prefilter_lines(lines, continue_prompt)

    def init_checkers(self) -> None:
        super().init_checkers()
        self.usual = len(self.checkers)


class CellCompiler(notebook.CellNames, CachingCompiler):
    """Compiles cells under their names."""


class CellShell(notebook.NotebookShell, InteractiveShell):
    """IPython's shell, with a sink for all it shows."""

    sink: DisplaySink
    failure: tuple[str, str] | None = None
    """The class and the traceback of the last error."""
    failed_to_show = False
    kernel = None
    """Pandas takes a shell without this for a terminal, and leaves out columns of wide tables."""
    input_transformer_manager = Instance(Transformer, ())

    def init_prefilter(self) -> None:
        self.prefilter_manager = Prefilter(shell=self, parent=self)
        self.configurables.append(self.prefilter_manager)
        self.prefilter = self.prefilter_manager.prefilter_lines

    def init_display_formatter(self) -> None:
        self.display_formatter = Formats(parent=self)
        self.configurables.append(self.display_formatter)

    def should_run_async(self, raw_cell: str, *, transformed_cell: str, **how: Any) -> bool:
        # IPython compiles the cell to find out.
        if "await" not in transformed_cell and "async" not in transformed_cell:
            return False
        return super().should_run_async(raw_cell, transformed_cell=transformed_cell, **how)

    def start(self, code: str) -> tuple[bool, Coroutine[Any, Any, tuple[str, str] | None]]:
        """Read one cell: whether it awaits anything, and the coroutine that runs it (`run_at_once`
        will do for one that does not). Its result is the class of what the cell raised, and a
        traceback to read.
        """
        self.failure, self.failed_to_show = None, False
        failed_early = None
        try:
            cell = self.transform_cell(code)
        except Exception:
            cell, failed_early = code, sys.exc_info()
        how = {"transformed_cell": cell, "preprocessing_exc_tuple": failed_early}
        waits = self.should_run_async(code, **how)
        return waits, self._run(self.run_cell_async(code, store_history=True, **how), waits)

    async def _run(self, cell_run: Coroutine[Any, Any, Any], waits: bool) -> tuple[str, str] | None:
        result = None
        try:
            if waits:
                work = asyncio.ensure_future(cell_run)
                with cancelled_by_interrupt(work):
                    result = await work
            else:
                result = run_at_once(cell_run)
        finally:
            self.events.trigger("post_execute")
            self.events.trigger("post_run_cell", result)
        if result.success and not self.failed_to_show:
            return None
        error = result.error_before_exec or result.error_in_exec
        return self.failure or (type(error).__name__, notebook.shown(error) if error else "")

    def show_page(self, data: object, *_: object, **__: object) -> None:
        text = data.get("text/plain", "") if isinstance(data, Mapping) else data
        self.sink.show("page", {"text": str(text)})

    def show(self, kind: str, data: Mapping[str, Any], display_id: str = "") -> None:
        """Send a display."""
        self.sink.show(
            kind,
            {
                "transient": {"display_id": display_id},
                "data": {
                    # JSON holds no bytes; the owner reads pictures as base64 (output.py)
                    mime: base64.b64encode(value).decode() if isinstance(value, bytes) else value
                    for mime, value in data.items()
                },
            },
        )

    def showtraceback(self, exc_tuple: Any = None, *args: object, **options: object) -> None:
        kind, error, trace = self._get_exc_info(exc_tuple)
        self.failure = (kind.__name__, notebook.describe(kind, error, trace))
        if self.displayhook.shown is not None:
            self.failed_to_show = True


class CellStream(io.TextIOBase):
    """sys.stdout and sys.stderr: written through at once, so that all output keeps its order.

    What a thread writes after the cell that started it has ended is dropped.
    """

    encoding = "UTF-8"
    errors = "backslashreplace"

    def __init__(self, name: str, fd: int, number: int) -> None:
        super().__init__()
        self.name = f"<{name}>"
        self._fd = fd
        self._number = number
        self.buffer = notebook.RawStream(self)

    def reconfigure(self, **options: object) -> None:
        """Do nothing: what is written is UTF-8, and shown at once."""

    def write(self, string: str) -> int:
        if not isinstance(string, str):
            raise TypeError(f"write() argument must be str, not {type(string).__name__}")
        if notebook.Cell.of_thread() == notebook.Cell.current:
            data = memoryview(string.encode("utf-8", "backslashreplace"))
            while data:
                data = data[os.write(self._fd, data) :]
        return len(string)

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True


def make_shell(profile: str, characters: int) -> CellShell:
    """A shell that is ready to be forked: no thread, no file, nothing seen yet.

    `profile`: an empty folder that may be gone when cells run.
    """
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    shell = CellShell.instance(
        config=config,
        profile_dir=ProfileDir(location=profile),
        displayhook_class=Values,
        display_pub_class=Displays,
        compiler_class=CellCompiler,
    )
    shell.compile.reset_compiler_flags()  # or "incomplete input" is all that is wrong with "(1,"
    shell.set_hook("show_in_pager", CellShell.show_page, 0)
    for each in (shell, shell.history_manager, shell.displayhook, shell.prefilter_manager):
        _make_plain(each)
    displays.bound_displays(shell, characters)
    warnings.filterwarnings("ignore", message="To exit: use 'exit'")
    _warm_up(shell)
    builtins.input = notebook.no_input
    getpass.getpass = notebook.no_getpass
    notebook.Cell.follow_threads()
    notebook.let_loops_nest()
    sys.modules["__main__"] = shell.user_module
    return shell


def _make_plain(owner: HasTraits) -> None:
    """Turn traits that are no settings into plain attributes.

    A cell looks up a hundred of them, each a call into traitlets that writes to pages which all
    sessions share until then.
    """
    kind = type(owner)
    plain = {
        name: getattr(owner, name)
        for name, trait in owner.traits(config=lambda config: not config).items()
        if name not in ("config", "parent", "log") and name not in owner._trait_notifiers
    }
    names = {"__module__": kind.__module__, "__doc__": kind.__doc__}
    owner.__class__ = type(kind)(kind.__name__, (kind,), names | plain)


class Nowhere:
    """A sink for what nobody reads."""

    def show(self, kind: str, content: Mapping[str, Any]) -> None:
        """Do nothing."""


def _warm_up(shell: CellShell) -> None:
    """Run what most cells run, so that forks need not do it first.

    That costs time and memory: modules that are imported late, and bytecode that adapts itself to
    its use in the first runs, each page of which would be copied.
    """
    shell.sink = Nowhere()
    for _ in range(WARM_UPS):
        for code in ("x = 1\nprint(x)", "[x]", "1 / 0", "1 +", "x?"):
            run_at_once(shell.start(code)[1])
    shell.reset(new_session=True)
    shell.failure = None
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        vars(sys).pop(name, None)
    linecache.clearcache()


@contextmanager
def cancelled_by_interrupt(work: "asyncio.Future[Any]") -> Iterator[None]:
    """While a cell awaits, SIGINT cancels it, where it would else end the event loop."""
    loop = asyncio.get_running_loop()
    before = signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(work.cancel))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def run_at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise RuntimeError("a cell that awaits was taken for one that does not")
