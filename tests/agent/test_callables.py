"""Functions of every kind as tools: the same record in whatever way an agent is asked."""

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from langchain_core.tools import InjectedToolArg, StructuredTool, ToolException
from langchain_core.tools import tool as langchain_tool
from pydantic import Field
from support.teams import TOKENIZER, cast

from interlace import Agent, Limits, Team, tool
from interlace.agent.events import Done
from interlace.rollout.engines import ScriptedEngine
from interlace.rollout.many.runner import Runner
from interlace.rollout.task import Task
from interlace.rollout.trajectory import CallRecord
from interlace.tools import ErrorKind, FunctionTool, ToolResult
from interlace.tools.base import LiveSession
from interlace.tools.errors import UsageError
from interlace.tools.named import as_tool

# -- every kind of callable, and everything that it may do -----------------------------------------

Act = Callable[[], Any]


class Odd(BaseException):
    """An error that is no Exception."""


def gives(value: Any) -> Act:
    return lambda: value


def raises(error: BaseException) -> Act:
    def act() -> Any:
        raise error

    return act


CIRCULAR: list[object] = []
CIRCULAR.append(CIRCULAR)

ACTS: dict[str, tuple[Act, str, ErrorKind | None]] = {
    "value": (gives({"a": [1, 2]}), '{"a":[1,2]}', None),
    "nothing": (gives(None), "", None),
    "names": (gives("caf\udce9.txt"), "caf\\udce9.txt", None),
    "bytes": (gives([b"\xff\x00a"]), '["\\\\xff\\u0000a"]', None),
    "refusal": (raises(ValueError("not there")), "ValueError: not there", ErrorKind.EXCEPTION),
    "odd": (raises(Odd("odd")), "Odd: odd", ErrorKind.EXCEPTION),
    "exit": (raises(SystemExit(3)), "SystemExit: 3", ErrorKind.EXCEPTION),
    "memory": (raises(MemoryError()), "MemoryError", ErrorKind.MEMORY),
}


def kinds(act: Act) -> dict[str, Callable[[], Any]]:
    """Callables of all kinds that do the same."""

    def plain() -> Any:
        return act()

    async def coroutine() -> Any:
        await asyncio.sleep(0)
        return act()

    def generator() -> Iterator[Any]:
        yield act()

    async def async_generator() -> AsyncIterator[Any]:
        yield act()

    @functools.wraps(coroutine)
    def wrapped(*args: Any, **named: Any) -> Any:
        return coroutine(*args, **named)

    @functools.wraps(async_generator)
    def wrapped_generator(*args: Any, **named: Any) -> Any:
        return async_generator(*args, **named)

    @functools.wraps(plain)
    async def wrapped_plain(*args: Any, **named: Any) -> Any:
        return plain(*args, **named)

    async def twice() -> Any:
        return coroutine()

    async def gives_generator() -> Any:
        return generator()

    class Thing:
        def method(self) -> Any:
            return act()

        async def async_method(self) -> Any:
            return act()

        @classmethod
        def of_class(cls) -> Any:
            return act()

        def __call__(self) -> Any:
            return act()

    class AsyncThing:
        async def __call__(self) -> Any:
            return act()

    return {
        "plain": plain,
        "coroutine": coroutine,
        "generator": generator,
        "async_generator": async_generator,
        "wrapped": wrapped,
        "wrapped_generator": wrapped_generator,
        "wrapped_plain": wrapped_plain,
        "twice": twice,
        "gives_generator": gives_generator,
        "method": Thing().method,
        "async_method": Thing().async_method,
        "of_class": Thing.of_class,
        "object": Thing(),
        "async_object": AsyncThing(),
        "partial": functools.partial(plain),
        "partial_coroutine": functools.partial(coroutine),
        "awaitable": lambda: coroutine(),
        "tool": tool(plain),
    }


def table() -> dict[str, tuple[FunctionTool, str, ErrorKind | None]]:
    found = {}
    for doing, (act, text, error) in ACTS.items():
        for kind, function in kinds(act).items():
            name = f"{doing}_{kind}"
            found[name] = FunctionTool(function, name=name, description="."), text, error
    return found


def summary(calls: Any) -> list[tuple[str, str, ErrorKind | None, bool]]:
    return [(c.tool, c.output, c.error, "traceback" in c.details) for c in calls]


LIMITS = Limits(max_tokens=100_000, max_calls=10_000)


