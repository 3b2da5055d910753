"""A model's name: what it stands for here, and one sentence where it stands for nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.tiny_models import byte_tokenizer
from support.toy_tokenizers import QWEN_LIKE

from interlace.rollout.models.files import find_model, is_engine, is_server, local_model
from interlace.rollout.models.load import default_format, load_engine
from interlace.rollout.tokenizer import Tokenizer
from interlace.tools import PythonTool, tool
from interlace.tools.errors import ModelError, UsageError
from interlace.tools.files import cache_dir


def test_names_folders_and_what_is_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = tmp_path / "model"
    folder.mkdir()
    assert find_model(str(folder)) == folder == local_model(str(folder))
    assert (find_model("nano") / "model.safetensors").is_file()
    assert local_model("smollm2") is None and local_model("nobody/nothing") is None
    file = tmp_path / "model.gguf"
    file.touch()
    for name, says in {
        "gpt-nano": "unknown model 'gpt-nano'; choose from nano, smollm2, or name a folder",
        f"{tmp_path}/nowhere": "there is no folder",
        str(file): "is a file",
        "https://server/v1": "needs the files of a model",
        "nobody/nothing": "not on this machine and can't be fetched",
    }.items():
        with pytest.raises(ModelError, match=says):
            find_model(name)


def test_a_model_speaks_the_format_that_suits_it(tmp_path: Path) -> None:
    @tool
    def add(a: int, b: int) -> int:
        return a + b

    plain = byte_tokenizer(tmp_path / "plain")
    byte_tokenizer(tmp_path / "qwen")
    (tmp_path / "qwen" / "chat_template.jinja").write_text(QWEN_LIKE)
    knows_tools = Tokenizer.load(tmp_path / "qwen")
    python = [PythonTool()]
    assert default_format("a", plain, python) == "retool"
    assert default_format("a", knows_tools, python) == "hermes"
    assert default_format("nano", knows_tools, python) == "retool"
    assert default_format("nano", knows_tools, [add]) == "hermes"


def test_an_engine_carries_the_name_it_was_asked_for_by(tmp_path: Path) -> None:
    from support.tiny_models import checkpoint

    name = str(checkpoint(tmp_path / "noise"))
    assert load_engine(name, device="cpu").name == name


def test_options_reach_the_engine_or_are_refused(tmp_path: Path) -> None:
    from support.tiny_models import checkpoint

    name = str(checkpoint(tmp_path / "noise"))
    engine = load_engine(name, device="cpu", options={"max_context": 64, "dtype": "float32"})
    assert engine.context_length == 64
    for options, says in {
        ("max_batch", "many"): "max_batch can't be 'many': Input should be a valid integer",
        ("tensor_parallel_size", 2): "transformers has no option tensor_parallel_size",
    }.items():
        with pytest.raises(UsageError, match=says):
            load_engine(name, device="cpu", options=dict([options]))
    with pytest.raises(UsageError, match="leave out max_batch"):
        load_engine("http://localhost:1/v1", options={"max_batch": 8})


@pytest.mark.slow
def test_smollm2_is_made_once_by_whoever_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    left = cache_dir() / "convert-killed"
    left.mkdir(parents=True)
    command = [
        sys.executable,
        "-c",
        "import interlace.rollout.models.files as m; m.find_model('smollm2')",
    ]
    both = [subprocess.Popen(command, env=os.environ) for _ in range(2)]
    assert [process.wait(timeout=600) for process in both] == [0, 0]
    assert {file.name for file in cache_dir().iterdir()} == {
        "smollm2-135m-instruct",
        "smollm2.lock",
    }
    engine = load_engine("smollm2", device="cpu")
    assert engine.tokenizer.eos_ids and engine.tokenizer.chat_template


def test_an_engine_may_work_on_an_address_and_is_no_server() -> None:
    assert is_engine("mine.py:Client:http://host:8000/v1")
    assert not is_server("mine.py:Client:http://host:8000/v1")
    assert is_server("http://host:8000/v1#name") and not is_engine("http://host:8000/v1#name")
    for name in ("Qwen/Qwen3-0.6B", "./gone:folder", "nano", "gone"):
        assert not is_engine(name)
