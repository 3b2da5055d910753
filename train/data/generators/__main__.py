"""Writes tasks, and the database or corpus they are about, to try a model on by hand.

python -m interlace.train.data.generators database parcels.db > tasks.jsonl
interlace rollout tasks.jsonl --tool sql:parcels.db --out answers.jsonl
"""

import argparse
import json
import sqlite3
import sys
from collections.abc import Iterable
from contextlib import closing
from itertools import islice
from pathlib import Path

from ....rollout.task import Task
from ....tools.errors import DataError
from ....tools.files import write_beside
from .arithmetic import Arithmetic
from .database import Databases, script
from .lookup import Lookups, write_corpus


def main(arguments: list[str] | None = None) -> None:
    """Run the command: the tasks go to stdout, one a line."""
    parser = argparse.ArgumentParser(
        prog="python -m interlace.train.data.generators",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("family", choices=("arithmetic", "database", "lookup"))
    parser.add_argument(
        "file", type=Path, nargs="?", help="where the database (SQLite) or corpus (JSONL) goes"
    )
    parser.add_argument("--tasks", type=int, default=10, help="how many; 10 by default")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    if (given.file is None) != (given.family == "arithmetic"):
        parser.error(f"{given.family} takes {'no' if given.file else 'a'} file")
    if given.file is not None and given.file.exists():
        parser.error(f"{given.file} is there already; name another file or remove it")
    try:
        tasks = _tasks(given.family, given.file, given.seed)
    except (DataError, sqlite3.Error) as error:
        parser.error(str(error))
    for task in islice(tasks, given.tasks):
        line = {"id": task.id, "question": task.question, "answer": task.answer} | task.data
        sys.stdout.write(json.dumps(line) + "\n")


def _tasks(family: str, file: Path, seed: int) -> Iterable[Task]:
    if family == "arithmetic":
        return Arithmetic(seed, "test")
    if family == "database":
        world = Databases(seed, "test")[0].data["database"]
        with write_beside(file) as partial, closing(sqlite3.connect(partial)) as database:
            database.executescript(script(world))
        return Databases(seed, "test", database=world)
    corpus = Lookups(seed, "test")[0].data["corpus"]
    write_corpus(corpus, file)
    return Lookups(seed, "test", corpus=corpus)


if __name__ == "__main__":
    main()
