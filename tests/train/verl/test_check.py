"""What is known of a run before anything loads: it is done as asked, or refused. Needs verl."""

import copy
import importlib
import importlib.util
import json
import math
import re
import shutil
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
import yaml
from support.fakes import NANO
from torch.testing import assert_close
from typer.testing import CliRunner

from interlace.agent.cli.main import app
from interlace.rollout.engines.local.load_checkpoint import load_model
from interlace.rollout.ledger import Ledger, Source, Span
from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode, FinishReason, StopReason, Trajectory, Turn
from interlace.tools.errors import DataError, UsageError
from interlace.train.local.logprobs import token_logprobs
from interlace.train.local.update import TrainBatch, UpdateConfig, update
from interlace.train.objectives import OBJECTIVES, find_objective
from interlace.train.verl.compose import check, compose
from interlace.train.verl.launch import Launch, find_recipe, prepare, recipes
from interlace.train.verl.rules import problems
from interlace.train.verl.settings import read_settings

if importlib.util.find_spec("verl") is None:
    pytest.skip("verl is not installed", allow_module_level=True)

with warnings.catch_warnings():  # its imports warn of what is deprecated in others
    warnings.simplefilter("ignore")
    core: Any = importlib.import_module("verl.trainer.ppo.core_algos")
    config_of: Any = importlib.import_module("verl.utils.config").omega_conf_to_dataclass

pytestmark = pytest.mark.filterwarnings("ignore")

SMALL = "verl_qwen3_0.6b_24gb"
NORMED = [name for name in OBJECTIVES if find_objective(name).loss_agg_mode.endswith("-norm")]


def prepared(recipe: str = SMALL, *settings: str, **flags: Any) -> Launch:
    return prepare(find_recipe(recipe), flags, settings, resume=False)


# -- Dr. GRPO's constant -------------------------------------------------------------------------


def rows_of(lengths: list[int]) -> TrainBatch:
    """A group of responses so long, each right or wrong in turn."""
    rng, group = np.random.default_rng(0), []
    task = Task("a", "?", "1")
    for number, length in enumerate(lengths):
        ledger = Ledger()
        ledger.append(Span.given(Source.PROMPT, [5, 6, 7]))
        ids = rng.integers(10, 300, length).tolist()
        ledger.append(Span.policy(ids, logprobs=[-1.0] * length))
        turn = Turn(0, 3, 3 + length, FinishReason.EOS)
        trajectory = Trajectory("nano", "retool", ledgers=[ledger], turns=[turn])
        trajectory.stop = StopReason.ANSWERED
        group.append(Episode(f"a/{number}", task, "a", number, [trajectory]))
    return TrainBatch.of(
        [group], [[float(n % 2) for n in range(len(group))]], find_objective("dr_grpo")
    )


def verls_gradient(model: Any, rows: TrainBatch, actor: Any) -> list[torch.Tensor]:
    """With verl's own loss, each row a micro-batch of its own: no wider than the row."""
    policy_loss = core.get_policy_loss_fn(actor.policy_loss.loss_mode)
    for row in rows.trained:
        taken = rows.take([row])
        new, _ = token_logprobs(model, taken.batch.ids, taken.weights.numpy() > 0, 1.0)
        # As verl's ppo_loss fills it for each micro-batch (workers/utils/losses.py).
        actor.global_batch_info.update(
            dp_size=1,
            batch_num_tokens=int(rows.weights.sum()),
            global_batch_size=len(rows.trained),
            loss_scale_factor=actor.loss_scale_factor,
        )
        loss, _ = policy_loss(
            old_log_prob=new.detach(),
            log_prob=new,
            advantages=taken.advantages,
            response_mask=taken.weights,
            loss_agg_mode=actor.loss_agg_mode,
            config=actor,
        )
        loss.backward()
    gradient = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    return gradient