def test_every_callable_leaves_the_same_record_in_every_way_it_is_asked_for() -> None:
    tools = table()
    wanted = [(name, text, error, error is not None) for name, (_, text, error) in tools.items()]
    calls = "\n".join(
        f'<tool_call>\n{{"name": "{name}", "arguments": {{}}}}\n</tool_call>' for name in tools
    )
    said = [calls, "It is \\boxed{42}"]
    settings: dict[str, Any] = {
        "tools": [one for one, _, _ in tools.values()],
        "format": "hermes",
        "limits": LIMITS,
    }

    def agent() -> Agent:
        return Agent(ScriptedEngine(TOKENIZER, said, context_length=1_000_000), **settings)

    async def streamed() -> Any:
        return [event async for event in agent().stream("?")][-1]

    async def rolled_out() -> list[CallRecord]:
        runner = Runner((await agent().rollout_plan()).policy)
        (episode,) = [episode async for episode in runner.run([Task("a", "?")])]
        return episode.trajectory.calls

    in_team = cast({"solver": said}, context_length=1_000_000)
    last = list(agent().stream_sync("?"))[-1]
    assert isinstance(last, Done)
    ways = {
        "run": asyncio.run(agent().run("?")).calls,
        "run_sync": agent().run_sync("?").calls,
        "stream": asyncio.run(streamed()).result.calls,
        "stream_sync": last.result.calls,
        "team": asyncio.run(Team.ceo(Agent(in_team, **settings)).run("?")).calls,
        "rollout": asyncio.run(rolled_out()),
    }
    for way, found in ways.items():
        different = [
            pair for pair in zip(summary(found), wanted, strict=True) if pair[0] != pair[1]
        ]
        assert not different, (way, different[:3])


# -- time and size ---------------------------------------------------------------------------------


def called(one: Any, arguments: dict[str, Any] | None = None, seconds: float = 20.0) -> ToolResult:
    async def main() -> ToolResult:
        async with as_tool(one).session() as session:
            return await session.call(arguments or {}, seconds)

    return asyncio.run(main())


async def stubborn() -> str:
    """Not to be cancelled."""
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(1.5)
            return "late"


async def cancels() -> str:
    """Cancelled by itself."""
    raise asyncio.CancelledError


def test_a_callable_past_its_limit_or_cancelled_by_itself_is_told_so() -> None:
    late = "The time limit of 0.05 s was reached."
    for one in (stubborn, functools.partial(asyncio.sleep, 3600), lambda: asyncio.sleep(3600)):
        made = FunctionTool(one, name="f") if one is stubborn else wrap(one)
        result = called(made, seconds=0.05)
        assert (result.text, result.error) == (late, ErrorKind.TIMEOUT)
    assert called(cancels).text == "CancelledError"
    with pytest.raises(KeyboardInterrupt):
        called(kinds(raises(KeyboardInterrupt()))["coroutine"])


async def deaf() -> AsyncIterator[str]:
    """Not to be cancelled, either."""
    yield "first"
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(3600)
    yield "second"


def test_a_generator_that_was_left_behind_is_not_heard_in_later_calls() -> None:
    made, heard = FunctionTool(deaf), list[str]()

    async def main() -> ToolResult | None:
        async with made.session() as session:
            assert isinstance(session, LiveSession)
            session.on_output = heard.append
            call = asyncio.create_task(session.call({}, 20))
            while not heard:
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait({call})
            while made.stray:
                await asyncio.sleep(0)
            return session.interrupted

    stopped = asyncio.run(main())
    assert heard == ["first"] and stopped is not None and stopped.text.startswith("first\n")


def wrap(one: Callable[[], Any]) -> FunctionTool:
    def waits() -> Any:
        return one()

    return FunctionTool(waits)


