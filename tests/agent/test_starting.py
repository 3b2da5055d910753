"""Ctrl-C before a command has begun, and the install line of a missing extra."""

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from interlace.tools.errors import MissingExtra

EARLY = """
import os, signal, sys
class Pressed:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Pressed())
from interlace.agent.cli import run
sys.argv = ["interlace", "--version"]
run()
"""


@pytest.mark.parametrize("module", ["interlace.agent.cli.main", "typer", "dataclasses"])
def test_ctrl_c_while_the_command_line_is_imported_says_nothing(module: str) -> None:
    begun = [sys.executable, "-c", EARLY.format(module=module)]
    done = subprocess.run(begun, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


class Installed:
    def __init__(self, origin: str | None) -> None:
        self.origin = origin

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self.origin


@pytest.mark.parametrize(
    ("editable", "there", "line"),
    [
        (True, True, "pip install -e '{}[train]'"),
        (False, True, "pip install '{}[train]'"),
        (False, False, "in a clone of interlace, pip install '.[train]'"),
        (None, True, "in a clone of interlace, pip install '.[train]'"),
    ],
)
def test_a_missing_extra_names_the_line_that_works_here(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    editable: bool | None,
    there: bool,
    line: str,
) -> None:
    clone = tmp_path / "a clone"
    clone.mkdir()
    if there:
        (clone / "pyproject.toml").touch()
    origin = {"url": clone.as_uri(), "dir_info": {"editable": True} if editable else {}}
    text = None if editable is None else json.dumps(origin)
    monkeypatch.setattr("interlace.tools.errors.distribution", lambda _: Installed(text))
    said = str(MissingExtra("a plot", "train"))
    assert said == f"a plot needs an optional part: {line.format(clone)}"
    assert shlex.split(line.format(clone))[-1].endswith("[train]")
