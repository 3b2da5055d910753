"""The install line of a missing extra."""

import json
import shlex
from pathlib import Path

import pytest

from interlace.tools.errors import MissingExtra


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
