"""The command line as scripts meet it: streams, exit codes, signals, files. Real processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support import warm
from support.tiny_models import checkpoint

from interlace.rollout.episode_log import read_episodes
from interlace.rollout.ledger import Source

QUESTION = "A crate holds 4387 bolts. How many bolts are in 296 crates?"
COMMAND = [sys.executable, "-c", "from interlace.agent.cli.main import main; main()"]
PATIENCE = 180  # seconds; on a machine with nothing else to do, each command takes five
RAMBLING = ["--temperature", "1", "--tool", "none", "--max-tokens", "400"]


@contextmanager
def start(*arguments: str | Path) -> Iterator[warm.Popen]:
    """The running command; it does not outlive the block."""
    pipe = subprocess.PIPE
    command = [*COMMAND, *map(str, arguments)]
    # One thread: on a busy machine, more of them wait for each other at every step.
    settings = os.environ | {"NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    with warm.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=settings) as process:
        try:
            yield process
        finally:
            process.kill()


def interlace(*arguments: str | Path, stdin: str = "") -> tuple[int, str, str]:
    """The exit code, stdout and stderr."""
    with start(*arguments) as process:
        out, err = process.communicate(stdin, timeout=PATIENCE)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of noise: it never answers, and speaks until it is stopped."""
    return checkpoint(tmp_path_factory.mktemp("models") / "noise")