def test_an_async_function_that_blocks_the_loop_past_its_limit_is_no_success(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def blocks() -> str:
        """Does not await."""
        end = asyncio.get_running_loop().time() + 0.3
        while asyncio.get_running_loop().time() < end:
            pass
        return "done"

    result = called(blocks, seconds=0.1)
    assert (result.text, result.error) == (
        "The time limit of 0.1 s was reached.",
        ErrorKind.TIMEOUT,
    )
    assert float(str(result.details["blocked_seconds"])) >= 0.3
    assert "'blocks' held up the event loop" in caplog.text


@pytest.mark.parametrize("size", [1, 4, 16])
def test_huge_results_are_bounded_work_outside_of_the_loop_and_kept_whole(size: int) -> None:
    """No more than 400,000 characters are encoded, and other work continues meanwhile."""
    text = "0123456789abcdef" * (size << 16)
    engine = ScriptedEngine(
        TOKENIZER, ['<tool_call>\n{"name": "huge", "arguments": {}}\n</tool_call>', "\\boxed{1}"]
    )

    def huge() -> str:
        """Give much."""
        return text

    encoded: list[int] = []

    class Counting(type(TOKENIZER)):  # type: ignore[misc]
        def encode(self, text: str) -> list[int]:
            encoded.append(len(text))
            return list(super().encode(text))

    engine.tokenizer = Counting(TOKENIZER._fast, TOKENIZER.config, TOKENIZER.path)
    result = Agent(engine, tools=[huge], format="hermes").run_sync("?")
    (call,) = result.calls
    assert call.full_output == text and max(encoded) <= 400_000
    assert call.output.startswith("0123") and call.output.endswith("cdef")
    assert "tokens left out ...]" in call.output and len(TOKENIZER.encode(call.output)) <= 520


def test_a_generator_without_an_end_is_stopped() -> None:
    def endless() -> Iterator[str]:
        while True:
            yield "x" * (1 << 20)

    async def aendless() -> AsyncIterator[str]:
        while True:
            yield "x" * (1 << 20)

    for one in (endless, aendless):
        result = called(one, seconds=60)
        assert result.error is ErrorKind.EXCEPTION and len(result.text) < 40 << 20


# -- what a developer gets -------------------------------------------------------------------------


def stock(article: str, places: "list[int] | None" = None) -> int:
    """How many pieces are in stock."""
    return {"bolt": 4387}[article]


def test_a_tool_stays_a_function(caplog: pytest.LogCaptureFixture) -> None:
    made = tool(stock)
    assert made("bolt") == 4387 and made.__wrapped__ is stock  # type: ignore[attr-defined]
    assert (made.__name__, made.__doc__) == ("stock", stock.__doc__)  # type: ignore[attr-defined]
    assert repr(made).startswith("<tool stock(article: str")
    assert as_tool(made) is made
    with pytest.raises(KeyError):
        made("nut")

    @tool(name="later")
    async def soon(x: int) -> int:
        return x + 1

    assert asyncio.run(soon(1)) == 2


def test_what_a_tool_raises_reaches_its_developer_and_the_model_what_should(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails() -> None:
        """Fail."""
        raise RuntimeError("the password is 1234")

    async def afails() -> None:
        fails()

    for one in (fails, afails):
        caplog.clear()
        result = called(one)
        assert result.text == "RuntimeError: the password is 1234"
        (record,) = [each for each in caplog.records if each.name == "interlace.tools"]
        assert record.levelno == logging.ERROR and record.exc_info is not None
        told = str(result.details["traceback"])
        assert told.startswith("Traceback") and "in fails" in told and "function.py" not in told

    secret = called(tool(fails, on_error="The service failed."))
    assert secret.text == "The service failed." and "1234" in str(secret.details["traceback"])
    own = called(tool(fails, on_error=lambda error: f"{type(error).__name__}: try later"))
    assert own.text == "RuntimeError: try later"
    odd: list[Any] = [lambda error: str(1 / 0), lambda error: 503]
    for broken in odd:
        for one in (fails, afails):
            result = called(tool(one, on_error=broken))
            assert (result.text, result.error) == ("RuntimeError", ErrorKind.EXCEPTION)


GOOGLE = """Book a berth.

    Use at most three words.

    Args:
        port: Where to
            moor.
        hours (int, optional): How long. Defaults to 3.

    Returns:
        Its number.

    Example:
        >>> book("Oslo")
    """
NUMPY = """Book a berth.

    Use at most three words.

    Parameters
    ----------
    port : str
        Where to moor.
    hours : int, optional
        How long. Defaults to 3.

    Returns
    -------
    str
        Its number.
    """
SPHINX = """Book a berth.

    Use at most three words.

    :param port: Where to
        moor.
    :param int hours: How long. Defaults to 3.
    :returns: Its number.
    :raises KeyError: Never.
    """


@pytest.mark.parametrize("doc", [GOOGLE, NUMPY, SPHINX], ids=["google", "numpy", "sphinx"])
def test_descriptions_are_read_from_docstrings(doc: str) -> None:
    def book(
        port: str, hours: int = 3, deep: Annotated[bool, Field(description="D.")] = False
    ) -> str:
        return port

    book.__doc__ = doc + "\n"
    made = tool(book)
    assert made.description == "Book a berth.\n\nUse at most three words."
    told = {name: field.description for name, field in made.arguments.model_fields.items()}
    assert told == {"port": "Where to moor.", "hours": "How long. Defaults to 3.", "deep": "D."}


@pytest.mark.parametrize(
    ("doc", "description", "x"),
    [
        (None, "", None),
        ("One line\n    of two.", "One line of two.", None),
        ("\n    Args:\n        x: Alone.", "", "Alone."),
        ("Note: a colon.\n\n    >>> f(1)\n    2\n", "Note: a colon.", None),
        ("Do.\n\n    Args:\n        y: Another's.", "Do.", None),
    ],
)
def test_odd_docstrings_are_read_too(doc: str | None, description: str, x: str | None) -> None:
    def f(x: int = 1) -> int:
        return x

    f.__doc__ = doc
    made = tool(f)
    assert (made.description, made.arguments.model_fields["x"].description) == (description, x)


def test_no_parameters_collide() -> None:
    @tool
    def odd(_x: int, argument_x: int, __x: int = 3, argument_x_: int = 4, copy: int = 5) -> str:
        return f"{_x} {argument_x} {__x} {argument_x_} {copy}"

    names = ["_x", "argument_x", "__x", "argument_x_", "copy"]
    assert list(odd.arguments.model_json_schema()["properties"]) == names
    assert called(odd, {"_x": 1, "argument_x": 2, "copy": 6}).text == "1 2 3 4 6"


@dataclass
class Numbers:
    one: Any


def test_numpy_scalars_stay_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    value = {"a": numpy.int64(7), "b": numpy.bool_(True), "c": [numpy.float32(0.5)]}
    assert called(tool(lambda: value, name="v")).text == '{"a":7,"b":true,"c":[0.5]}'
    assert called(tool(lambda: Numbers(b"\xfe"), name="v")).text == '{"one":"\\\\xfe"}'


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"article": "bolt", "places": "[1, 2]"}, "4387"),
        ({"article": "bolt", "places": "null"}, "4387"),
        ({"article": "bolt", "places": ""}, "4387"),
    ],
)
def test_arguments_as_models_write_them_get_a_second_try(
    arguments: dict[str, Any], text: str
) -> None:
    assert called(stock, arguments).text == text
    refused = called(stock, {**arguments, "places": "[1,"})
    assert refused.error is ErrorKind.ARGUMENTS and "got '[1,'" in refused.text


