"""Damage in any file that a user opens: one clear sentence, in bounded time and memory."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.attempts import attempt
from support.damage import device, folder, pipe
from support.fakes import NANO, answer

from interlace.agent.cli.settings import settings
from interlace.agent.conversations import Conversations
from interlace.rollout.engines.local.load_checkpoint import load_model, pick_device
from interlace.rollout.episode_log import EpisodeLog, read_episodes
from interlace.rollout.formats.template import ChatTemplate, TemplateRefusal
from interlace.rollout.many.run_folder import RunFolder
from interlace.rollout.task import Task
from interlace.rollout.tokenizer import Tokenizer, TokenizerError
from interlace.tools.errors import InterlaceError
from interlace.train.coldstart.m500 import read_m500
from interlace.train.config import read_yaml
from interlace.train.evaluation.results import load_evaluation
from interlace.train.local.checkpoint import read_checkpoint, write_checkpoint
from interlace.train.local.record import read_metrics
from interlace.train.preflight.model_shapes import find_shape

pytestmark = pytest.mark.timeout(60)  # a reader that waits for ever


def content(data: bytes) -> Callable[[Path], None]:
    return lambda path: void(path.write_bytes(data + b"\n"))


def void(_: object) -> None: ...


DAMAGE: dict[str, Callable[[Path], None]] = {
    "a pipe that nobody writes to": pipe,
    "a folder": folder,
    "a device without end": device,
    "NUL bytes": content(b"\0" * 1_000_000),
    "deep brackets": content(b"[" * 200_000),
    "deep objects": content(b'{"a":' * 200_000),
    "a huge number": content(b'{"schema_version": %s}' % (b"9" * 100_000)),
    "no UTF-8": content(b'{"a": "\xff\xfe\xfa"}'),
    "a list": content(b"[1, 2]"),
    "a number": content(b"1e999"),
    "a size without end": content(b"\xff\xff\xff\xff\xff\xff\xff\x3f{}"),
}


def nano(tmp: Path) -> Path:
    made = tmp / "nano"
    made.mkdir()
    for file in NANO.iterdir():
        if file.suffix in (".json", ".jinja", ".safetensors"):
            shutil.copy(file, made)
    return made


def log(path: Path) -> None:
    path.unlink(missing_ok=True)
    with EpisodeLog(path) as written:
        written.append(attempt(Task("a", "?", "7"), answer("7")))


def good(path: Path) -> None:
    """The file of a name, as it should be."""
    if path.name == "episodes.jsonl":
        log(path)
    elif path.name == "run.json":
        log(path.with_name("episodes.jsonl"))
        path.write_text(json.dumps({"model": "nano", "n": 4, "task_count": 2, "seed": 1}))
    elif path.suffix == ".db":
        Conversations(path).close()
    elif path.suffix in (".toml", ".yaml"):
        path.write_text("model = 'nano'\n" if path.suffix == ".toml" else "steps: 3\nlr: [1, 2]\n")
    elif path.name == "metrics.jsonl":
        path.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n')
    elif path.name == "config.json" and path.parent.name == "shape":
        shutil.copy(NANO / "config.json", path)
    elif path.parent.name == "checkpoint":
        saved(path.parents[1])
    elif path.parent.name != "nano":
        path.write_text('{"question": "1 + 1?", "answer": "2"}\n')


def talk(path: Path) -> None:
    store = Conversations(path)
    try:
        store.all()
    finally:
        store.close()


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a log": ("episodes.jsonl", lambda path: [*read_episodes(path)]),
    "the log of a run": ("episodes.jsonl", lambda path: load_evaluation(path.parent)),
    "the settings of a run": ("run.json", lambda path: RunFolder(path.parent, resume=True)),
    "results": ("results.json", load_evaluation),
    "metrics": ("metrics.jsonl", lambda path: read_metrics(path.parent)),
    "settings in TOML": ("interlace.toml", lambda path: settings("run")),
    "settings in YAML": ("train.yaml", read_yaml),
    "conversations": ("conversations.db", talk),
    "traces of a team": (
        "m500.jsonl",
        lambda path: [*read_m500(path, Tokenizer.load(NANO), model="nano")],
    ),
    "the sizes of a model": ("shape/config.json", lambda path: find_shape(str(path.parent))),
    "a model's config": ("nano/config.json", lambda path: load(path.parent)),
    "a model's weights": ("nano/model.safetensors", lambda path: load(path.parent)),
    "a tokenizer": ("nano/tokenizer.json", lambda path: Tokenizer.load(path.parent)),
    "a tokenizer's config": (
        "nano/tokenizer_config.json",
        lambda path: Tokenizer.load(path.parent),
    ),
    **{
        f"a checkpoint's {file}": (f"run/checkpoint/{file}", lambda path: resume(path.parents[1]))
        for file in ("trainer.json", "optimizer.safetensors", "model.safetensors")
    },
}


def saved(folder: Path) -> None:
    """A checkpoint of training."""
    model, optimizer = toy()
    model(input_ids=torch.tensor([[1, 2]])).logits.sum().backward()
    optimizer.step()
    write_checkpoint(folder, model, optimizer, {"done": 1, "identity": {}})


def resume(folder: Path) -> object:
    return read_checkpoint(folder, *toy(), {})


def toy() -> tuple[Any, torch.optim.Optimizer]:
    model = load(NANO)
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def load(model: Path) -> Any:
    return load_model(model, pick_device("cpu"), "auto")


def test_settings_may_come_from_a_pipe_that_a_shell_made() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading), os.fdopen(writing, "w") as pipe:
        pipe.write("steps: 3\n")
        pipe.close()
        assert read_yaml(Path(f"/dev/fd/{reading}")) == {"steps": 3}


@pytest.mark.parametrize("what", READERS)
def test_damage_is_told_in_one_sentence(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    name, read = READERS[what]
    nano(tmp_path)
    for damage, do in DAMAGE.items():
        place = tmp_path / damage.replace(" ", "-") / name
        place.parent.mkdir(parents=True)
        if place.parent.name == "nano":
            shutil.copytree(tmp_path / "nano", place.parent, dirs_exist_ok=True)
        monkeypatch.chdir(place.parent)
        good(place)
        do(place)
        with pytest.raises(InterlaceError) as caught:
            read(place)
        said = str(caught.value)
        assert "\n" not in said and len(said) < 600, f"{damage}: {said[:2000]}"
        assert caught.value.exit_code in (2, 6, 9), damage


# Whole texts that the template of a checkpoint may be.
TEMPLATES = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a loop over nothing": "{% for i in range(99999) %}"
    "{% for j in range(99999) if false %}{% endfor %}{% endfor %}",
    "a product": "{{ 'a' * 10**10 }}",
    "a list of lists": "{{ [[[0] * 1000] * 1000] * 1000 }}",
    "a width": "{{ 'a'.center(10**10) }}",
    "a field": "{{ '%9999999999d' % 1 }}",
    "a field of format": "{{ '{:>9999999999}'.format(1) }}",
    "an indent": "{{ messages | tojson(indent=10**9) }}",
    "doubling": "{% set n = namespace(a='a') %}"
    "{% for i in range(60) %}{% set n.a = n.a ~ n.a %}{% endfor %}",
    "pairs of pairs": "{% set n = namespace(a=[]) %}"
    "{% for i in range(60) %}{% set n.a = [n.a, n.a] %}{% endfor %}{{ n.a }}",
    "replacing": "{% set n = namespace(a='a' * 9) %}"
    "{% for i in range(30) %}{% set n.a = n.a.replace('a', n.a) %}{% endfor %}",
    "recursion": "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "depth": "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
    "Python's attributes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__.os.getcwd() }}",
    "a file": "{% include '/etc/passwd' %}",
    "length": "x" * 2_000_000,
}


@pytest.mark.parametrize("what", TEMPLATES)
def test_the_code_of_a_template_is_bounded(what: str, tmp_path: Path) -> None:
    model = nano(tmp_path)
    (model / "chat_template.jinja").write_text(TEMPLATES[what])
    with pytest.raises((TokenizerError, TemplateRefusal)):
        ChatTemplate(Tokenizer.load(model)).render([{"role": "user", "content": "Hi"}])
