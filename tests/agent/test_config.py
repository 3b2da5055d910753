"""Settings in layers: flags, the environment, the folder's file, one's own file, the defaults."""

import json
import os
import sys
from pathlib import Path

import pytest
from support import warm

from interlace.agent.cli.settings import Setting, defaults, settings
from interlace.tools.errors import UsageError

CLI = Path(__file__).parents[1] / "support/scripted_cli.py"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, and an empty home."""
    for name in [name for name in os.environ if name.startswith("INTERLACE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    (tmp_path / "home/interlace").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def test_each_layer_stands_over_the_next(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = here / "home/interlace/config.toml"
    own.write_text('model = "a"\nmax-turns = 2\nmax-calls = 2\ntimeout = 60\n[chat]\nseed = 2')
    Path("interlace.toml").write_text("max-turns = 3\n[chat]\nmax-calls = 3\n[run]\nseed = 3\n")
    monkeypatch.setenv("INTERLACE_MAX_CALLS", "4")
    found = settings("chat")
    assert found["model"] == Setting("a", str(own))
    assert found["max_turns"] == Setting(3, "interlace.toml")
    assert found["max_calls"] == Setting("4", "$INTERLACE_MAX_CALLS")
    assert found["seed"] == Setting(2, str(own))
    assert found["top_p"] == Setting(1.0, "default")
    assert defaults("run")["seed"] == 3 and "seed" not in defaults("eval")


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ("modle = 'x'", "unknown setting 'modle'"),
        ("max-turns = 'many'", "max-turns can't be 'many'"),
        ("max-turns = true", "max-turns can't be True"),
        ("[talk]\nseed = 1", "'talk' is neither a setting nor a section"),
        ("chat = 1", "'chat' is neither a setting nor a section"),
        ("model = ", "can't read the settings"),
        ("approve = 'allow'", "may not set 'approve', since any folder could"),
        ("engine-option = 'trust_remote_code=true'", "may not set 'engine-option'"),
        ("[run]\nno-isolation = true", "may not set 'no-isolation', since any folder could"),
    ],
)
def test_what_a_file_may_not_say_is_told_in_a_sentence(here: Path, said: str, wrong: str) -> None:
    Path("interlace.toml").write_text(said)
    with pytest.raises(UsageError, match=wrong):
        defaults("run")


def test_ones_own_file_may_say_what_is_approved(here: Path) -> None:
    (here / "home/interlace/config.toml").write_text("approve = 'deny'\nno-isolation = true")
    assert defaults("run") == {"approve": ["deny"], "no_isolation": True}


def test_a_command_obeys_all_layers_and_its_flags_most(here: Path) -> None:
    Path("interlace.toml").write_text("max-calls = 0\nmodel = 'nowhere'\nformat = 'hermes'")
    (here / "replies.json").write_text(
        json.dumps(["<code>\n```python\nprint(7)\n```\n</code>", "<answer>7</answer>"])
    )
    state = {f"XDG_{kind}_HOME": str(here) for kind in ("STATE", "DATA", "CACHE")}
    path = os.pathsep.join([str(CLI.parents[1]), *filter(None, sys.path)])
    state |= {"REPLIES": str(here / "replies.json"), "PYTHONPATH": path}
    done = warm.run(
        [sys.executable, str(CLI), "run", "?", "--format", "retool"],
        env={**os.environ, **state, "INTERLACE_MODEL": "nano", "INTERLACE_TOOL": "python"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr
    assert "interlace.toml in this folder sets options" in done.stderr
    assert "no tool calls are left" in done.stderr
