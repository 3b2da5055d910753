"""Objects that a forked process inherits."""

import os
from collections.abc import Callable

from interlace.tools.forks import renew_in_child


class Inherited:
    def __init__(self, *, fails: bool = False) -> None:
        self.renewed: list[str] = []
        self.fails = fails
        renew_in_child(self)

    def after_fork(self) -> Callable[[], None]:
        if self.fails:
            raise ValueError("no")
        self.renewed.append("at once")
        return lambda: self.renewed.append("at the end")


def test_one_that_fails_leaves_the_others_renewed() -> None:
    held = [Inherited(), Inherited(fails=True), Inherited()]
    child = os.fork()
    if child == 0:
        right = all(one.fails or one.renewed == ["at once", "at the end"] for one in held)
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert not any(one.renewed for one in held)  # here nothing was forked
