"""Everything that the product writes, on disks that fail: `python failing_disk.py FOLDER FAULT...`.

Each writer writes once, the disk then fails in a way, and the writer writes more. Printed is a
JSON object: for each fault and writer what was raised, and what is there afterwards. Faults that
need a disk of the process's own are left out where the machine allows none.
"""

import ctypes
import json
import os
import resource
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch

from interlace.agent.cli.actions.init import FILES, write_starter_files
from interlace.agent.cli.render.images import save_artifact
from interlace.agent.conversations import Asked, Conversations, Saved
from interlace.agent.team.runs import Runs
from interlace.rollout.episode_log import EpisodeLog, export_parquet, read_episodes
from interlace.rollout.history import Mark
from interlace.rollout.many.run_folder import RunFolder
from interlace.rollout.task import Task
from interlace.rollout.trajectory import StopReason
from interlace.tools import Artifact
from interlace.tools.errors import InterlaceError
from interlace.tools.search import SearchIndex
from interlace.train.data.task_sets import read_tasks, write_tasks
from interlace.train.evaluation.attempts import Attempt
from interlace.train.evaluation.plots import plot_evaluations
from interlace.train.evaluation.results import Evaluation, load_evaluation, save_evaluation
from interlace.train.local.checkpoint import read_checkpoint, write_checkpoint
from interlace.train.local.plot import plot_run
from interlace.train.local.record import Record, read_metrics
from interlace.train.verl.data import write_dataset
from support.attempts import attempt
from support.fakes import answer

TASKS = [
    Task(f"t{number}", f"Of {Random(number).random()}, what is the root?", "7")
    for number in range(300)
]
EPISODE = attempt(TASKS[0], answer("7"))
LONG = attempt(Task("long", "What is 3 + 4? " * 600, "7"), answer("7"))


class Writer(NamedTuple):
    """Writes into a folder: `before` and `after` the disk fails. `read` gives what is there."""

    before: Callable[[Path], object]
    after: Callable[[Path], object]
    read: Callable[[Path], object]


def log(folder: Path) -> None:
    long = (folder / "t.jsonl").exists()
    with EpisodeLog(folder / "t.jsonl") as opened:
        opened.append(LONG if long else EPISODE)


def run_folder(folder: Path) -> None:
    note = "w" * (9_000 if (folder / "run.json").exists() else 1)
    with RunFolder(folder).begin({"n": 1, "model": "nano"}, TASKS[:1], notes={"why": note}):
        pass


def saved() -> Saved:
    episode = attempt(TASKS[0], answer("7"))
    episode.id = "c1"
    return Saved(episode, [Asked("What?", Mark(0, 0, 0, 0), StopReason.ANSWERED, "7")], ("python",))


def conversation(folder: Path) -> None:
    store = Conversations(folder / "talks.db")
    try:
        if store.all():
            old = store.load("c1")
            old.episode.trajectory.turns *= 40
            store.save(old, len(old.episode.trajectory.turns))
        else:
            store.save(saved(), 1)
    finally:
        store.close()


def said(folder: Path) -> object:
    store = Conversations(folder / "talks.db")
    try:
        return [len(store.load(each.id).episode.trajectory.turns) for each in store.all()]
    finally:
        store.close()


def team_run(folder: Path) -> None:
    runs = Runs(folder / "teams.db")
    try:
        if runs.find("r1") is None:
            runs.begin("r1", "What?", "{}")
        for number in range(40):
            runs.add("r1", f"{len(runs.load('r1').calls)} {number}", EPISODE.trajectory, "7")
            if len(runs.load("r1").calls) == 1:
                break
    finally:
        runs.close()


def calls(folder: Path) -> object:
    runs = Runs(folder / "teams.db")
    try:
        return [len(runs.load(each.id).calls) for each in runs.all()]
    finally:
        runs.close()


def model(value: float) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "head_dim": 16}
    sizes |= {"num_hidden_layers": 1, "num_key_value_heads": 2, "vocab_size": 512}
    auto: Any = AutoModelForCausalLM
    made = auto.from_config(AutoConfig.for_model("qwen3", **sizes))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.fill_(value)
    return made


def checkpoint(folder: Path, step: int = 0) -> None:
    step = step or 1 + (folder / "checkpoint").exists()
    made = model(float(step))
    optimizer = torch.optim.AdamW(made.parameters())
    sum(parameter.sum() for parameter in made.parameters()).backward()
    optimizer.step()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.fill_(float(step))
    write_checkpoint(folder, made, optimizer, {"done": step, "identity": {}})


