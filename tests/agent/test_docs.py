"""No example in the documentation rots: its commands are understood, its programs run."""

import os
import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from support import warm
from typer.main import get_command

from interlace.agent.cli.main import app
from interlace.agent.cli.options import LAYERED
from interlace.agent.cli.settings import settings

ROOT = Path(__file__).parents[2]
HOWTO = sorted((ROOT / "docs/howto").glob("*.md"))
PAGES = [
    *(ROOT / "README.md", ROOT / "CONTRIBUTING.md"),
    *sorted((ROOT / "docs").glob("*.md")),
    *HOWTO,
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
QUICK = ["README.md", "agent.md", "extend.md", "ledger.md", "objectives.md", "rewards.md", "sql.md"]
"""Pages whose programs are run with every test run; those of the others take longer."""
COMMAND = [sys.executable, "-c", "from interlace.agent.cli.main import main; main()"]
NEEDS = {"team.md": "langgraph", "verl.md": "langgraph"}


def blocks(page: Path, *languages: str) -> list[str]:
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [text for language, text in found if language in languages]


def commands(page: Path) -> list[str]:
    """What a reader types: one program with its arguments, without redirections."""
    return commands_of("\n".join(blocks(page, "bash")))


def commands_of(text: str) -> list[str]:
    typed = []
    for line in text.replace("\\\n", " ").split("\n"):
        line = re.sub(r"(^|\s)#.*", "", line)
        for part in re.split(r"\s(?:\||&&|;)\s|[<>]\s*\S+|^\w+=\$\(|\)$", line):
            if part and part.strip():
                typed.append(part.strip())
    return typed


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "examples/plugin/README.md"], ids=lambda page: page.name
)
def test_every_command_is_one_that_is_understood(page: Path) -> None:
    group: Any = get_command(app)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for typed in commands(page):
        program, *words = shlex.split(typed)
        if program == "interlace" and words and words[0] in group.commands:
            command: Any = group.commands[words[0]]
            if hasattr(command, "commands") and words[1:]:  # conversations show
                command, words = command.commands[words[1]], words[1:]
            command.make_context(words[0], words[1:])  # raises for an option that is not there
        elif program == "make":
            assert {word for word in words if "=" not in word} <= targets, typed
        else:
            known = ("interlace", "pip", "printf", "jq", "python", "bash", "git")
            assert program in known or (ROOT / program).exists(), typed


def test_each_section_on_parts_of_ones_own_ends_with_a_command() -> None:
    text = (ROOT / "docs/extend.md").read_text(encoding="utf-8")
    for section in text.split("\n## ")[1:]:
        assert section.rstrip().endswith("```"), section[:40]
        assert BLOCK.findall(section)[-1][0] == "bash", section[:40]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_in_pages_are_settings(page: Path) -> None:
    for text in blocks(page, "toml"):
        said = tomllib.loads(text)
        names = {name for name in said if name not in LAYERED}
        for section in set(said) - names:
            names |= set(said[section])
        assert {name.replace("-", "_") for name in names} <= set(settings("chat")), text


def ran(pages: list[Path], folder: Path) -> str:
    """What the programs of these pages print; they run as they stand (see run_docs.py)."""
    (folder / "docs").symlink_to(ROOT / "docs")
    path = os.pathsep.join([str(ROOT / "tests"), *filter(None, sys.path)])
    done = warm.run(
        [sys.executable, ROOT / "tests/support/run_docs.py", *pages],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "XDG_CACHE_HOME": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_programs_of_the_pages_run(tmp_path: Path) -> None:
    printed = ran([page for page in PAGES if page.name in QUICK or page in HOWTO], tmp_path)
    of = dict(part.split("\n", 1) for part in re.split(r"^== ", printed, flags=re.MULTILINE)[1:])
    lines = of["agent.md"].splitlines()
    assert lines[:2] == ["1298552", "answered"]
    assert of["my-function.md"].startswith("berth - Who lies at a berth")
    assert of["my-reward.md"].strip() == "1.0"
    assert "StopReason.ANSWERED" in of["failed-run.md"] or "answered" in of["failed-run.md"]
    assert "it says 1298552" in lines
    assert re.search(r"^Left\(tokens=9\d{3}, calls=19, seconds=5\d\d", of["agent.md"], re.MULTILINE)
    assert lines[-3:] == ["1298552"] * 3  # approval, structured output, resumed
    assert re.findall(r"^\w+", of["ledger.md"], re.MULTILINE)[:4] == [
        "prompt",
        "policy",
        "tool",
        "policy",
    ]
    said = of["extend.md"].splitlines()
    assert "1.1" in said and said[-1] == "True", said


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        p
        for p in PAGES
        if p.name not in (*QUICK, "tutorial.md") and p not in HOWTO and blocks(p, "python")
    ],
    ids=lambda page: page.name,
)
def test_the_longer_programs_of_the_pages_run(tmp_path: Path, page: Path) -> None:
    pytest.importorskip(NEEDS.get(page.name, "interlace"))
    ran([page], tmp_path)