@pytest.mark.parametrize("objective", NORMED)
def test_a_token_weighs_the_same_in_every_micro_batch_and_as_in_the_local_trainer(
    objective: str,
) -> None:
    config = prepared(objective=objective).config
    actor, longest = config_of(config.actor_rollout_ref.actor), config.data.max_response_length
    assert actor.loss_scale_factor == longest
    lengths = (10, 100)
    weights = []
    for length in lengths:
        losses, mask = torch.ones(1, length, requires_grad=True), torch.ones(1, length)
        loss = core.agg_loss(
            losses, mask, actor.loss_agg_mode, loss_scale_factor=actor.loss_scale_factor
        )
        (gradient,) = torch.autograd.grad(loss, losses)
        assert float(gradient.max() - gradient.min()) == 0.0
        weights.append(float(gradient.max()))
    assert weights[0] == pytest.approx(weights[1], abs=1e-6)
    assert weights == pytest.approx([1 / longest] * 2, rel=1e-6)

    model: Any = load_model(NANO, torch.device("cpu"), "float32")
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    rows = rows_of([10, 100])
    theirs = verls_gradient(model, rows, actor)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    recipe = UpdateConfig(
        find_objective(objective),
        loss_scale_factor=longest,
        importance=None,
        micro_tokens=110,
        clip_norm=math.inf,
    )
    update(model, torch.optim.SGD(model.parameters(), lr=1.0), rows, recipe)
    after = model.parameters()
    ours = [old - new.detach() for old, new in zip(before, after, strict=True)]
    assert max(float(each.abs().max()) for each in theirs) > 1e-5
    for our, their in zip(ours, theirs, strict=True):
        assert_close(our, their, atol=1e-6, rtol=1e-4)


def test_an_aggregation_without_its_constant_is_refused() -> None:
    mode = "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-sum-norm"
    assert check(find_recipe(SMALL), [mode]).actor_rollout_ref.actor.loss_scale_factor == 2048
    with pytest.raises(UsageError, match=r"set actor_rollout_ref\.actor\.loss_scale_factor="):
        check(find_recipe(SMALL), [mode, "actor_rollout_ref.actor.loss_scale_factor=null"])


# -- steps, tasks and batches --------------------------------------------------------------------