def weights(folder: Path) -> int:
    """The step of the checkpoint, or 0; its weights and the optimizer's are of that step."""
    made = model(0.0)
    optimizer = torch.optim.AdamW(made.parameters())
    state = read_checkpoint(folder, made, optimizer, {})
    if state is None:
        return 0
    values = {float(value) for p in made.parameters() for value in p.detach().unique()}
    assert values == {float(state["done"])}, values
    assert optimizer.state_dict()["state"]
    return int(state["done"])


def metrics(folder: Path) -> None:
    with Record(folder / "run", settings="steps: 3\n") as record:
        step = len(read_metrics(folder / "run")) + 1
        record.log(step, {f"metric {number}": 1.5 for number in range(500 if step > 1 else 1)})


def settings(folder: Path) -> None:
    text = "steps: 3\n" if not (folder / "run").exists() else "steps: 4\n" * 900
    with Record(folder / "run", settings=text) as record:
        record.truncate_after(0)


def evaluation(count: int) -> Evaluation:
    attempts = [Attempt(f"t{number}", 0, True, StopReason.ANSWERED) for number in range(count)]
    return Evaluation(attempts)


def results(folder: Path) -> None:
    count = 100 if (folder / "results.json").exists() else 1
    save_evaluation(evaluation(count), folder / "results.json")


def again(name: str, write: Callable[[Path], object]) -> Writer:
    """A writer of one file, which is to stay as it is, byte by byte."""
    return Writer(
        lambda folder: write(folder / name),
        lambda folder: write(folder / name),
        lambda folder: (folder / name).read_bytes().hex(),
    )


def corpus(folder: Path) -> Path:
    return folder.parent.parent / "corpus"  # elsewhere: the index alone is on this disk


def index(folder: Path) -> None:
    """The index of one file; then there are two."""
    shutil.rmtree(corpus(folder), ignore_errors=True)
    corpus(folder).mkdir()
    text = "\n\n".join(f"Passage {number}. " + "All about tea. " * 60 for number in range(90))
    (corpus(folder) / "0.txt").write_text(text)
    update(folder)
    (corpus(folder) / "1.txt").write_text(text)


def update(folder: Path) -> None:
    SearchIndex(corpus(folder), folder / "index").prepare()


def found(folder: Path) -> object:
    """The index as it is on the disk: what it was made from, and whether it is whole."""
    from interlace.tools.search.engine import load

    current = json.loads((folder / "index" / "interlace-search.json").read_text())["current"]
    _, files = load(folder / "index" / current)
    others = [p.name for p in (folder / "index").glob("index-*") if p.name != current]
    return [sorted(files), others]


def starter(folder: Path) -> None:
    """Nothing before; then all files or none."""
    write_starter_files(folder / "mine", json=False)


def artifact(folder: Path) -> None:
    os.environ["XDG_STATE_HOME"] = str(folder)
    size = 9_000 if (folder / "interlace").exists() else 9
    save_artifact(Artifact("image/png", b"\x89PNG" * size))


WRITERS: dict[str, Writer] = {
    "log": Writer(log, log, lambda f: len([*read_episodes(f / "t.jsonl")])),
    "run folder": Writer(run_folder, run_folder, lambda f: (f / "run.json").read_text()),
    "conversation": Writer(conversation, conversation, said),
    "team run": Writer(team_run, team_run, calls),
    "checkpoint": Writer(checkpoint, checkpoint, weights),
    "metrics": Writer(metrics, metrics, lambda f: len(read_metrics(f / "run"))),
    "config.yaml": Writer(settings, settings, lambda f: (f / "run" / "config.yaml").read_text()),
    "results.json": Writer(
        results, results, lambda f: len(load_evaluation(f / "results.json").attempts)
    ),
    "search index": Writer(index, update, found),
    "episodes in Parquet": again("t.parquet", lambda path: export_parquet([EPISODE] * 9, path)),
    "tasks": Writer(
        lambda f: write_tasks(TASKS[:1], f / "tasks.jsonl"),
        lambda f: write_tasks(TASKS, f / "tasks.jsonl"),
        lambda f: len(read_tasks(str(f / "tasks.jsonl"))),
    ),
    "tasks in Parquet": again("tasks.parquet", lambda path: write_tasks(TASKS, path)),
    "data for verl": again(
        "v.parquet", lambda path: write_dataset(TASKS, path, split="train", source="t")
    ),
    "plot of a run": Writer(
        lambda f: [metrics(f), plot_run(f / "run")],  # type: ignore[func-returns-value]
        lambda f: plot_run(f / "run"),
        lambda f: (f / "run" / "run.png").read_bytes().hex(),
    ),
    "plot of an evaluation": again(
        "e.svg", lambda path: plot_evaluations({"a": evaluation(9)}, path)
    ),
    "starter files": Writer(
        lambda f: (f / "mine").mkdir(),
        starter,
        lambda f: sorted(name for name in FILES if (f / "mine" / name).exists()),
    ),
    "picture": Writer(
        artifact, artifact, lambda f: sorted(p.stat().st_size for p in f.rglob("*.png"))
    ),
}


