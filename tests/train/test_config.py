"""Settings of a run: from a file, from flags, and what a wrong one is told."""

from pathlib import Path

import pytest

from interlace.tools.errors import DataError, UsageError
from interlace.tools.named import find_tool
from interlace.train.config import TrainConfig, parse_value, read_config, read_yaml
from interlace.train.objectives import OBJECTIVES
from interlace.train.verl.settings import LoopSettings

EXAMPLE = Path(__file__).parents[2] / "examples/train_nano.yaml"


def test_flags_go_before_the_file_and_the_file_before_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("steps: 7\ngroup_size: 4\n")
    resolved = read_config(file, {"steps": 9})
    assert (resolved.config.steps, resolved.config.group_size) == (9, 4)
    assert resolved.config.tasks_per_step == TrainConfig().tasks_per_step
    origins = [resolved.origins[name] for name in ("steps", "group_size", "tasks_per_step")]
    assert origins == ["flag", str(file), "default"]


def test_settings_without_end_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not an ordinary file"):
        read_yaml(Path("/dev/zero"))
    long = tmp_path / "long.yaml"
    long.write_text("steps: 3\n" + "#" * 1_000_000)
    with pytest.raises(DataError, match="more than 1,000,000 bytes"):
        read_yaml(long)


def test_what_is_printed_names_every_setting_and_reads_back_as_the_same(tmp_path: Path) -> None:
    flags = {"tools": ["python", "sql:a b.db"], "clip_ratio_low": 0.1, "out": "a: #b"}
    resolved = read_config(EXAMPLE, flags)
    text = resolved.to_yaml()
    assert [line.split(":")[0] for line in text.splitlines()] == list(TrainConfig.model_fields)
    assert all("  # " in line for line in text.splitlines())
    (tmp_path / "again.yaml").write_text(text)
    assert read_config(tmp_path / "again.yaml", {}).config == resolved.config


def test_a_run_of_before_is_read_by_the_names_its_limits_had(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("turns: 3\ncalls: 2\nresponse_tokens: 600\ncall_seconds: 1.5\nseconds: 9\n")
    config = read_config(file, {}, trusted=False).config
    assert (config.max_turns, config.max_calls, config.max_tokens) == (3, 2, 600)
    assert (config.call_timeout, config.timeout) == (1.5, 9)
    with pytest.raises(UsageError, match=r"turns .*: there is no .* mean max_turns\?"):
        read_config(file, {})


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"stepps": 3}, r"stepps \(flag\): there is no such setting: did you mean steps\?"),
        ({"group_size": 1}, r"group_size \(flag\): must be at least 2, not 1"),
        ({"objective": "ppoo"}, "ppoo"),
        ({"reward": "luck"}, "reward .flag.: unknown reward .luck.; choose from correct, "),
        ({"overlong_buffer": 600}, "can't be above max_tokens"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(flags: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_config(None, flags)


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "a: [", "\x00"])
def test_a_file_that_holds_no_settings_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(DataError, match=r"bad\.yaml"):
        read_yaml(tmp_path / "bad.yaml")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_is_its_own_until_it_is_said_otherwise(name: str) -> None:
    assert TrainConfig(objective=name).to_objective() == OBJECTIVES[name]
    changed = TrainConfig(objective=name, loss_agg_mode="token-mean", clip_ratio_high=0.5)
    assert changed.to_objective().loss_agg_mode == "token-mean"
    assert changed.to_objective().config.clip_ratio_high == 0.5


def test_values_are_read_as_they_would_stand_in_the_file() -> None:
    values = ["16", "null", "1.0e-5", "true", "retool", "[python, 'sql:a.db']"]
    assert list(map(parse_value, values)) == [
        16,
        None,
        1e-5,
        True,
        "retool",
        ["python", "sql:a.db"],
    ]


def test_the_learning_rate_warms_up_and_stays() -> None:
    config = TrainConfig(learning_rate=1.0, warmup=4)
    assert [config.rate(step) for step in (0, 1, 3, 9)] == [0.25, 0.5, 1.0, 1.0]


def test_a_tools_name_with_a_password_is_no_setting() -> None:
    for name in ("sql:postgresql://u:hush@h/db@rows=3", "sql:postgres://h/db?password=hush"):
        for make in (
            lambda name=name: TrainConfig(tools=[name]),
            lambda name=name: LoopSettings(format="retool", tools=[name]),
            lambda name=name: find_tool(name),
        ):
            with pytest.raises(UsageError, match="PGPASSWORD") as refused:
                make()
            assert "hush" not in str(refused.value)
    assert TrainConfig(tools=["sql:postgresql://u@h/db"]).tools == ["sql:postgresql://u@h/db"]
