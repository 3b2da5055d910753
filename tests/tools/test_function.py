"""Typed functions as tools: their schema, their calls, and what may go wrong in one."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from interlace.tools import ErrorKind, FunctionTool, Tool, ToolResult, ToolSession, tool
from interlace.tools.errors import ToolUnavailable, UsageError


class Place(BaseModel):
    name: str
    height: float = 0.0


@dataclass
class Point:
    x: int
    y: int


@tool
def weather(
    city: Annotated[str, Field(description="Where.")],
    days: int = 3,
    unit: Literal["c", "f"] = "c",
    stations: list[int] | None = None,
) -> str:
    """Forecast the weather
    of a city.

    This is for the model too.
    """
    return f"{city} {days} {unit} {stations}"


def called(a_tool: FunctionTool, arguments: dict[str, Any], seconds: float = 5.0) -> ToolResult:
    async def main() -> ToolResult:
        async with a_tool.session() as session:
            return await session.call(arguments, seconds)

    return asyncio.run(main())


def test_name_description_and_schema_come_from_the_signature() -> None:
    as_tool: Tool = weather
    assert as_tool.name == "weather"
    assert as_tool.description == ("Forecast the weather of a city.\n\nThis is for the model too.")
    schema = as_tool.arguments.model_json_schema()
    assert schema["required"] == ["city"]
    assert schema["properties"]["city"]["description"] == "Where."
    assert schema["properties"]["unit"]["enum"] == ["c", "f"]
    assert schema["properties"]["days"]["default"] == 3


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"city": "Oslo"}, "Oslo 3 c None"),
        ({"city": "Oslo", "days": "7", "stations": [1, 2]}, "Oslo 7 c [1, 2]"),
    ],
)
def test_a_call_fills_in_defaults_and_reads_values(arguments: dict[str, Any], text: str) -> None:
    result = called(weather, arguments)
    assert (result.text, result.error) == (text, None)
    assert result.seconds > 0


def test_bad_arguments_are_named_with_what_was_expected() -> None:
    result = called(weather, {"days": "many", "unit": "k", "colour": "red"})
    assert result.error is ErrorKind.ARGUMENTS
    assert "city: is required" in result.text
    assert "days: input should be a valid integer" in result.text and "'many'" in result.text
    assert "unit: input should be 'c' or 'f'" in result.text
    assert "colour: there is no such argument" in result.text
    assert "city, days, unit, stations" in result.text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as\nit is", "as\nit is"),
        (None, ""),
        (10**30, str(10**30)),
        (True, "true"),
        ({"a": [1, Point(1, 2)]}, '{"a":[1,{"x":1,"y":2}]}'),
        (Place(name="Ben Nevis", height=1345.0), '{"name":"Ben Nevis","height":1345.0}'),
        (date(2024, 2, 29), "2024-02-29"),
        (Decimal("0.10"), "0.10"),
        (float("inf"), "Infinity"),
    ],
)
def test_what_is_returned_becomes_text(value: object, text: str) -> None:
    assert called(tool(lambda: value, name="value"), {}).text == text


def test_parameters_of_any_name_and_kind_are_passed_on() -> None:
    @tool
    def odd(json: int, /, place: Place, *, model_config: str = "x", copy: bool = False) -> str:
        return f"{json} {place.name} {model_config} {copy}"

    assert set(odd.arguments.model_json_schema()["properties"]) == {
        "json",
        "place",
        "model_config",
        "copy",
    }
    result = called(odd, {"json": 1, "place": {"name": "K2"}, "copy": True})
    assert result.text == "1 K2 x True"


def test_what_is_raised_is_a_short_result() -> None:
    @tool
    def fails(how: str) -> None:
        if how == "exit":
            raise SystemExit(3)
        if how == "memory":
            raise MemoryError
        if how == "service":
            raise ToolUnavailable("the weather service is down")
        raise KeyError(how)

    failed = called(fails, {"how": "x"})
    assert (failed.text, failed.error) == ("KeyError: 'x'", ErrorKind.EXCEPTION)
    assert called(fails, {"how": "exit"}).text == "SystemExit: 3"
    assert called(fails, {"how": "memory"}).error is ErrorKind.MEMORY
    ours = called(fails, {"how": "service"})
    assert (ours.text, ours.error) == ("the weather service is down", ErrorKind.UNAVAILABLE)


def test_a_value_that_is_no_json_is_an_exception_of_the_function() -> None:
    loop: list[object] = []
    loop.append(loop)
    result = called(tool(lambda: loop, name="loop"), {})
    assert result.error is ErrorKind.EXCEPTION
    assert "ircular" in result.text


def test_a_thread_past_its_deadline_is_left_behind_and_counted() -> None:
    release = threading.Event()

    @tool
    def waits() -> str:
        release.wait()
        return "late"

    result = called(waits, {}, seconds=0.05)
    assert result.error is ErrorKind.TIMEOUT
    assert "0.05 s" in result.text
    assert waits.stray == 1
    release.set()
    for thread in threading.enumerate():
        if thread.name == "tool waits":
            thread.join()
    assert waits.stray == 0


def test_async_functions_run_in_the_loop_and_are_cancelled_at_the_deadline() -> None:
    cancelled: list[bool] = []

    @tool(name="nap", description="Sleeps.")
    async def sleep(seconds: float) -> float:
        assert threading.current_thread() is threading.main_thread()
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return seconds

    assert (sleep.name, sleep.description) == ("nap", "Sleeps.")
    assert called(sleep, {"seconds": 0}).text == "0.0"
    assert called(sleep, {"seconds": 60}, seconds=0.05).error is ErrorKind.TIMEOUT
    assert cancelled == [True]
    assert sleep.stray == 0


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_cancelled_call_ends_at_once_and_the_session_goes_on(asynchronous: bool) -> None:
    release = threading.Event()

    def blocks(wait: bool) -> str:
        if wait:
            release.wait()
        return "done"

    async def sleeps(wait: bool) -> str:
        await asyncio.sleep(3600 if wait else 0)
        return "done"

    function: Callable[[bool], str | Awaitable[str]] = sleeps if asynchronous else blocks

    async def main() -> str:
        async with tool(function).session() as session:
            call = asyncio.create_task(session.call({"wait": True}, 3600))
            await asyncio.sleep(0.05)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            return (await session.call({"wait": False}, 5)).text

    try:
        assert asyncio.run(main()) == "done"
    finally:
        release.set()


def test_sessions_fork_and_methods_are_functions_too() -> None:
    class Counter:
        def __init__(self) -> None:
            self.count = 0

        def add(self, by: int = 1) -> int:
            """Count."""
            self.count += by
            return self.count

    async def main() -> list[str]:
        counter = tool(Counter().add)
        async with counter.session() as session:
            other: ToolSession = await session.fork()
            return [(await s.call({"by": 2}, 5)).text for s in (session, other)]

    assert asyncio.run(main()) == ["2", "4"]


def untyped(x) -> None:  # type: ignore[no-untyped-def]
    pass


def many(*values: int) -> None:
    pass


def opaque(lock: threading.Event) -> None:
    pass


def unknown(x: "Nowhere") -> None:  # type: ignore[name-defined]  # noqa: F821
    pass


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (untyped, "'x' of 'untyped' needs a type"),
        (many, "values"),
        (opaque, "can't be described as JSON"),
        (unknown, "Nowhere"),
        (lambda: 1, "no name that a model could call"),
    ],
)
def test_a_function_that_can_not_be_described_is_refused(
    function: Callable[..., Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        tool(function)
