"""What verl itself sees of us: the plug-in, the agent loop, the recipes. Runs where verl is."""

import asyncio
import importlib
import importlib.util
import re
import shlex
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from support.fakes import NANO, answer, code
from support.verl_client import BrokenClient, EngineClient
from typer.testing import CliRunner

from interlace.agent.cli.main import app
from interlace.rollout.engines.scripted import ScriptedEngine
from interlace.rollout.tokenizer import Tokenizer
from interlace.tools.errors import UsageError
from interlace.train.objectives import OBJECTIVES
from interlace.train.preflight.examine import examine
from interlace.train.preflight.finding import Finding
from interlace.train.preflight.memory import estimate_verl, vllm_room
from interlace.train.preflight.model_shapes import find_shape
from interlace.train.verl.compose import RECIPES, check, compose
from interlace.train.verl.engine import Client
from interlace.train.verl.launch import find_recipe, prepare, recipes
from interlace.train.verl.worker import EpisodeSkipped

if importlib.util.find_spec("verl") is None:
    pytest.skip("verl is not installed", allow_module_level=True)

with warnings.catch_warnings():  # its imports warn of what is deprecated in others
    warnings.simplefilter("ignore")
    agent_loop: Any = importlib.import_module("verl.experimental.agent_loop.agent_loop")
    core: Any = importlib.import_module("verl.trainer.ppo.core_algos")
    loop: Any = importlib.import_module("interlace.train.verl.loop")
    transformers: Any = importlib.import_module("transformers")

pytestmark = pytest.mark.filterwarnings("ignore")

CPU = Path(__file__).parents[2] / "verl_cpu" / "cpu.yaml"


def test_verl_finds_the_loop_and_the_objectives_by_itself() -> None:
    target = agent_loop._agent_loop_registry["interlace"]["_target_"]
    module, _, name = target.rpartition(".")
    assert getattr(importlib.import_module(module), name) is loop.InterlaceLoop
    assert {"gppo", "gspo", "vanilla"} <= core.POLICY_LOSS_REGISTRY.keys()
    assert {"dr_grpo", "grpo", "team_grpo"} <= core.ADV_ESTIMATOR_REGISTRY.keys()


SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "logprobs": True}
ROW = {
    "raw_prompt": [{"role": "user", "content": "6 times 7?"}],
    "reward_model": {"ground_truth": "42"},
    "extra_info": {"index": 5},
    "session_id": 2,
    "global_steps": 4,
}


def run(client: Client, folder: Path, times: int = 1, **settings: int) -> list[Any]:
    """What verl would get for `ROW`, so many times: outputs, and what was raised."""
    place = "actor_rollout_ref.rollout.custom.interlace"
    overrides = [f"++{place}.{name}={value}" for name, value in settings.items()]
    config = compose(
        CPU, [f"actor_rollout_ref.model.path={NANO}", f"{place}.episodes={folder}", *overrides]
    )
    made = loop.InterlaceLoop(
        trainer_config=agent_loop.DictConfigWrap(config),
        server_manager=client,
        tokenizer=transformers.AutoTokenizer.from_pretrained(NANO),
        processor=None,
        dataset_cls=None,
        data_config=agent_loop.DictConfigWrap(config.data),
    )

    async def go() -> list[Any]:
        loop.InterlaceLoop._worker = None
        outputs = []
        for _ in range(times):
            try:
                outputs.append(await made.run(SAMPLING, **ROW))
            except EpisodeSkipped as error:
                outputs.append(error)
        await loop.InterlaceLoop._worker.result().__aexit__()
        return outputs

    return asyncio.run(go())


def test_a_row_becomes_what_verl_trains_on(tmp_path: Path) -> None:
    script = [code("print(6 * 7)"), answer("42")]
    client = EngineClient(ScriptedEngine(Tokenizer.load(NANO), script), steps=[3, 4])
    (output,) = run(client, tmp_path)
    fields = output.as_dict()
    # The answer is right; every token that was sampled costs 1/512 in this configuration.
    reward = 1.0 - sum(output.response_mask) / 512
    assert fields["rm_scores"].tolist()[-1] == output.reward_score == reward
    assert fields["rm_scores"].sum() == reward
    lengths = {len(fields[name]) for name in ("responses", "response_mask", "rollout_log_probs")}
    assert len(lengths) == 1
    assert output.num_turns == 4
    assert [output.extra_fields[f"{end}_global_steps"] for end in ("min", "max")] == [3, 4]
    (file,) = tmp_path.iterdir()
    assert '"id":"4.5/2"' in file.read_text()


def test_a_worker_in_which_nothing_works_ends_before_verl_draws_tasks_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(loop.os, "_exit", ended.append)
    good = EngineClient(ScriptedEngine(Tokenizer.load(NANO), [answer("42")] * 2))
    outputs = run(BrokenClient(good, "aborted", 2), tmp_path / "a", 4, give_up=3, retries=0)
    assert [isinstance(each, EpisodeSkipped) for each in outputs] == [True, True, False, False]
    assert ended == []
    run(BrokenClient(good, "aborted", 9), tmp_path / "b", 3, give_up=3, retries=0)
    assert ended == [1]


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_is_known_to_verl_in_every_key_and_fits_its_card(name: str) -> None:
    config = check(find_recipe(name))
    card = float(name.rpartition("_")[2].removesuffix("gb")) if name.endswith("gb") else 80.0
    shape = find_shape(config.actor_rollout_ref.model.path)
    estimate = estimate_verl(config, shape, card)
    assert estimate.problem(card) is None, estimate
    room, problem = vllm_room(config, shape, card)
    assert problem is None and room >= 8
    assert set(estimate.phases) == {"sampling", "handing the weights to vLLM", "updating"}


