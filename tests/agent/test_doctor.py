"""`interlace doctor`: what would be trained with a tokenizer and a format, and the traps."""

import json

import pytest
import typer
from typer.testing import CliRunner
from vocabularies import VOCABULARIES, tokenizer

from interlace.agent.cli.doctor import doctor, report
from interlace.rollout.formats import FORMATS
from interlace.tools.errors import UsageError

app = typer.Typer()
app.command()(doctor)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("format", FORMATS)
def test_tags_and_the_trajectory_are_shown_for_every_format(vocabulary: str, format: str) -> None:
    path = str(tokenizer(vocabulary).path)
    result = CliRunner().invoke(app, ["--tokenizer", path, "--format", format])
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.stdout  # no terminal, no colours
    for tag in FORMATS[format].control_tags:
        assert f"  {tag} " in result.stdout
    lines = result.stdout.split("\n")
    assert any(line.startswith("policy *") for line in lines)
    assert any(line.startswith("tool     ") for line in lines)
    assert not any(line.startswith(("tool   *", "prompt *", "host   *")) for line in lines)


def test_for_machines_it_is_one_json_object() -> None:
    path = str(tokenizer("qwen").path)
    result = CliRunner().invoke(app, ["--tokenizer", path, "--format", "hermes", "--json"])
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
    result = CliRunner().invoke(app, ["--tokenizer", "/nowhere"])
    assert result.exit_code == 6
    assert result.stderr.count("\n") == 1