def test_help_is_light_documents_the_exit_codes_and_ends_with_examples() -> None:
    heavy = "{'torch', 'transformers', 'jupyter_client', 'numpy', 'tokenizers', 'rich'}"
    script = (
        "import sys; from interlace.agent.cli.main import app\n"
        "for command in [[], *([name] for name in sys.argv[1:])]:\n"
        "    print('==', *command)\n"
        "    try: app([*command, '--help'])\n"
        "    except SystemExit as end: assert not end.code\n"
        f"sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    )
    names = "run chat tools init config rollout eval coldstart sft show train recipes models doctor"
    command = [sys.executable, "-c", script, *names.split(), "conversations"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    overview, *pages = re.split(r"^== ?", done.stdout, flags=re.MULTILINE)[1:]
    for code in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 130, 141, 143):
        assert re.search(rf"^ +{code} +\w", overview, re.MULTILINE)
    for page in pages:
        assert f"  interlace {page.split()[0]}" in page.partition("Example")[2], page
    run = dict(page.split("\n", 1) for page in pages)["run"]
    panels = ["Model and sampling", "Limits of one question", "Approval and budget", "Team"]
    assert re.findall(r"^([A-Z][\w ]+):$", run, re.MULTILINE)[2:6] == panels


def test_one_question_from_the_command_line_or_stdin() -> None:
    code, out, err = interlace("run", QUESTION)
    assert (code, out) == (0, "1298552\n")
    assert "demonstration model" in err and "→ 1298552" in err
    assert "without isolation" not in err
    assert re.search(r"^\d+ tokens · \d+ calls? · [\d.]+ s$", err.splitlines()[-1])
    assert "\x1b" not in err

    code, out, err = interlace("run", "-", "--json", "--quiet", stdin=QUESTION + "\n")
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert (said["schema_version"], said["answer"], said["stop"]) == (1, "1298552", "answered")
    assert (said["model"], said["format"], said["error"]) == ("nano", "retool", None)
    assert said["calls"][0]["output"] == "1298552" and said["usage"]["calls"] >= 1


def test_a_model_that_gives_no_answer_ends_with_3(random_model: Path) -> None:
    code, out, err = interlace("run", "?", "--model", random_model, "--max-tokens", "2")
    assert (code, out) == (3, "")
    assert "no answer" in err
    code, out, _ = interlace("run", "?", "--model", random_model, *RAMBLING, "--seed", "1")
    assert code == 0 and out.strip()  # plain text, however odd, is an answer


@pytest.mark.parametrize("format, foreign", [("notebook", True), ("hermes", False)])
def test_a_format_that_the_model_was_never_trained_in_is_told(format: str, foreign: bool) -> None:
    _, _, told = interlace("run", "--format", format, "--max-tokens", "8", "What is 17 * 23?")
    assert ("never trained in the format notebook" in told) == foreign


def test_chat_through_pipes_keeps_the_python_state() -> None:
    again = "A box holds 25 nails. How many nails are in 312 boxes?"
    code, out, _ = interlace("chat", "--quiet", stdin=f"{QUESTION}\n{again}\n/quit\nnever asked\n")
    assert (code, out) == (0, "1298552\n7800\n")


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("nope", r"unknown model 'nope'; choose from nano, smollm2, or name a folder"),
        ("./nowhere", r"there is no folder \./nowhere"),
        ("http://127.0.0.1:9/v1", r"127\.0\.0\.1:9"),
        ("pickle", r"pytorch_model\.bin.*safetensors"),
    ],
)
def test_a_model_that_cannot_be_used_is_one_sentence(tmp_path: Path, kind: str, says: str) -> None:
    if kind == "pickle":
        (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
        (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    model = tmp_path if kind == "pickle" else kind
    code, out, err = interlace("run", "?", "--model", model)
    assert (code, out, err.count("\n")) == (6, "", 1)
    assert re.search(says, err) and "Traceback" not in err


def test_bad_input_has_its_exit_code_and_json_says_it_too(tmp_path: Path) -> None:
    corrupt, empty = tmp_path / "corrupt.jsonl", tmp_path / "empty.txt"
    corrupt.write_text('{"id": 1}\n')
    empty.write_text("\n\n")
    cases: Sequence[tuple[int, Sequence[str | Path], str]] = [
        (9, ["show", corrupt], "line 1 is not an episode"),
        (9, ["show", tmp_path / "nowhere.jsonl"], "can't read"),
        (9, ["rollout", empty, "--out", tmp_path / "t.jsonl"], "no questions"),
        (2, ["rollout", empty, "--out", corrupt], "--resume completes it"),
        (2, ["run", "?", "--tool", "abacus"], "unknown tool 'abacus'"),
        (2, ["run", "?", "--engine-option", "max_batch"], "write NAME=VALUE"),
        (2, ["run", "-"], "the question is empty"),
    ]
    for code, arguments, says in cases:
        done, out, err = interlace(*arguments, "--json")
        assert (done, err.count("\n")) == (code, 1), err
        assert says in err and says in json.loads(out)["error"]
    assert interlace("run", "?", "--max-turns", "0")[0] == 2
    assert "Traceback" in interlace("show", corrupt, "--debug")[2]


def rollout(model: Path, tasks: Path, out: Path, *more: str) -> list[str | Path]:
    short = [*RAMBLING[:-1], "200", "--seed", "7", "--concurrency", "2"]
    return ["rollout", tasks, "--n", "8", "--out", out, "--model", model, *short, *more]


def wait_for_lines(file: Path, count: int) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if file.is_file() and file.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"{file} never had {count} lines")


class Resumed(NamedTuple):
    """A log whose writer was killed and that --resume completed."""

    log: Path
    before: list[str]
    """The ids that were in it when the writer was killed."""
    said: dict[str, Any]
    """What the resumed command printed."""
    again: list[str | Path]
    """The command."""


@pytest.fixture(scope="module")
def resumed(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Resumed:
    folder = tmp_path_factory.mktemp("resumed")
    tasks, log = folder / "q.jsonl", folder / "t.jsonl"
    tasks.write_text('{"id": "a", "question": "one", "answer": "1"}\n{"question": "two"}\n')
    with start(*rollout(random_model, tasks, log)) as process:
        wait_for_lines(log, 3)
        process.kill()
        process.communicate()
    before = [episode.id for episode in read_episodes(log)]
    with log.open("ab") as file:
        file.write(b'{"id": "torn')  # what a kill in the middle of a write leaves
    again = rollout(random_model, tasks, log, "--resume")
    code, out, err = interlace(*again, "--json", "--parquet", folder / "t.parquet")
    assert code == 0, err
    return Resumed(log, before, json.loads(out), again)


def test_a_killed_rollout_is_completed_by_resume(resumed: Resumed) -> None:
    assert 3 <= len(resumed.before) < 16
    assert resumed.said["new"] == 16 - len(resumed.before)
    assert resumed.said["correct"] == 0  # of the episodes whose answer is known
    episodes = list(read_episodes(resumed.log))
    assert [episode.id for episode in episodes[: len(resumed.before)]] == resumed.before
    groups = Counter(episode.group for episode in episodes)
    assert groups["a"] == 8 and sorted(groups.values()) == [8, 8]
    assert len({episode.id for episode in episodes}) == 16
    for episode in episodes:
        ledger = episode.trajectory.ledger
        assert {span.source for span in ledger} == {Source.PROMPT, Source.POLICY}
        assert all(span.logprobs is not None for span in ledger if span.source is Source.POLICY)
        assert episode.rewards == ({"correct": 0.0} if episode.group == "a" else {})
    assert resumed.log.with_suffix(".parquet").stat().st_size > 1000
    code, _, err = interlace(*resumed.again, "--temperature", "0.5")
    assert code == 2 and "begun with temperature 1.0, not 0.5: resume it with the same" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_rollout_keeps_what_there_is(
    tmp_path: Path, random_model: Path, number: int, code: int
) -> None:
    tasks, out = tmp_path / "q.txt", tmp_path / "t.jsonl"
    tasks.write_text("question one\nquestion two\n")
    with start(*rollout(random_model, tasks, out)) as process:
        wait_for_lines(out, 2)
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert "--resume continues" in err and "Traceback" not in err
    stops = Counter(str(episode.stop) for episode in read_episodes(out))
    assert stops["cancelled"] == 2 and stops.total() >= 4


def test_ctrl_c_while_the_command_line_is_imported_ends_it_quietly() -> None:
    script = (
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'interlace.agent.cli.commands': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from interlace.agent.cli.__main__ import main; main()"
    )
    command = [sys.executable, "-c", script, "models"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_show_prints_who_wrote_what(resumed: Resumed) -> None:
    log = resumed.log
    episode = list(read_episodes(log))[-1]
    code, text, _ = interlace("show", log, "--limit", "1")
    assert code == 0
    assert re.search(r"^prompt +\d+ +│ ", text, re.MULTILINE)
    assert re.search(r"^policy +\d+ +│ ", text, re.MULTILINE)

    code, table, _ = interlace("show", log, "--index", "-1", "--ids")
    places = re.findall(r"^ *\d+ +\d+ ", table, re.MULTILINE)
    assert code == 0 and len(places) == len(episode.trajectory.ledger)

    said = json.loads(interlace("show", log, "--json", "--episode", episode.id)[1])
    assert said["episodes"][0]["tokens"]["trained"] == episode.trajectory.sampled_tokens

    with start("show", log) as quick:
        assert quick.stdout is not None and quick.stdout.readline()
        quick.stdout.close()  # as `| head -1` does
        assert quick.stderr is not None and quick.stderr.read() == ""
        assert quick.wait(PATIENCE) == 141


def test_a_tree_is_rolled_out_and_shown_with_what_its_leaves_share_once(tmp_path: Path) -> None:
    log, tree = tmp_path / "t.jsonl", "tree@leaves=3,roots=1,width=3"
    (tmp_path / "q.txt").write_text(QUESTION)
    code, out, err = interlace(
        *("rollout", tmp_path / "q.txt", "--strategy", tree, "--out", log, "--seed", "3", "--json")
    )
    assert (code, json.loads(out)["stops"]) == (0, {"answered": 1}), err
    (episode,) = read_episodes(log)
    turns = [leaf.branch.turns for leaf in episode.trajectories if leaf.branch]
    assert sorted(turns) == [0, 1, 1]
    text = interlace("show", log)[1]
    sources = re.findall(r"^(?:│ )*(prompt|policy|tool) +\d+ +│", text, re.MULTILINE)
    assert sources == ["prompt", "policy", "tool", "policy", "policy", "policy"]
    assert len(re.findall(r"^(?:│ )*┌ leaf .*, weight 0.333", text, re.MULTILINE)) == 3
    assert "1 tree: 3 leaves of 1 root" in text and "1 call run, 2 shared" in text
    rows = re.findall(r"^ *\d+ +\d+ ", interlace("show", log, "--ids")[1], re.MULTILINE)
    assert len(rows) == sum(len(span) for leaf in episode.trajectories for span in leaf.own_spans)
    said = json.loads(interlace("show", log, "--json")[1])["episodes"][0]
    assert said["tree"]["leaves"] == 3 and said["calls"] == 1


@pytest.mark.parametrize("end", ["raise BrokenPipeError(32, 'the tool hung up')", "print('x')"])
def test_a_pipe_that_breaks_elsewhere_is_an_error(end: str) -> None:
    script = (
        "import typer\nfrom interlace.agent.cli.exits import exit_codes\n"
        f"try:\n with exit_codes():\n  {end}\n"
        "except typer.Exit as error:\n raise SystemExit(error.exit_code)"
    )
    read, write = os.pipe()
    tool = end.startswith("raise")
    if not tool:
        os.close(read)  # nobody reads stdout
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    if tool:
        os.close(read)
        assert done.returncode == 1 and "the tool hung up" in done.stderr
    else:
        assert (done.returncode, done.stderr) == (141, "")
