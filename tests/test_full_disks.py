"""Disks that are full, read-only, without rights or too small: one sentence, and nothing is lost.

`support/failing_disk.py` has everything that the product writes and each fault, brought about for
real: a disk in memory of a process's own, limits and rights of the kernel.
"""

import asyncio
import errno
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import typer
from support import failing_disk, warm
from support.attempts import attempt
from support.fakes import answer
from support.tiny_models import byte_tokenizer

from interlace import Agent, Conversations
from interlace.agent.cli.exits import exit_codes
from interlace.rollout.engines import ScriptedEngine
from interlace.rollout.episode_log import EpisodeLog, read_episodes
from interlace.rollout.task import Task
from interlace.tools.errors import DataError
from interlace.tools.files import write_whole

TESTS = Path(__file__).parent


@cache
def outcomes(*faults: str) -> dict[str, Any]:
    """What each writer did on each disk."""
    with TemporaryDirectory() as folder:
        done = warm.run(
            [sys.executable, failing_disk.__file__, folder, *faults],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(TESTS)},
        )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("writer", failing_disk.WRITERS)
def test_a_full_disk_costs_only_what_was_being_written(writer: str) -> None:
    check("full", writer, outcomes("full"))


@pytest.mark.slow
@pytest.mark.parametrize("writer", failing_disk.WRITERS)
@pytest.mark.parametrize("fault", list(failing_disk.FAULTS)[1:])
def test_other_faults_cost_only_what_was_being_written(fault: str, writer: str) -> None:
    check(fault, writer, outcomes(*list(failing_disk.FAULTS)[1:]))


def check(fault: str, writer: str, done: dict[str, Any]) -> None:
    if fault not in done:
        pytest.skip("a process may have no disk of its own here: no user namespaces")
    found = done[fault][writer]
    assert found["error"] is not None, "the fault was not met"
    kind, code, said = found["error"]
    assert kind == "DataError" and code == 9, found["trace"]
    assert "\n" not in said and len(said) < 300 and "/disk/" in said
    assert found["same"] is True, found["trace"]
    left = [Path(name).parent.name + "/" + Path(name).name for name in found["left"]]
    # SQLite and tantivy clean up when they are next used.
    assert [each for each in left if not each.startswith("index-") and ".db-" not in each] == []
    assert found["mended"] is True, found["trace"]


@pytest.mark.parametrize("place", ["/dev/full", "/proc/self/mem"])  # ENOSPC; EIO
def test_a_log_on_a_broken_device_is_one_sentence(place: str) -> None:
    with (
        EpisodeLog(place) as log,
        pytest.raises(DataError, match=f"can't write {place}: (No space|Input/output error).*: "),
    ):
        log.append(attempt(Task("a", "?", "7"), answer("7")))


def test_a_log_that_lacks_only_its_end_is_not_read_wrongly_on_a_full_disk(tmp_path: Path) -> None:
    """An editor took the last line's end away; here it can't be put back."""
    path = tmp_path / "t.jsonl"
    with EpisodeLog(path) as log:
        log.append(attempt(Task("a", "?", "7"), answer("7")))
    path.write_bytes(path.read_bytes()[:-1])
    size = path.stat().st_size
    code = (
        "import resource, sys; from interlace.rollout.episode_log import EpisodeLog\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, resource.RLIM_INFINITY))\n"
        f"EpisodeLog({str(path)!r})"
    )
    done = warm.run([sys.executable, "-c", code], stderr=subprocess.PIPE)
    assert "DataError: can't write" in done.stderr.splitlines()[-1]
    assert [each.group for each in read_episodes(path)] == ["a"]


