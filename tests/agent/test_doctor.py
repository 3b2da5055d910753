"""`interlace doctor`: the walls around Python; what is trained with a tokenizer and a format."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import warm
from support.toy_tokenizers import VOCABULARIES, tokenizer
from typer.testing import CliRunner

from interlace.agent.cli.actions.doctor import report
from interlace.agent.cli.main import app
from interlace.rollout.formats import FORMATS
from interlace.tools.errors import UsageError


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("format", FORMATS)
def test_tags_and_the_trajectory_are_shown_for_every_format(vocabulary: str, format: str) -> None:
    path = str(tokenizer(vocabulary).path)
    result = CliRunner().invoke(app, ["doctor", "--tokenizer", path, "--format", format])
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.stdout  # no terminal, no colours
    for tag in FORMATS[format].control_tags:
        assert f"  {tag} " in result.stdout
    lines = result.stdout.split("\n")
    assert any(line.startswith("policy *") for line in lines)
    assert any(line.startswith("tool     ") for line in lines)
    assert not any(line.startswith(("tool   *", "prompt *", "host   *")) for line in lines)


def test_the_walls_are_tried_one_by_one_and_together() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    found = json.loads(result.stdout)["python"]
    assert {"landlock", "system-call filter", "network namespace"} <= set(found["walls"])
    assert result.exit_code == (0 if found["tier"] else 7)
    if found["tier"] == "full":
        assert not found["why"] and found["walls"]["landlock"] == "ok"
        text = CliRunner().invoke(app, ["doctor"]).stdout
        assert text.startswith("ready: ")
        report = text.split("To copy into a report about a bug:")[1]
        for name in ("interlace", "python", "system", "libraries", "isolation"):
            assert f"    {name} " in report
        assert str(Path.home()) not in report  # it names nobody
        assert "Python sandbox            full" in text and "landlock                ok" in text


@pytest.mark.parametrize(
    ("refused", "tier", "exit_code"),
    [(("unshare", "mount"), "confined", 0), (("unshare", "landlock"), None, 7)],
)
def test_a_machine_that_refuses_walls_is_told_so_and_how_code_is_run_there(
    refused: tuple[str, ...], tier: str | None, exit_code: int
) -> None:
    said = where(refused, "doctor", "--json")
    found = json.loads(said.stdout)["python"]
    assert (found["tier"], said.returncode) == (tier, exit_code)
    assert "namespace" in found["why"]
    if tier is None:
        run = where(refused, "run", "What is 17 * 23?")
        assert (run.returncode, run.stdout) == (7, "")
        assert "can't be isolated here" in run.stderr and "--no-isolation" in run.stderr
        open_to_all = where(refused, "run", "What is 17 * 23?", "--no-isolation")
        assert open_to_all.returncode in (0, 3)
        assert "runs as you, without isolation" in open_to_all.stderr
    else:
        run = where(refused, "run", "What is 17 * 23?")
        assert run.returncode in (0, 3)
        assert "is confined, though this machine allows no namespaces" in run.stderr


def where(refused: tuple[str, ...], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`interlace` on a machine that refuses these system calls."""
    program = (
        "import sys\nfrom support.denied_syscalls import refuse\n"
        "from interlace.agent.cli.main import main\n"
        f"refuse(*{refused!r}); sys.argv = ['interlace', *{arguments!r}]; main()"
    )
    path = os.pathsep.join(p for p in sys.path if p)
    return warm.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def test_for_machines_it_is_one_json_object() -> None:
    path = str(tokenizer("qwen").path)
    result = CliRunner().invoke(
        app, ["doctor", "--tokenizer", path, "--format", "hermes", "--json"]
    )
    found = json.loads(result.stdout)
    assert found["eos"] == {"<|im_end|>": tokenizer("qwen").encode("<|im_end|>")[0]}
    assert found["tags"]["<tool_call>"] == ["<tool_call>"]
    assert found["template"]["tells the model of tools"] is True
    assert {span["source"] for span in found["sample"] if span["trained"]} == {"policy"}


@pytest.mark.parametrize(
    ("vocabulary", "template", "format", "trap"),
    [
        ("qwen", "qwen", "hermes", "one token each: <tool_call>"),
        ("qwen", "qwen", "retool", "can end inside the token '>\\n'"),
        ("qwen", "stripping", "retool", "strips earlier thinking"),
        ("llama3", "plain", "retool", "no chat template"),
        ("llama3", "llama3", "hermes", "does not tell the model of tools"),
    ],
)
def test_traps_are_named(vocabulary: str, template: str, format: str, trap: str) -> None:
    warnings = report(tokenizer(vocabulary, template).path, format).warnings
    assert [warning for warning in warnings if trap in warning]


def test_what_is_no_trap_is_not_named() -> None:
    assert report(tokenizer("mistral").path, "retool").warnings == []


def test_an_unknown_format_is_told_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="retool, reex_sql"):
        report(tokenizer("qwen").path, "nope")
    result = CliRunner().invoke(app, ["doctor", "--tokenizer", "/nowhere"])
    assert result.exit_code == 6
    assert result.stderr.count("\n") == 1