def tasks_file(folder: Path, count: int) -> str:
    """Made-up rows in the shape of GSM8K's public file."""
    file = folder / "rows.jsonl"
    rows = [
        {"question": f"A box holds {n} pens. How many do {n + 2} hold?", "answer": f"#### {n}"}
        for n in range(count)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"gsm8k:{file}"


@pytest.mark.parametrize("steps", [1, 4, 116])
def test_so_many_steps_are_made_as_are_asked_for_however_few_the_tasks(
    tmp_path: Path, steps: int
) -> None:
    launch = prepared(tasks=tasks_file(tmp_path, 150), steps=steps)  # two batches an epoch
    assert launch.plan.steps == steps
    trainer = launch.config.trainer
    # How verl counts: `global_steps <= total_training_steps` and `current_epoch < total_epochs`.
    assert trainer.total_training_steps == steps
    assert (steps - 1) // 2 < trainer.total_epochs


def test_epochs_that_would_end_the_run_before_its_steps_are_refused_with_their_number(
    tmp_path: Path,
) -> None:
    tasks = tasks_file(tmp_path, 150)
    assert prepared(tasks=tasks).plan.steps == 2  # one epoch
    with pytest.raises(UsageError, match=r"ends the run after 2 steps .* set it to 3"):
        prepared(SMALL, "trainer.total_training_steps=5", tasks=tasks)
    again = ["trainer.total_training_steps=5", "trainer.total_epochs=3"]
    assert prepared(SMALL, *again, tasks=tasks).plan.steps == 5


def test_fewer_tasks_than_a_step_takes_are_refused_however_they_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds 63 tasks, and a step takes .*=64"):
        prepared(tasks=tasks_file(tmp_path, 63))
    file = tmp_path / "rows.jsonl"
    with pytest.raises(UsageError, match="holds 63 tasks"):
        prepared(SMALL, f"data.train_files={file}")
    with pytest.raises(UsageError, match="holds 10 tasks"):
        prepared(SMALL, f"data.train_files={file}", "data.train_max_samples=10")
    with pytest.raises(DataError, match="nofile"):
        prepared(held_out="nofile.jsonl")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["actor_rollout_ref.rollout.top_p=0.9"], r"top_p=0.9 cuts off what is sampled.*set"),
        (["actor_rollout_ref.rollout.top_k=50"], r"top_k=50 cuts off"),
        (["actor_rollout_ref.rollout.temperature=0"], "all attempts at a task would be the same"),
        (["actor_rollout_ref.rollout.n=1"], "compares attempts at a task with each other"),
        (["actor_rollout_ref.actor.ppo_mini_batch_size=48"], r"=48 does not divide data\.train_ba"),
        (["trainer.n_gpus_per_node=3"], "no multiple of the 3 groups of cards"),
        (
            [
                "actor_rollout_ref.actor.use_dynamic_bsz=false",
                "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=3",
            ],
            "ppo_micro_batch_size_per_gpu=3 does not divide the 512 rows",
        ),
        (["actor_rollout_ref.rollout.tensor_model_parallel_size=2"], "does not divide 1"),
        (["trainer.save_freq=-1"], "would end without a checkpoint"),
        (["trainer.test_freq=0"], "would end without a validation"),
        (
            ["algorithm.filter_groups.enable=true", "algorithm.filter_groups.metric=null"],
            r"without a metric: set algorithm\.filter_groups\.metric=correct",
        ),
        (["trainer.use_v1=false"], "leave it true"),
        (["trainer.v1.sampler.sync_refill_failed_groups=false"], "so set it to true"),
        (["trainer.v1.trainer_mode=colocate_async"], "it is AsyncSampler"),
        (["trainer.v1.sampler.sampler_kwargs=null"], "build on interlace_base"),
        (["actor_rollout_ref.hybrid_engine=false"], "set it to true"),
        (["data.apply_chat_template_kwargs.a=1"], "is not read by this loop"),
        (["actor_rollout_ref.rollout.agent.default_agent_loop=single_turn_agent"], "set it to tha"),
        (["actor_rollout_ref.rollout.calculate_log_probs=false"], "calculate_log_probs=true"),
        (["algorithm.rollout_correction.rollout_rs=seq_mean_k1"], "needs a rollout_rs_threshold"),
        (["algorithm.rollout_correction.bypass_mode=true"], "loss_mode=bypass_mode"),
        (["actor_rollout_ref.rollout.name=trtllm"], "vllm or sglang"),
    ],
)
def test_what_verl_would_take_and_not_do_is_refused_with_what_to_set(
    settings: list[str], said: str
) -> None:
    assert re.search(said, refused(SMALL, *settings))


def refused(recipe: str, *settings: str) -> str:
    """What is said first against a recipe with these settings. It is composed once."""
    omegaconf: Any = importlib.import_module("omegaconf")
    config = copy.deepcopy(composed(recipe))
    for setting in settings:
        key, _, value = setting.partition("=")
        omegaconf.OmegaConf.update(config, key, yaml.safe_load(value), force_add=True)
    custom = omegaconf.OmegaConf.to_container(config.actor_rollout_ref.rollout.custom)
    return next(problems(config, read_settings(custom)))


@cache
def composed(recipe: str) -> Any:
    return compose(find_recipe(recipe))


def test_stop_strings_need_sglangs_tokenizer() -> None:
    sglang = "actor_rollout_ref.rollout.name=sglang"
    assert "skip_tokenizer_init=true" in refused("retool_7b", sglang)
    check(find_recipe("retool_7b"), [sglang, "actor_rollout_ref.rollout.skip_tokenizer_init=false"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["data.train_batch_size=32"], "parameter_sync_step=4 times"),
        (["actor_rollout_ref.rollout.n_gpus_per_node=0"], "cards of its own"),
        (["actor_rollout_ref.rollout.checkpoint_engine.backend=naive"], "set it to nccl"),
        (
            [
                "algorithm.rollout_correction.bypass_mode=false",
                "actor_rollout_ref.actor.policy_loss.loss_mode=vanilla",
            ],
            r"param_offload=true",
        ),
    ],
)
def test_what_an_engine_on_its_own_cards_wants_is_asked_for(settings: list[str], said: str) -> None:
    assert re.search(said, refused("retool_7b_async", *settings))


