"""Public data sets from the command line: questions on databases, each asked of its own."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from interlace.agent.cli.main import app
from interlace.rollout.episode_log import read_episodes

FEW = ["--max-tokens", "48", "--seed", "1"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """BIRD's layout: one JSON list, and a folder for each database."""
    (tmp_path / "databases" / "port").mkdir(parents=True)
    with closing(sqlite3.connect(tmp_path / "databases" / "port" / "port.sqlite")) as db:
        db.executescript("create table ship (name); insert into ship values ('Ida'), ('Ola');")
    rows = [
        {"question_id": n, "db_id": "port", "question": f"Ships {n}?", "evidence": "", "SQL": sql}
        for n, sql in enumerate(["select count(*) from ship", "select name from ship"])
    ]
    (tmp_path / "dev.json").write_text(json.dumps(rows))
    return tmp_path


def interlace(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.mark.parametrize("named", ["beside", "behind"])
@pytest.mark.parametrize("command", ["eval", "rollout"])
def test_tasks_that_name_databases_are_asked_of_them(
    command: str, named: str, folder: Path
) -> None:
    source, databases = f"bird:{folder / 'dev.json'}", folder / "databases"
    where = [f"{source}:{databases}"] if named == "behind" else [source, "--databases", databases]
    out = folder / ("run" if command == "eval" else "log.jsonl")
    done = interlace(command, *where, "--out", out, *FEW)
    assert done.exit_code == 0, done.output
    episodes = list(read_episodes(out / "episodes.jsonl" if command == "eval" else out))
    assert {each.task.question for each in episodes} == {"Ships 0?", "Ships 1?"}
    for episode in episodes:
        assert episode.task.data["database"] == str(databases / "port" / "port.sqlite")
        assert set(episode.settings["tools"]) == {"sql"}


@pytest.mark.parametrize("command", ["eval", "rollout", "coldstart", "train"])
def test_without_their_folder_nothing_begins(command: str, folder: Path) -> None:
    source, out = f"bird:{folder / 'dev.json'}", folder / "out"
    where = ["--tasks", source, "--reward", "reex_sql"] if command == "train" else [source]
    done = interlace(command, *where, "--out", out)
    assert done.exit_code == 2
    assert "have db_id and no database: name the folder with --databases FOLDER" in done.stderr
    assert not out.exists()


def test_tasks_for_a_search_want_a_corpus(folder: Path) -> None:
    row = {"question": "who?", "golden_answers": ["Ida"]}
    (folder / "nq.jsonl").write_text(json.dumps(row))
    done = interlace("eval", f"nq:{folder / 'nq.jsonl'}")
    assert done.exit_code == 2 and "name one as a tool (search:PATH)" in done.stderr
    assert interlace("eval", f"nq:{folder / 'nq.jsonl'}", "--tool", "none", *FEW).exit_code == 0


@pytest.mark.parametrize("command", ["eval", "rollout"])
def test_a_run_is_not_completed_with_other_tasks(command: str, folder: Path) -> None:
    tasks = folder / "tasks.jsonl"
    tasks.write_text('{"id": "a", "question": "1 + 1?", "answer": "2"}\n')
    out = folder / ("run" if command == "eval" else "log.jsonl")
    arguments: list[str | Path] = [command, tasks, "--out", out, "--tool", "none", *FEW]
    assert interlace(*arguments).exit_code == 0
    assert interlace(*arguments, "--resume").exit_code == 0
    tasks.write_text('{"id": "a", "question": "1 + 2?", "answer": "3"}\n')
    done = interlace(*arguments, "--resume")
    assert done.exit_code == 2 and "put the file" in done.stderr