# -- disks that fail ----------------------------------------------------------------------------

_libc = ctypes.CDLL(None, use_errno=True)
_NEWNS, _NEWUSER, _REMOUNT, _READ_ONLY = 0x20000, 0x10000000, 32, 1


def own_disk(folder: Path) -> None:
    """Mount a disk in memory of 64 MB, which this process alone sees."""
    user, group = os.getuid(), os.getgid()
    if _libc.unshare(_NEWUSER | _NEWNS):
        raise OSError
    for file, text in (
        ("setgroups", "deny"),
        ("uid_map", f"0 {user} 1"),
        ("gid_map", f"0 {group} 1"),
    ):
        Path("/proc/self", file).write_text(text)
    mount(folder, 0, "size=64m")


def mount(folder: Path, flags: int, options: str) -> None:
    arguments = (b"none", os.fsencode(folder), b"tmpfs", ctypes.c_ulong(flags), options.encode())
    if _libc.mount(*arguments):
        raise OSError(ctypes.get_errno(), f"mounting {folder}")


def fill(folder: Path) -> Callable[[], None]:
    """A disk with one free page: a write begins and does not end."""
    used = os.statvfs(folder)
    mount(folder, _REMOUNT, f"size={(used.f_blocks - used.f_bfree + 1) * used.f_bsize}")
    return lambda: mount(folder, _REMOUNT, "size=64m")


def lock(folder: Path) -> Callable[[], None]:
    mount(folder, _REMOUNT | _READ_ONLY, "size=64m")
    return lambda: mount(folder, _REMOUNT, "size=64m")


def limit(folder: Path) -> Callable[[], None]:
    """No file can grow beyond 300 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def take_rights(folder: Path) -> Callable[[], None]:
    """All is read-only to this process, which gives up what root may do besides."""

    def walk(file: int, inner: int) -> None:
        for path in (folder, *folder.rglob("*")):
            path.chmod(inner if path.is_dir() else file)

    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    _libc.capget(header, sets)
    effective = sets[0], sets[3]
    walk(0o444, 0o555)
    sets[0] = sets[3] = 0
    assert _libc.capset(header, sets) == 0

    def give_back() -> None:
        sets[0], sets[3] = effective
        assert _libc.capset(header, sets) == 0
        walk(0o644, 0o755)

    return give_back


FAULTS: dict[str, tuple[bool, Callable[[Path], Callable[[], None]]]] = {
    "full": (True, fill),
    "read-only": (True, lock),
    "limited": (False, limit),
    "without rights": (False, take_rights),
}
"""Each with whether it needs a disk of its own, and what brings it about and ends it."""


def tried(writer: Writer, folder: Path, fail: Callable[[Path], Callable[[], None]]) -> Any:
    folder.mkdir()
    writer.before(folder)
    before, names = writer.read(folder), sorted(map(str, folder.rglob("*")))
    mend = fail(folder.parent)
    error, trace = None, ""
    try:
        writer.after(folder)
    except InterlaceError as raised:
        error = [type(raised).__name__, raised.exit_code, str(raised)]
    except BaseException as raised:
        error, trace = [type(raised).__name__, 1, str(raised)], traceback.format_exc()
    finally:
        mend()
    left = [name for name in map(str, folder.rglob("*")) if name not in names]
    try:
        same: Any = writer.read(folder) == before
    except BaseException as raised:
        same, trace = repr(raised), traceback.format_exc()
    try:
        writer.after(folder)
        mended: Any = True
    except BaseException as raised:
        mended, trace = repr(raised), traceback.format_exc()
    shutil.rmtree(folder)
    return {"error": error, "same": same, "left": left, "mended": mended, "trace": trace}


if __name__ == "__main__":
    place = Path(sys.argv[1]) / "disk"
    place.mkdir()
    try:
        own_disk(place)
    except OSError:
        FAULTS = {fault: (own, fail) for fault, (own, fail) in FAULTS.items() if not own}
    FAULTS = {fault: FAULTS[fault] for fault in sys.argv[2:] if fault in FAULTS}
    print(
        json.dumps(
            {
                fault: {
                    name: tried(writer, place / name.replace(" ", "-"), fail)
                    for name, writer in WRITERS.items()
                }
                for fault, (_, fail) in FAULTS.items()
            }
        )
    )