def test_a_team_is_put_over_any_recipe(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("defaults: [verl_qwen3_4b_48gb, interlace_team, _self_]\n")
    place = "actor_rollout_ref.rollout.custom.interlace"
    attempt = f"{place}.attempt='json:dumps'"
    config = check(file, [attempt, f"{place}.credit=turn"])
    assert config.algorithm.adv_estimator == "team_grpo"
    for override, said in (
        ("algorithm.adv_estimator=grpo", "wants algorithm.adv_estimator=team_grpo, not grpo"),
        ("trainer.v1.trainer_mode=colocate_async", "trainer_mode=sync"),
        ("algorithm.filter_groups.enable=true", "filter_groups.enable=False"),
        (f"{place}.attempt=nobody:here", "there a module 'nobody'"),
        (f"{place}.attempt=null", f"is for teams: set {place}.attempt"),
    ):
        with pytest.raises(UsageError, match=said):
            check(file, [attempt, override])


def test_the_files_of_the_page_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "verl.md").read_text(encoding="utf-8")
    settings, waiting, team = re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    module = re.findall(r"^```python\n# my_team\.py\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_team", raising=False)
    Path("my_team.py").write_text("\n".join(module))
    alone, run = tmp_path / "alone.yaml", tmp_path / "my_run.yaml"
    alone.write_text("defaults: [verl_qwen3_4b_48gb, _self_]\n" + settings)
    run.write_text(waiting)
    assert check(run).trainer.v1.trainer_mode == "colocate_async"
    run.write_text(team)
    check(alone)
    place = "actor_rollout_ref.rollout.custom.interlace"
    check(run, [f"{place}.rewards='my_team:rewards'"])
    with pytest.raises(UsageError, match="'my_team:nothing' can't be loaded: AttributeError"):
        check(run, [f"{place}.rewards='my_team:nothing'"])


def test_doctor_asks_for_the_nodes_that_a_run_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("defaults: [verl_qwen3_0.6b_24gb, _self_]\ntrainer:\n  nnodes: 2\n")

    def found(what: str) -> Finding:
        return next(each for each in examine(str(file), 24.0).findings if each.what == what)

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert found("Ray").ok is False
    assert "trainer.nnodes=2 (mine.yaml, line 3), but RAY_ADDRESS is not set" in found("Ray").text
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert found("Ray").ok is False
    assert "RAY_ADDRESS=127.0.0.1:1: nothing answers" in found("Ray").text
    assert found("lacking here").ok is None and "no data/gsm8k_train" in found("lacking here").text
    assert found("first step").text.startswith("64 tasks x 8 attempts")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_each_of_our_objectives_can_be_had_in_verl(name: str) -> None:
    config = prepare(
        find_recipe("verl_qwen3_0.6b_24gb"), {"objective": name}, [], resume=False
    ).config
    assert config.algorithm.adv_estimator in core.ADV_ESTIMATOR_REGISTRY
    assert config.actor_rollout_ref.actor.policy_loss.loss_mode in core.POLICY_LOSS_REGISTRY


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("+actor_rollout_ref.rollout.n_samples=4", "knows no actor_rollout_ref.rollout.n_samples"),
        ("+trainer.v1.sampler.refill=true", "knows no trainer.v1.sampler.refill"),
        (
            "+actor_rollout_ref.rollout.custom.interlace.turn=4",
            r"interlace\.turn: .* did you mean max_turns\?",
        ),
        ("actor_rollout_ref.actor.ppo_max_token_len_per_gpu=1024", "set it to that at least"),
        ("actor_rollout_ref.rollout.n_samples=4", "makes no sense"),
        ("actor_rollout_ref.actor.loss_agg_mode=mean", "verl refuses actor_rollout_ref.actor"),
    ],
)
def test_a_key_that_is_wrong_is_named_before_anything_runs(override: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check(find_recipe("verl_qwen3_0.6b_24gb"), [override])


def test_the_command_prints_the_plain_command_that_it_would_run(tmp_path: Path) -> None:
    asked = ["train", "--engine", "verl", "--config", "retool_7b", "--dry-run", "--model", "it's"]
    done = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "a b"), "--set", "data.seed=3"])
    assert done.exit_code == 0, done.output
    command = shlex.split(done.stdout.splitlines()[-1])
    assert command[1:3] == ["-m", "verl.trainer.main_ppo"]
    assert command[command.index("--config-dir") + 1] == str(RECIPES.resolve())
    assert "actor_rollout_ref.model.path='it\\'s'" in command
    assert "data.seed=3" in command
    told = [line for line in done.stdout.splitlines() if line.startswith("# ")]
    assert told[0].startswith("# first step: 64 tasks x 16 attempts")
    assert any(line.startswith("# lacking here: data.train_files") for line in told)
    assert not (tmp_path / "a b").exists()
