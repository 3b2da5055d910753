"""Public data sets from the command line: questions on databases, each asked of its own."""

import gzip
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


ODD = {
    "torn.jsonl.gz": (
        gzip.compress(b'{"question": "1 + 1?", "answer": "2"}\n' * 99)[:-9],
        "can't read",
    ),
    "list.json": (b"[]", "there are no questions in"),
    "half.jsonl": (b'{"question": "a \\ud83d", "answer": "2"}', "line 1 holds half of a character"),
    "true.json": (
        b'[{"question": "a", "answer": true}]',
        "row 1 is not a task: an answer is a text",
    ),
    "latin.csv": (b"question,answer\nw\xf6?,2\n", "is not UTF-8 text"),
}


@pytest.mark.parametrize("command", ["eval", "rollout", "coldstart", "train"])
def test_every_command_says_the_same_of_a_file_before_anything_is_loaded(
    command: str, tmp_path: Path
) -> None:
    for name, (content, says) in ODD.items():
        source, out = tmp_path / name, tmp_path / "out"
        source.write_bytes(content)
        where: list[str | Path] = ["--tasks", source] if command == "train" else [source]
        done = interlace(command, *where, "--out", out)
        assert done.exit_code == 9 and says in done.stderr, name
        assert done.stderr.count("\n") == 1 and not out.exists()


@pytest.mark.parametrize("command", ["eval", "rollout", "coldstart", "train"])
def test_a_generator_and_an_adapter_have_one_name_in_every_command(
    command: str, tmp_path: Path
) -> None:
    """Each gets as far as the model, which is not there."""
    (tmp_path / "g.csv").write_text("question,answer\n1 + 1?,#### 2\n")
    for name in ("arithmetic:train:3", f"gsm8k:{tmp_path / 'g.csv'}"):
        where = ["--tasks", name, "--set", "tasks_per_step=1"] if command == "train" else [name]
        model = ["--model", str(tmp_path / "none")]
        done = interlace(command, *where, *model, "--out", tmp_path / "out")
        assert done.exit_code == 6 and "none" in done.stderr, done.stderr


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