# -- this machine --------------------------------------------------------------------------------


def lacking(launch: Launch) -> str:
    return "\n".join(map(str, launch.plan.lacking))


def free(monkeypatch: pytest.MonkeyPatch, gigabytes: float) -> None:
    usage = shutil.disk_usage("/")._replace(free=int(gigabytes * 1e9))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)


def test_checkpoints_that_the_disk_has_no_room_for_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Qwen3-0.6B: 0.6 billion weights at 12 bytes; two are kept."""
    tasks = tasks_file(tmp_path, 64 * 100)
    free(monkeypatch, 14)
    assert "2 checkpoints of 7.2 GB need 14.3 GB" in lacking(prepared(tasks=tasks))
    free(monkeypatch, 15)
    assert "checkpoints" not in lacking(prepared(tasks=tasks))
    everything = "trainer.max_actor_ckpt_to_keep=null"
    assert "5 checkpoints" in lacking(prepared(SMALL, everything, tasks=tasks))
    # One step has one checkpoint.
    free(monkeypatch, 8)
    assert "checkpoints" not in lacking(prepared(SMALL, everything, tasks=tasks, steps=1))


def test_fewer_processors_than_rays_services_hold_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert "verl's services hold 7 processors and Ray has 6 here" in lacking(prepared())
    assert "processors" not in lacking(prepared(SMALL, "ray_kwargs.ray_init.num_cpus=7"))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")  # a cluster, which may have more
    assert "processors" not in lacking(prepared())


def test_what_this_machine_lacks_stops_a_run_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    monkeypatch.setattr("subprocess.Popen", lambda *given, **_: started.append(given))
    asked = ["train", "--engine", "verl", "--config", SMALL, "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == DataError.exit_code
    assert "data.train_files: there is no data/gsm8k_train.parquet" in done.output
    assert not (tmp_path / "run").exists() and not started


# -- what the first step would do ----------------------------------------------------------------


def public_rows(name: str, count: int) -> list[Mapping[str, Any]]:
    """Rows in the shape of the file that a recipe trains on."""
    if name.startswith("qwen"):
        return [
            {"question": f"How many are {n} + {n}?", "answer": f"#### {2 * n}"}
            for n in range(count)
        ]
    target: Any = {"target": ["Ann Lee"]} if name.startswith("search") else "34"
    return [
        {
            "data_source": "math_dapo",
            "prompt": [{"role": "user", "content": f"What is {n}?"}],
            "ability": "MATH",
            "reward_model": {"ground_truth": target, "style": "rule"},
            "extra_info": {"index": str(n)},
        }
        for n in range(count)
    ]


@pytest.mark.parametrize("name", recipes())
def test_a_dry_run_of_each_recipe_says_what_its_first_step_would_do(
    name: str, tmp_path: Path
) -> None:
    rows = public_rows(name, 1800)
    file = tmp_path / ("rows.jsonl" if name.startswith("qwen") else "rows.parquet")
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        given = ["--tasks", f"gsm8k:{file}", "--held-out", f"gsm8k:{file}"]
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
        given = ["--set", f"data.train_files={file}", "--set", f"data.val_files={file}"]
    asked = ["train", "--engine", "verl", "--config", name, *given, "--steps", "7", "--dry-run"]
    done = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "run"), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    config = composed(name)
    batch, n = config.data.train_batch_size, config.actor_rollout_ref.rollout.n
    assert told["plan"][0].startswith(f"first step: {batch} tasks x {n} attempts = {batch * n} ")
    assert told["steps"] == 7
    epochs = f"{7 * batch / (1800 // batch * batch):.3g}"
    lines = "\n".join(told["plan"])
    assert f"steps: 7 ({epochs} epochs of 1800 tasks, {batch} a step)" in lines
    assert "validation: 1800 tasks" in lines
    assert "the last 2 kept; " in lines and " GB each" in lines
    assert "main_ppo" in told["command"] and "lacking" in told
    assert not (tmp_path / "run").exists()