@pytest.mark.slow
def test_a_table_a_tool_and_a_reward_reach_a_training_step_in_five_commands(
    tmp_path: Path,
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    text = (ROOT / "docs/extend.md").read_text(encoding="utf-8")
    section = text[text.index("## From a table of yours") : text.index("## A package of parts")]
    (program,) = [block for language, block in BLOCK.findall(section) if language == "python"]
    (tmp_path / "harbour.py").write_text(program)
    names: dict[str, Any] = {}
    exec(program, names)
    rows = [
        {"port": port, "time": time, "metres": float(names["tide"](port, time))}
        for port in names["PHASES"]
        for time in range(24)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "tides.parquet")
    typed = commands_of("".join(block for lang, block in BLOCK.findall(section) if lang == "bash"))
    assert len(typed) == 5 and typed[0].startswith("pip install")
    printed = []
    for command in typed[1:]:
        words = shlex.split(command)
        smaller = ["--set", "tasks_per_step=2"] if words[1] == "train" else []
        done = warm.run(
            [*COMMAND, *words[1:], *smaller],
            capture_output=True,
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
        )
        assert done.returncode == 0, (command, done.stderr)
        printed.append(done.stdout)
    assert printed[0].startswith("tide: The height of the tide")
    assert "accuracy" in printed[1] and "tide(port, time)" in printed[3]
    metrics = (tmp_path / "runs/tides/metrics.jsonl").read_text()
    assert '"reward/called"' in metrics


SMALLER = [
    ('40), ("train", 240', '4), ("train", 24'),
    ("--steps 14 --out", "--steps 12 --out"),
    ("--steps 24", "--steps 1"),
    ("tasks_per_step=4 --set group_size=8", "tasks_per_step=2 --set group_size=2"),
]
"""Of the tutorial, what would take minutes."""


@pytest.mark.slow
def test_the_tutorial_leads_from_nothing_to_a_trained_tool_user(tmp_path: Path) -> None:
    """All its programs and commands, in one folder, in their order."""
    text = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
    for long, short in SMALLER:
        assert long in text
        text = text.replace(long, short)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    environment |= {f"XDG_{kind}_HOME": str(tmp_path) for kind in ("STATE", "DATA", "CACHE")}
    interlace = ["-c", "from interlace.agent.cli.main import main; main()"]
    printed = ""
    for language, block in BLOCK.findall(text):
        if language == "python":
            name = "use.py" if (tmp_path / "make_tasks.py").exists() else "make_tasks.py"
            (tmp_path / name).write_text(block)
            typed = ["python use.py"] if name == "use.py" else []  # the other, the page runs
        else:
            typed = commands_of(block)
        for program, *words in map(shlex.split, typed):
            if program == "pip":
                continue
            done = warm.run(
                [sys.executable, *(interlace if program == "interlace" else []), *words],
                capture_output=True,
                text=True,
                input="",
                cwd=tmp_path,
                env=environment,
            )
            assert done.returncode == 0, (words, done.stderr)
            printed = done.stdout
    assert re.fullmatch(r"\S.* (answered|ended|length) \d+\n", printed, re.DOTALL), printed
