"""Test suites: a query is right if it is right on each of several databases of one schema."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from interlace.rollout.task import Task
from interlace.tools.errors import DataError
from interlace.train.data.sources import find_tasks
from interlace.train.data.task_sets import fingerprint
from interlace.train.rewards import Checker, Unscored

GOLD = "select name from ship where tons > 9"
LUCKY = ["select name from ship where tons >= 9", "select 'Ida'", "select name from ship limit 1"]


def database(path: Path, *tons: int) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as db:
        db.execute("create table ship (name, tons)")
        db.executemany(
            "insert into ship values (?, ?)", zip(["Ida", "Bo", "Cy"], tons, strict=False)
        )
        db.commit()
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    database(tmp_path / "port" / "port.sqlite", 12, 3, 4)
    database(tmp_path / "port" / "port_v1.sqlite", 3, 9, 14)
    database(tmp_path / "port" / "port_v2.sqlite", 14, 12, 9)
    return tmp_path


def test_a_query_that_is_right_by_luck_is_told_apart(folder: Path) -> None:
    one = {"checker": "sql", "gold": GOLD, "database": str(folder / "port" / "port.sqlite")}
    files = [str(folder / "port" / f"port_v{n}.sqlite") for n in (1, 2)]
    with Checker() as checker:
        for lucky in LUCKY:
            assert checker.right(Task("one", "?", None, one), lucky)
            for databases in (files, str(folder / "port")):
                suite = Task("all", "?", None, one | {"databases": databases})
                assert checker.right(suite, GOLD.upper()) and not checker.right(suite, lucky)
        for broken in ([], str(folder), [str(folder / "gone.sqlite")]):
            with pytest.raises(Unscored):
                checker.right(Task("none", "?", None, one | {"databases": broken}), GOLD)
        with pytest.raises(Unscored, match="the gold query"):
            other = one | {"databases": files, "gold": "select nothing from ship"}
            checker.right(Task("gold", "?", None, other), GOLD)


def test_a_suite_may_hold_duckdbs_files_too(folder: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    other = str(folder / "port.duckdb")  # in a list: of a folder only .sqlite files are taken
    with duckdb.connect(other) as db:
        db.execute("create table ship (name varchar, tons integer)")
        db.execute("insert into ship values ('Ida', 9), ('Bo', 12)")
    for first, others in ((str(folder / "port" / "port.sqlite"), [other]), (other, [other])):
        data = {"checker": "sql", "gold": GOLD, "database": first, "databases": others}
        with Checker() as checker:
            assert checker.right(Task("both", "?", None, data), GOLD)
            for lucky in LUCKY:
                assert not checker.right(Task("both", "?", None, data), lucky)


def test_spiders_suites_are_found_from_the_command_line(folder: Path) -> None:
    rows = folder / "dev.json"
    rows.write_text(json.dumps([{"db_id": "port", "question": "Large ones?", "query": GOLD}]))
    (plain,) = find_tasks(f"spider:{rows}:{folder}")
    (suite,) = find_tasks(f"spider:{rows}:{folder}@suite=true")
    assert "databases" not in plain.data and fingerprint([plain]) != fingerprint([suite])
    with Checker() as checker:
        assert checker.right(plain, LUCKY[0]) and not checker.right(suite, LUCKY[0])
        assert checker.right(suite, GOLD)
    (folder / "port" / "port.sqlite").rename(folder / "port.sqlite")
    with pytest.raises(DataError, match="no folder of its own"):
        find_tasks(f"spider:{rows}:{folder}@suite=true")