def test_a_link_stays_a_link_and_a_device_a_device(tmp_path: Path) -> None:
    """Both were replaced by an ordinary file; for root even /dev/null."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "real" / "file.json")
    write_whole(tmp_path / "link.json", "1")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real" / "file.json").read_text() == "1"
    reading, writing = os.pipe()
    write_whole(f"/dev/fd/{writing}", "to a pipe")
    assert os.read(reading, 100) == b"to a pipe"
    (tmp_path / "null").symlink_to("/dev/null")
    write_whole(tmp_path / "null", "to a device")
    assert Path("/dev/null").is_char_device() and (tmp_path / "null").is_symlink()
    with pytest.raises(DataError, match="/dev/full: No space left"):
        write_whole("/dev/full", "too much")


def test_an_answer_is_not_lost_where_it_cant_be_kept(tmp_path: Path) -> None:
    """Once there is room again, both questions are kept."""

    async def talk() -> None:
        engine = ScriptedEngine(byte_tokenizer(tmp_path), [answer("1"), answer("2"), answer("3")])
        store = Conversations(tmp_path / "talks.db")
        async with Agent(engine, tools=[], conversations=store).conversation() as chat:
            store._db.execute("pragma max_page_count = 1")  # SQLite's own way to be full
            with pytest.raises(DataError, match=r"can't keep conversations in .*full"):
                await chat.ask("The first? " + "Please. " * 400)
            assert chat.last is not None and chat.last.answer == "1"
            with pytest.raises(DataError, match="full"):
                await chat.ask("The second?")
            assert chat.undo() == "The second?"
            store._db.execute("pragma max_page_count = 100000")
            await chat.ask("The third?")
            saved = store.load(chat.episode.id)
            kept = [(one.question[:10], one.answer) for one in saved.asked]
            assert kept == [("The first?", "1"), ("The third?", "3")]
            assert saved.episode.trajectory.ledger == chat.episode.trajectory.ledger
        store.close()

    asyncio.run(talk())


# -- the streams of a command ---------------------------------------------------------------------

MAIN = [sys.executable, "-c", "from interlace.agent.cli.main import main; main()"]


def command(*arguments: str, stdout: Any, stderr: Any = subprocess.PIPE) -> tuple[int, str]:
    with warm.Popen(
        [*MAIN, *arguments], stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
    ) as p:
        said = p.communicate()[1] or ""
    return p.returncode, said


@pytest.mark.parametrize("arguments", [["--help"], ["config", "--json"]])
def test_output_onto_a_full_disk_is_one_sentence(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        said = "interlace: can't write the output: No space left on device\n"
        assert command(*arguments, stdout=full) == (9, said)


def test_an_error_of_the_system_is_an_object_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as end, exit_codes(json=True):
        raise OSError(errno.ENOSPC, "No space left on device", "/x/y")
    out, err = capsys.readouterr()
    assert end.value.exit_code == 9 and err == "interlace: /x/y: No space left on device\n"
    assert json.loads(out)["error"] == "/x/y: No space left on device"


def test_output_is_not_held_back_where_python_holds_none_back() -> None:
    code = "import os; from interlace.agent.cli.exits import open_streams\n"
    code += "open_streams(); print('at once'); os._exit(0)"
    done = subprocess.run([sys.executable, "-u", "-c", code], capture_output=True, text=True)
    assert done.stdout == "at once\n", done.stderr


def test_help_that_nobody_reads_ends_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    assert command("--help", stdout=writing) == (141, "")
    os.close(writing)


def test_notices_that_cant_be_written_dont_end_the_work(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full, open(tmp_path / "out", "w+") as out:
        assert command("init", str(tmp_path / "mine"), stdout=out, stderr=full)[0] == 0
    assert (tmp_path / "mine" / "agent.py").is_file()


def test_a_closed_stream_is_no_bug(tmp_path: Path) -> None:
    for closed in ("<&- >&-", "<&- >&- 2>&-"):
        line = f'exec "$@" {closed}'
        run = ["sh", "-c", line, "sh", *MAIN, "init", str(tmp_path / closed.replace(" ", ""))]
        done = subprocess.run(run, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert ("agent.py" in done.stderr) is ("2>" not in closed)


def test_a_program_that_is_started_has_no_closed_stream_either() -> None:
    start = (
        "import subprocess\nfrom interlace.agent.cli.exits import open_streams\nopen_streams()\n"
    )
    script = start + "subprocess.run(['sh', '-c', 'echo nowhere'], check=True)"
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-c", script])
    assert done.returncode == 0
