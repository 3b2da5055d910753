"""Async context managers for fixtures of plain code."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

__all__ = ["entered"]

Value = TypeVar("Value")


@contextmanager
def entered(manager: AbstractAsyncContextManager[Value]) -> Iterator[Value]:
    """An async context manager, entered for as long as a block lasts."""
    with asyncio.Runner() as runner:
        value = runner.run(manager.__aenter__())
        try:
            yield value
        finally:
            runner.run(manager.__aexit__(None, None, None))
