"""The search index against what else could do the searching: build time and time of a query.

    python benchmarks/tools_search.py

All get the same passages (random words with Zipf's frequencies, titles of three words) from the
same JSONL file and the same queries (words of a passage chosen at random), in this process, one
after the other. Each keeps the passages on disk and gives back the text of those found. The index
also reads its files, keeps ids and is committed to disk durably; the others are used as their
documentation shows. A peer that is not installed (`pip install bm25s`) is left out, with a line
that says so. Every one is built and asked `--runs` times in turn; the figures are medians over the
runs. Random words say nothing of how good a ranking is: `found` says how often the passage that
the query was made of was among the three that came back. CPU seconds are all of this process, and
hold also where other processes keep the machine busy.
"""

import argparse
import importlib.util
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from interlace.tools.search import SearchIndex

Search = Callable[[str, int], list[str]]
"""From a query and a number to the ids found."""


@dataclass(frozen=True)
class Measured:
    """What one of them took: seconds, bytes, and the share of queries that found their passage."""

    build: float
    build_cpu: float
    p50: float
    p50_cpu: float
    p95: float
    p95_cpu: float
    bytes: float
    found: float

    @classmethod
    def median(cls, runs: "list[Measured]") -> "Measured":
        """Each figure's median over the runs."""
        figures = {
            field.name: statistics.median(getattr(run, field.name) for run in runs)
            for field in fields(cls)
        }
        return cls(**figures)


def corpus(path: Path, passages: int, words: int, seed: int) -> list[str]:
    """Write the passages; their texts."""
    random = np.random.default_rng(seed)
    vocabulary = np.array([f"w{number:x}" for number in range(100_000)])
    drawn = np.minimum(random.zipf(1.2, (passages, words + 3)) - 1, len(vocabulary) - 1)
    texts = []
    with path.open("w", encoding="utf-8") as file:
        for number, row in enumerate(vocabulary[drawn]):
            title, text = " ".join(row[:3]), " ".join(row[3:])
            file.write(json.dumps({"id": str(number), "title": title, "text": text}) + "\n")
            texts.append(text)
    return texts


def questions(texts: list[str], number: int, words: int, seed: int) -> list[tuple[str, str]]:
    """Queries, each of some of the words of a passage, and that passage's id."""
    random = np.random.default_rng(seed + 1)
    chosen = random.integers(0, len(texts), number)
    return [
        (" ".join(random.choice(texts[id].split(), words, replace=False)), str(id)) for id in chosen
    ]


