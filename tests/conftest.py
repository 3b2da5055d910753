"""For all tests: signals act as in a terminal, and what ends a test has a time limit too."""

import faulthandler
import signal
from collections.abc import Generator, Iterator

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key

collect_ignore_glob = ["verl_cpu/verl_cpu_*.py"]  # for verl's processes, never for pytest


def pytest_configure() -> None:
    """Ctrl-C is ignored in what a shell starts in the background, and in all that this starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def signal_handlers_stay() -> Iterator[None]:
    """A handler that a test leaves would act in the tests after it."""
    ours = set(signal.Signals) - {signal.SIGALRM}  # that is pytest-timeout's
    before = {number: signal.getsignal(number) for number in ours}
    yield
    after = {number: signal.getsignal(number) for number in before}
    changed = {n: handler for n, handler in before.items() if after[n] is not handler}
    for number, handler in changed.items():
        signal.signal(number, handler)
    # Ray sets one when it is imported.
    assert all(getattr(after[n], "__module__", "").startswith("ray.") for n in changed), changed


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Limit this part again: pytest and pytest-timeout lift their limits when a test fails."""
    faulthandler.dump_traceback_later(
        float(item.config.getini("faulthandler_timeout")),
        file=item.config.stash[fault_handler_stderr_fd_key],
        exit=item.config.getini("faulthandler_exit_on_timeout"),
    )
    return (yield)
