"""Models by name: the engine that runs one, and the format that it speaks unless told otherwise."""

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ...tools import Tool
from ...tools.errors import DataError, ModelError, UsageError
from ...tools.files import read_object
from ...tools.importing import Found, find, refuse_code, unknown
from ..engines import Engine, HttpEngine, TransformersEngine, VllmEngine, nano
from ..engines.http.client import split_address
from ..formats import FORMATS, find_format
from ..formats.native import rendered_calls
from ..formats.template import ChatTemplate
from ..tokenizer import Tokenizer
from .files import FORMAT_FILE, KNOWN, find_model, is_engine, is_server

__all__ = [
    "ENGINES",
    "check_engine",
    "default_format",
    "load_engine",
    "refuse_engine",
    "trained_formats",
]


ENGINES = ("transformers", "vllm")
"""What can run a model on this machine."""


def load_engine(
    name: str = "nano",
    *,
    device: str = "auto",
    engine: str = "transformers",
    tokenizer: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Engine:
    """The engine of a model, in this process or on a server.

    `name` is `nano` (bundled), `smollm2` (fetched once), a local folder, a Hugging Face id
    (`Qwen/Qwen3-0.6B`), a server's address (`http://host:8000/v1`, with `#name` where it serves
    several models), or an engine of your own by the grammar of `tools/importing.py`:
    `mine.py:Dice@sides=6`, a class or function that makes an `Engine`.

    `device` is `auto`, `cpu`, `cuda`, `cuda:1` or `mps`. `engine` is what runs the model here, one
    of `ENGINES`, and `options` what its `load` takes besides (`max_batch`, `dtype`, ...) and, for
    vllm, what vLLM's `AsyncEngineArgs` take; for a server, what `HttpEngine.connect` takes and more
    fields of its requests. `tokenizer` is a folder or Hugging Face id, for a
    server whose model's files lie elsewhere.

    Raises ModelError for an unknown model or unusable files, MissingExtra without torch or vLLM,
    UsageError for an unknown engine or option.
    """
    check_engine(name, engine, tokenizer, options)
    if is_server(name):
        return _connect(name, tokenizer, options or {})
    if is_engine(name):
        if device != "auto":
            raise UsageError(f"{name} is an engine of your own: tell it its device after an @")
        return _make_engine(name)
    loaded: TransformersEngine | VllmEngine
    if engine == "vllm":
        own, rest = _options(VllmEngine.load, options or {})
        loaded = VllmEngine.load(find_model(name), device=device, **own, options=rest)
    else:
        own, rest = _options(TransformersEngine.load, options or {})
        if rest:
            raise UsageError(f"the engine transformers has no option {', '.join(rest)}")
        loaded = TransformersEngine.load(find_model(name), device=device, **own)
    loaded.name = name  # as it was asked for, so that a record's name finds the model again
    return loaded


def check_engine(
    name: str, engine: str, tokenizer: str | None, options: Mapping[str, Any] | None = None
) -> None:
    """Raise UsageError if a model can't be loaded in this way, ModelError for an unknown engine."""
    if engine not in ENGINES:
        raise UsageError(unknown("engine", engine, ENGINES))
    if is_server(name):
        split_address(name)  # which refuses one that holds a key, before it is shown anywhere
    if is_server(name) and engine != ENGINES[0]:
        raise UsageError(f"a server runs its model itself: leave out the engine {engine}")
    loads = (TransformersEngine.load, VllmEngine.load)
    local = {each for load in loads for each in inspect.signature(load).parameters}
    if is_server(name) and (wrong := local & (options or {}).keys()):
        raise UsageError(f"a server runs its model itself: leave out {', '.join(sorted(wrong))}")
    if is_server(name) and "key" in (options or {}):
        raise UsageError("leave the key out of the options: set INTERLACE_API_KEY instead")
    if tokenizer is not None and not is_server(name):
        raise UsageError("a model brings its own tokenizer: name one for a server only")
    if is_engine(name):
        if engine != ENGINES[0] or options:
            more = ", ".join(options or [engine])
            raise UsageError(
                f"{name} is an engine of your own, with parameters after an @: leave out {more}"
            )
        _find_engine(name)


def refuse_engine(name: str, source: object) -> None:
    """Raise UsageError if a model's name found in `source`, which may be anybody's, loads code."""
    if is_engine(name):
        refuse_code("engine", name, KNOWN, source)


def _find_engine(name: str) -> Found:
    try:
        found = find("engine", name, KNOWN)
    except UsageError as error:
        raise ModelError(str(error)) from error  # an unknown model, for who reads exit codes
    if found.own or not callable(found.value):
        raise ModelError(f"{name!r} is not a class or function that makes an engine")
    return found


def _make_engine(name: str) -> Engine:
    made = _find_engine(name).make()
    for member in ("name", "tokenizer", "context_length", "generate", "release", "aclose"):
        if not hasattr(made, member):
            raise ModelError(
                f"what {name} makes has no {member}: an engine has the members of "
                "interlace.rollout.engines.Engine"
            )
    if not isinstance(made.tokenizer, Tokenizer):
        raise ModelError(
            f"what {name} makes has a tokenizer of type {type(made.tokenizer).__name__}: let it be "
            "one of interlace.rollout.tokenizer, Tokenizer.load(folder)"
        )
    try:
        made.name = name  # as it was asked for, so that a record's name finds it again
    except AttributeError as error:
        raise ModelError(f"what {name} makes has a name that can't be set: {error}") from error
    return made  # type: ignore[no-any-return]  # checked member by member


def _options(
    load: Callable[..., Any], options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options that `load` has itself, and the rest. Raises UsageError for a wrong value."""
    known = {
        name: each.annotation
        for name, each in inspect.signature(load).parameters.items()
        if name not in ("path", "device", "options", "address", "key", "tokenizer")
    }
    own = {}
    for name in known.keys() & options.keys():
        try:
            own[name] = TypeAdapter(known[name]).validate_python(options[name])
        except ValidationError as error:
            why = error.errors()[0]["msg"]
            raise UsageError(f"{name} can't be {options[name]!r}: {why}") from None
    return own, {name: value for name, value in options.items() if name not in known}


def default_format(
    name: str, tokenizer: Tokenizer, tools: Sequence[Tool] = (), *, any_tool: bool = False
) -> str:
    """The format that a model speaks unless another is named. `any_tool`: each task may bring tools
    of its own.

    The one it was trained in here, if that can call all the tools. Otherwise the one that reads the
    calls that its chat template writes. Otherwise, explained in its system prompt, hermes if there
    are tools other than python, or retool. The nano model knows both, and writes Python in retool.
    Raises UsageError if the template writes calls that no format reads.
    """
    trained = None if any_tool else _trained_format(name, tools)
    if trained is not None:
        return trained
    others = any_tool or any(tool.name != "python" for tool in tools)
    told = "hermes" if others else "retool"
    return told if name == "nano" else _native_format(name, tokenizer, tools) or told


def _native_format(name: str, tokenizer: Tokenizer, tools: Sequence[Tool]) -> str | None:
    """The format of the calls that a model's chat template writes; None if it writes none."""
    if tokenizer.chat_template is None:
        return None
    writes_calls = False
    for calls in rendered_calls(ChatTemplate(tokenizer)):
        if (found := calls.format(FORMATS.values())) is not None:
            return found.name
        writes_calls = True
    if writes_calls and tools:
        raise UsageError(
            f"the chat template of {name} writes tool calls in a syntax that interlace does not "
            "read: name a format that the model is then told of in its prompt (--format hermes)"
        )
    return None


def trained_formats(name: str) -> tuple[str, ...]:
    """The formats that a model was trained in here; empty if nothing says so."""
    if name == "nano":
        return nano.FORMATS
    try:
        return (str(read_object(Path(name).expanduser() / FORMAT_FILE)["format"]),)
    except (DataError, LookupError, RuntimeError):  # RuntimeError: there is no home
        return ()


def _trained_format(name: str, tools: Sequence[Tool]) -> str | None:
    """The format that training left in a model's folder, if it fits."""
    try:
        (said,) = trained_formats(name)
        find_format(said, trusted=False).check(tools)
    except (ValueError, UsageError):
        return None
    return said


def _connect(address: str, tokenizer: str | None, options: Mapping[str, Any]) -> Engine:
    model = None if tokenizer is None else Tokenizer.load(find_model(tokenizer))
    own, rest = _options(HttpEngine.connect, options)
    # In a thread: whoever loads an engine may be inside an event loop.
    with ThreadPoolExecutor(1) as pool:
        connecting = HttpEngine.connect(address, tokenizer=model, **own, options=rest)
        return pool.submit(asyncio.run, connecting).result()