def rows(path: Path) -> Iterator[tuple[str, str, str]]:
    """The id, title and text of each passage."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            yield row["id"], row["title"], row["text"]


def interlace_index(path: Path, folder: Path) -> Search:
    """The index of the search tool."""
    index = SearchIndex(path, folder)
    index.prepare()
    return lambda query, top: [hit.passage.id for hit in index.find(query, top)]


def fts5(path: Path, folder: Path, most: float = 1.0) -> Search:
    """SQLite; words in more than the share `most` of the passages are left out of queries."""
    folder.mkdir()
    base = sqlite3.connect(folder / "index.sqlite")
    base.execute("create virtual table p using fts5(id unindexed, title, text)")
    base.execute("create virtual table v using fts5vocab(p, row)")
    with base:
        base.executemany("insert into p values (?, ?, ?)", rows(path))
    total = base.execute("select count(*) from p").fetchone()[0]

    def search(query: str, top: int) -> list[str]:
        asked = set(query.split())
        if most < 1:
            marks = ",".join("?" * len(asked))
            counts = dict(
                base.execute(f"select term, doc from v where term in ({marks})", [*asked])
            )
            rare = {word for word in asked if counts.get(word, 0) <= most * total}
            asked = rare or {min(asked, key=lambda word: counts.get(word, 0))}
        match = " OR ".join(f'"{word}"' for word in asked)
        found = base.execute(
            "select id, text from p where p match ? order by rank limit ?", (match, top)
        )
        return [id for id, _ in found]

    return search


def bm25s(path: Path, folder: Path) -> Search:
    """Scores computed ahead, read through a memory map."""
    import bm25s as library  # type: ignore[import-not-found,unused-ignore]

    kept = [{"id": id, "text": f"{title}\n{text}"} for id, title, text in rows(path)]
    tokens = library.tokenize([row["text"] for row in kept], show_progress=False)
    index: Any = library.BM25()
    index.index(tokens, show_progress=False)
    index.save(str(folder), corpus=kept)
    index = library.BM25.load(str(folder), load_corpus=True, mmap=True)

    def search(query: str, top: int) -> list[str]:
        words = library.tokenize([query], show_progress=False)
        found, _ = index.retrieve(words, k=top, show_progress=False)
        return [row["id"] for row in found[0]]

    return search


def measure(
    make: Callable[[Path, Path], Search], path: Path, asked: list[tuple[str, str]]
) -> Measured:
    """Build once, ask everything once."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work, "index")
        start, cpu = time.perf_counter(), time.process_time()
        search = make(path, folder)
        build, build_cpu = time.perf_counter() - start, time.process_time() - cpu
        search(asked[0][0], 3)
        times, cpus, hits = [], [], 0
        for query, id in asked:
            start, cpu = time.perf_counter(), time.process_time()
            found = search(query, 3)
            times.append(time.perf_counter() - start)
            cpus.append(time.process_time() - cpu)
            hits += id in found
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    p50, p95 = np.quantile(times, [0.5, 0.95])
    p50_cpu, p95_cpu = np.quantile(cpus, [0.5, 0.95])
    return Measured(build, build_cpu, p50, p50_cpu, p95, p95_cpu, size, hits / len(asked))


def makers() -> dict[str, Callable[[Path, Path], Search]]:
    """What is measured: all that is installed."""
    found: dict[str, Callable[[Path, Path], Search]] = {
        "interlace (tantivy)": interlace_index,
        "FTS5, all words": fts5,
        "FTS5, words in at most 5 %": lambda path, folder: fts5(path, folder, 0.05),
    }
    if importlib.util.find_spec("bm25s") is not None:
        found["bm25s"] = bm25s
    else:
        print("bm25s is not installed, and left out")
    return found


def main() -> None:
    """Measure each and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--words", type=int, default=60)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--terms", type=int, default=6)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one line of JSON for each")
    options = parser.parse_args()
    made = makers()
    runs: dict[str, list[Measured]] = {name: [] for name in made}
    with tempfile.TemporaryDirectory() as work:
        path = Path(work, "corpus.jsonl")
        texts = corpus(path, options.passages, options.words, options.seed)
        asked = questions(texts, options.queries, options.terms, options.seed)
        for _ in range(options.runs):
            for name, make in made.items():
                runs[name].append(measure(make, path, asked))
    if options.json:
        for name in made:
            print(json.dumps({"name": name, **asdict(Measured.median(runs[name]))}))
        return
    print(
        f"{options.passages:,} passages, {options.queries} queries of {options.terms} words,",
        end="",
    )
    print(f" medians of {options.runs} runs; in parentheses: CPU")
    print(f"{'':28}{'build s':>16}{'p50 ms':>18}{'p95 ms':>18}{'MB':>6}{'found':>7}")
    for name in made:
        one = Measured.median(runs[name])
        figures = f"{one.build:9.1f}{f'({one.build_cpu:.1f})':>7}"
        figures += f"{one.p50 * 1e3:9.2f}{f'({one.p50_cpu * 1e3:.2f})':>9}"
        figures += f"{one.p95 * 1e3:9.2f}{f'({one.p95_cpu * 1e3:.2f})':>9}"
        print(f"{name:28}{figures}{one.bytes / 1e6:6.0f}{one.found:7.0%}")


if __name__ == "__main__":
    main()