# -- LangChain's -----------------------------------------------------------------------------------


@langchain_tool
def tide(port: str, hour: int = 12, secret: Annotated[str, InjectedToolArg] = "s") -> str:
    """The height of the tide."""
    if port == "nowhere":
        raise ToolException("no such port")
    return f"{port} {hour}"


async def _tide(port: str) -> list[dict[str, Any]]:
    blocks = [{"type": "text", "text": text} for text in (port, "")]
    return [*blocks, {"type": "image", "url": "x"}]


def test_langchain_tools_are_taken() -> None:
    made = as_tool(tide)
    assert (made.name, made.description) == ("tide", "The height of the tide.")
    assert list(made.arguments.model_json_schema()["properties"]) == ["port", "hour"]
    assert called(tide, {"port": "Oslo", "hour": "3"}).text == "Oslo 3"
    assert called(tide, {"port": "Oslo"}).text == "Oslo 12"
    assert called(tide, {}).error is ErrorKind.ARGUMENTS
    failed = called(tide, {"port": "nowhere"})
    assert (failed.text, failed.error) == ("ToolException: no such port", ErrorKind.EXCEPTION)
    handled = tide.model_copy(update={"handle_tool_error": True})
    told = called(handled, {"port": "nowhere"})
    assert (told.text, told.error) == ("no such port", ErrorKind.EXCEPTION)

    schema = {
        "title": "T",
        "type": "object",
        "properties": {"port": {"type": "string"}},
        "required": ["port"],
    }
    remote = StructuredTool(
        name="far-tide", description="Far.", args_schema=schema, coroutine=_tide, func=None
    )
    far = as_tool(remote)
    assert far.name == "far_tide" and far.arguments.model_json_schema() == {
        **schema,
        "description": "Far.",
    }
    assert called(remote, {"port": "Oslo"}).text == 'Oslo\n\n{"type": "image", "url": "x"}'


def test_what_is_no_tool_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="a name, a function or a tool, not int"):
        Agent(tools=[3])  # type: ignore[list-item]

    class Port:
        def book(self, port: str) -> str:
            return port

    with pytest.raises(UsageError, match=r"'self' of 'book' needs a type: make the method of an"):
        tool(Port.book)
