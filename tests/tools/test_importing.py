"""The doors: how names are taken apart, and what they stand for."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from interlace.tools.errors import UsageError
from interlace.tools.importing import Name, find, names, parse_name

TABLE = {"python": 1, "sql": 2}

# The grammar, by example.
EXAMPLES = {
    "python": Name("python"),
    "python:jupyter": Name("python", "jupyter"),
    "sql:shop.db": Name("sql", "shop.db"),
    "sql:shop.db@rows=3": Name("sql", "shop.db", None, {"rows": 3}),
    "sql:/data/a@b/shop.db": Name("sql", "/data/a@b/shop.db"),
    "sql:shop@2.db": Name("sql", "shop@2.db"),
    "search:docs/": Name("search", "docs/"),
    "search:http://localhost:8000/retrieve": Name("search", "http://localhost:8000/retrieve"),
    "search:http://user@host:80/x": Name("search", "http://user@host:80/x"),
    "search:http://host/x@k=5,name=b": Name("search", "http://host/x", None, {"k": 5, "name": "b"}),
    "vote@8": Name("vote", "", 8),
    "best@4,by=judge": Name("best", "", 4, {"by": "judge"}),
    "tree@leaves=8,rule=split": Name("tree", "", None, {"leaves": 8, "rule": "split"}),
    "clip@0.2": Name("clip", "", 0.2),
    "clip@low=-1e-3,dual=true": Name("clip", "", None, {"low": -0.001, "dual": True}),
    "arithmetic:train:500": Name("arithmetic", "train:500"),
    "mine:tide": Name("mine", "tide"),
    "my.package.rewards:terse@weight=0.5": Name(
        "my.package.rewards", "terse", None, {"weight": 0.5}
    ),
    "./mine.py:Format": Name("./mine.py", "Format"),
    "../lib/rewards.py:make@3": Name("../lib/rewards.py", "make", 3),
    "mine.py:Graph:roads.csv@depth=3": Name("mine.py", "Graph:roads.csv", None, {"depth": 3}),
    "vote@": Name("vote@"),
    "vote@eight": Name("vote@eight"),
}


@pytest.mark.parametrize("text", EXAMPLES)
def test_a_name_is_taken_apart(text: str) -> None:
    assert parse_name(text) == EXAMPLES[text]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with a module `tidal_names` and a file in a subfolder."""
    (tmp_path / "tidal_names.py").write_text(
        "def tide(height: int = 1, port: str = 'a') -> tuple[int, str]:\n"
        "    return height, port\n"
        "def chart(source: str, *, scale: float = 1.0) -> tuple[str, float]:\n"
        "    return source, scale\n"
    )
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "own.py").write_text(
        "from own_helper import one\nloads = []\nloads.append(one)\nvalue = loads\n"
    )
    (tmp_path / "sub" / "own_helper.py").write_text("one = 1\n")
    (tmp_path / "sub" / "broken.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for module in ("tidal_names", "own_helper"):
        sys.modules.pop(module, None)
    sys.path[:] = [entry for entry in sys.path if not entry.startswith(str(tmp_path))]


def test_ours_a_module_and_a_file_are_found_by_one_grammar(here: Path) -> None:
    assert (find("tool", "sql:x@rows=3", TABLE).value, find("tool", "sql", TABLE).own) == (2, True)
    tide = find("tool", "tidal_names:tide@7", TABLE)
    assert not tide.own
    assert tide.bind(tide.value)() == (7, "a")
    assert find("tool", "sub/own.py:value", TABLE).value == [1]
    again = find("tool", "own.py:value", TABLE, folder=here / "sub")
    assert again.value == [1], "a file is run once"


def test_what_can_not_be_found_is_told_with_what_there_is(here: Path) -> None:
    for text, said in {
        "pyhton": "unknown tool 'pyhton'; choose from python, sql",
        "tidal_names:ebb": "has no attribute 'ebb'",
        "nowhere_at_all:ebb": "nor is there a module 'nowhere_at_all'",
        "sub/none.py:x": "no such file",
        "sub/broken.py:x": "ZeroDivisionError",
    }.items():
        with pytest.raises(UsageError, match=said):
            find("tool", text, TABLE)
    tide = find("tool", "tidal_names:tide@depth=3", TABLE)
    with pytest.raises(UsageError, match=r"unknown parameter .*'depth'; choose from height, port"):
        tide.bind(tide.value)
    for text, said in {
        "tidal_names:tide@height=high": "height of tidal_names can't be 'high': .* valid integer",
        "tidal_names:chart": r"tidal_names:chart can't be made: TypeError: .*'source'",
        "sql:shop.db": "takes neither a source nor parameters",
    }.items():
        with pytest.raises(UsageError, match=said):
            find("tool", text, TABLE).make()


def test_what_a_thing_works_on_is_its_first_argument(here: Path) -> None:
    assert find("tool", "tidal_names:tide@port=5", TABLE).make() == (1, "5")
    for name in ("tidal_names:chart", "./tidal_names.py:chart"):
        assert find("tool", f"{name}:a/b.csv@scale=2", TABLE).make() == ("a/b.csv", 2.0)
        assert find("tool", f"{name}:http://h:80/x", TABLE).make() == ("http://h:80/x", 1.0)


def test_a_name_that_is_not_the_users_own_loads_no_code(here: Path) -> None:
    for text in ("tidal_names:tide", "sub/own.py:value"):
        with pytest.raises(UsageError, match="would load code"):
            find("tool", text, TABLE, trusted=False)
    assert "tidal_names" not in sys.modules
    assert find("tool", "python", TABLE, trusted=False).value == 1


def install(folder: Path, package: str, entry: str) -> None:
    """A package as pip leaves it: its metadata with an entry point."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[interlace.plugins]\n{entry}\n")


def test_installed_packages_register_names(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(here)
    install(here, "tides", "tool.tide = tidal_names:tide\ntool.chart = tidal_names:chart")
    assert find("tool", "tide", TABLE, trusted=False).value(3) == (3, "a")
    assert find("tool", "chart:a.csv@2", TABLE, trusted=False).make() == ("a.csv", 2.0)
    assert "tide" in names("tool", TABLE)
    assert "tide" not in names("format", {})
    (here / "more").mkdir()
    install(here / "more", "other-tides", "tool.tide = tidal_names:other\ntool.sql = x:y")
    monkeypatch.syspath_prepend(here / "more")
    with pytest.raises(UsageError, match=r"tides and .*tides both register the tool 'tide'"):
        find("tool", "tide", TABLE)
    with pytest.raises(UsageError, match="tides both register"):
        names("tool", TABLE)
