"""The index on disk: what it finds, and that nothing that happens to it leaves half of one."""

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from interlace.tools.errors import DataError, MissingExtra, ToolUnavailable, UsageError
from interlace.tools.search import SearchIndex
from interlace.tools.search.engine import find, load


def corpus(path: Path, *texts: str, title: str = "") -> Path:
    """A JSONL file whose rows are numbered from 0."""
    rows = [{"id": str(n), "title": title, "text": text} for n, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def ids(index: SearchIndex, query: str, top: int = 10) -> list[str]:
    return [hit.passage.id for hit in index.find(query, top)]


@pytest.fixture
def animals(tmp_path: Path) -> SearchIndex:
    source = corpus(
        tmp_path / "animals.jsonl",
        "Cats purr when they are content.",
        "Dogs bark at cats.",
        "The café in 東京 serves naïve dogs.",
        "Whales sing.",
    )
    return SearchIndex(source, tmp_path / "index")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("BARKING", ["1"]),
        ("cat", ["1", "0"]),
        ("cafe naive", ["2"]),
        ("京", ["2"]),
        ("whales AND NOT sing", ["3"]),
        ('" OR NEAR( *:^~ dogs)', ["1", "2"]),
        ("id:0 words:purr passage:*", ["0"]),
        ("zebra", []),
        ("", []),
        ("!!! ??? \x00", []),
        ("\ud800 whales", ["3"]),
        ("whales " * 2_000, ["3"]),
    ],
)
def test_words_are_found_and_operators_mean_nothing(
    animals: SearchIndex, query: str, found: list[str]
) -> None:
    assert ids(animals, query) == found


def test_a_query_of_ten_thousand_different_words_is_answered(animals: SearchIndex) -> None:
    assert ids(animals, "whales " + " ".join(f"w{n}" for n in range(10_000))) == ["3"]


def test_as_many_passages_as_asked_for(animals: SearchIndex) -> None:
    assert len(ids(animals, "cats dogs", top=1)) == 1
    assert len(ids(animals, "cats dogs", top=10**9)) == 3
    for none in (0, -1):
        with pytest.raises(UsageError, match="at least one"):
            animals.find("cats", none)


def test_equal_scores_are_ordered_by_id_and_twins_found_once(tmp_path: Path) -> None:
    rows = [{"id": f"{n:03}", "title": "T", "text": f"tie {n % 50}"} for n in range(200)]
    expected = [f"{n:03}" for n in range(10)]
    for order in (rows, rows[::-1]):
        path = tmp_path / "ties.jsonl"
        path.write_text("\n".join(map(json.dumps, order)), encoding="utf-8")
        index = SearchIndex(path, tmp_path / "index")
        assert ids(index, "tie", top=10) == expected
        assert len(ids(index, "tie", top=200)) == 50


def test_an_id_that_several_passages_have_is_cited_with_its_place(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    corpus(docs / "a.jsonl", "red ferry", "blue ferry", "green")
    corpus(docs / "b.jsonl", "white ferry")
    index = SearchIndex(docs, tmp_path / "index")
    assert sorted(ids(index, "ferry")) == ["0 (a.jsonl:1)", "0 (b.jsonl:1)", "1"]
    (docs / "b.jsonl").unlink()
    index.prepare(again=True)
    assert sorted(ids(index, "ferry")) == ["0", "1"]


def test_a_copy_of_a_file_is_found_once_though_its_name_differs(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for name in ("a.txt", "b.txt", "c.md"):
        (docs / name).write_text("The ferry.\n", encoding="utf-8")
    (docs / "link.txt").symlink_to("a.txt")
    (docs / "d.md").write_text("# Boats\n\nThe ferry.\n", encoding="utf-8")
    index = SearchIndex(docs, tmp_path / "index")
    assert sorted(ids(index, "ferry")) == ["a.txt#1", "d.md#1"]


def test_what_is_not_searched_or_odd_is_told_when_the_index_is_built(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.txt").write_bytes("Köln\n".encode("latin-1"))
    (docs / "b.txt").write_text("\n\n", encoding="utf-8")
    for name in ("c.pdf", "d.pdf"):
        (docs / name).write_bytes(b"%PDF")
    for _ in range(2):  # the second time nothing is read
        assert ids(SearchIndex(docs, tmp_path / "index"), "koln") == ["a.txt#1"]
    assert caplog.messages == [
        f"{docs}, not searched: 2 files ending in .pdf (c.pdf, d.pdf)",
        f"{docs}, searched: 1 file with bytes that are not UTF-8, read as Windows-1252 "
        "(a.txt: 1); 1 file without any text (b.txt)",
    ]


def test_an_empty_corpus_finds_nothing(tmp_path: Path) -> None:
    index = SearchIndex(corpus(tmp_path / "empty.jsonl"), tmp_path / "index")
    assert index.prepare() == 0
    assert index.find("anything", 3) == []


def test_only_files_that_changed_are_read_again(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for name in ("kept", "changed", "removed"):
        (docs / f"{name}.md").write_text(f"# {name}\n\nword {name}\n", encoding="utf-8")
    index = SearchIndex(docs, tmp_path / "index")
    assert ids(index, "word") == ["changed.md#1", "kept.md#1", "removed.md#1"]
    [generation] = (tmp_path / "index").glob("index-*")

    (docs / "removed.md").unlink()
    (docs / "changed.md").write_text("fresh", encoding="utf-8")
    (docs / "new.txt").write_text("word", encoding="utf-8")
    os.utime(docs / "kept.md", (1, 1))  # touched, with the same content
    assert SearchIndex(docs, tmp_path / "index").prepare() == 3
    assert index.prepare(again=True) == 3
    assert ids(index, "word") == ["kept.md#1", "new.txt#1"]
    assert ids(index, "fresh") == ["changed.md#1"]
    assert list((tmp_path / "index").glob("index-*")) == [generation]


def test_nothing_is_written_where_nothing_changed(tmp_path: Path) -> None:
    source = corpus(tmp_path / "a.jsonl", "one")
    SearchIndex(source, tmp_path / "index").prepare()
    time.sleep(2.1)  # a file that was just written is looked at once more
    SearchIndex(source, tmp_path / "index").prepare()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "index").glob("index-*/meta*")}
    assert SearchIndex(source, tmp_path / "index").prepare() == 1
    assert before == {path: path.stat().st_mtime_ns for path in before}


def truncate(folder: Path) -> None:
    for path in folder.glob("index-*/*"):
        os.truncate(path, path.stat().st_size // 2)


def no_segments(folder: Path) -> None:
    for path in folder.glob("index-*/*.store"):
        path.unlink()


def other_bytes(folder: Path) -> None:
    """Of the same length, so that only the content tells."""
    for path in folder.glob("index-*/*.*"):
        if path.suffix in (".store", ".idx", ".term"):
            data = bytearray(path.read_bytes())
            data[: len(data) // 2] = bytes(byte ^ 0x55 for byte in data[: len(data) // 2])
            with path.open("r+b") as file:
                file.write(data)


def no_generation(folder: Path) -> None:
    [generation] = folder.glob("index-*")
    generation.rename(folder / "index-0")


def garbage(folder: Path) -> None:
    (folder / "interlace-search.json").write_bytes(b"\x80{")


def other_version(folder: Path) -> None:
    path = folder / "interlace-search.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}), encoding="utf-8")


def path_outside(folder: Path) -> None:
    path = folder / "interlace-search.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "current": "../x"}))


@pytest.mark.parametrize(
    "harm",
    [truncate, no_segments, other_bytes, no_generation, garbage, other_version, path_outside],
)
def test_a_damaged_or_foreign_index_is_built_again(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    source = corpus(tmp_path / "a.jsonl", "one", "two")
    SearchIndex(source, tmp_path / "index").prepare()
    harm(tmp_path / "index")
    assert ids(SearchIndex(source, tmp_path / "index"), "two") == ["1"]
    assert len(list((tmp_path / "index").glob("index-*"))) == 1


def test_an_index_that_is_damaged_while_in_use_is_built_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = corpus(tmp_path / "a.jsonl", *(f"row {n}" for n in range(500)))
    index = SearchIndex(source, tmp_path / "index")
    assert ids(index, "499") == ["499"]
    other_bytes(tmp_path / "index")
    assert ids(index, "499 498", top=1) == ["498"]
    [notice] = caplog.messages
    assert f"the search index in {tmp_path / 'index'} is damaged and built again" in notice
    assert ".store" in notice
    assert ids(SearchIndex(source, tmp_path / "index"), "7") == ["7"]
    assert len(caplog.messages) == 1


def test_a_failed_update_leaves_the_old_index(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    corpus(docs / "a.jsonl", "old")
    index = SearchIndex(docs, tmp_path / "index")
    index.prepare()
    corpus(docs / "a.jsonl", "new")
    (docs / "b.jsonl").write_text("{broken", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(DataError, match=r"b\.jsonl, line 1, is not JSON"):
            SearchIndex(docs, tmp_path / "index").prepare()
    assert ids(index, "old") == ["0"]
    (docs / "b.jsonl").unlink()
    index.prepare(again=True)
    assert (ids(index, "old"), ids(index, "new")) == ([], ["0"])


def whole(folder: Path) -> dict[str, int]:
    """What stands in an index as it lies there: how many passages from which file."""
    name = json.loads((folder / "interlace-search.json").read_text())["current"]
    index, files = load(folder / name)  # raises where it is damaged
    searcher = index.searcher()
    found: dict[str, int] = {}
    for hit in find(searcher, index.schema, "passage", 10**6):
        file = hit.passage.title
        found[file] = found.get(file, 0) + 1
    assert found.keys() == files.keys()
    assert searcher.num_docs == sum(found.values()) + 1
    return found


def test_a_builder_that_is_killed_leaves_the_old_index_or_the_new(tmp_path: Path) -> None:
    """Killed by signal 9 while it updates: earlier and later, until one comes through."""
    docs, folder = tmp_path / "docs", tmp_path / "index"
    docs.mkdir()
    code = f"from interlace.tools.search import SearchIndex; SearchIndex({str(docs)!r}, "
    code += f"{str(folder)!r}).prepare()"
    old = {"kept.jsonl": 1_000, "changed.jsonl": 3_000, "removed.jsonl": 1_000}
    new = {"kept.jsonl": 1_000, "changed.jsonl": 5_000, "added.jsonl": 4_000}

    def write(sizes: dict[str, int]) -> None:
        for path in docs.iterdir():
            path.unlink()
        for name, size in sizes.items():
            corpus(docs / name, *(f"passage {n} of {size}" for n in range(size)), title=name)

    write(old)
    SearchIndex(docs, folder).prepare()
    assert whole(folder) == old
    write(new)
    killed = 0
    for wait in (0.0, 0.02, 0.05, 0.1, 0.2, None):
        before = set(folder.glob("index-*/*"))
        builder = subprocess.Popen([sys.executable, "-c", code])
        while set(folder.glob("index-*/*")) <= before and builder.poll() is None:
            time.sleep(0.005)  # until it writes
        if wait is not None:
            time.sleep(wait)
            builder.send_signal(signal.SIGKILL)
        killed += builder.wait() == -signal.SIGKILL
        assert whole(folder) in (old, new)
        if whole(folder) == new:
            break
    assert killed and whole(folder) == new
    assert SearchIndex(docs, folder).prepare() == sum(new.values())
    assert len(list(folder.glob("index-*"))) == 1


def test_a_first_build_that_is_killed_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    source, folder = corpus(tmp_path / "a.jsonl", *["row"] * 10_000), tmp_path / "index"
    code = f"from interlace.tools.search import SearchIndex; SearchIndex({str(source)!r}, "
    code += f"{str(folder)!r}).prepare()"
    builder = subprocess.Popen([sys.executable, "-c", code])
    while not any(folder.glob("index-*/*")) and builder.poll() is None:
        time.sleep(0.005)
    builder.send_signal(signal.SIGKILL)
    assert builder.wait() == -signal.SIGKILL
    assert not (folder / "interlace-search.json").exists()
    assert SearchIndex(source, folder).prepare() == 10_000
    assert len(list(folder.glob("index-*"))) == 1


def test_two_builders_wait_for_each_other(tmp_path: Path) -> None:
    source = corpus(tmp_path / "a.jsonl", *(f"row {n}" for n in range(2_000)))
    counts: list[int] = []
    builders = [
        threading.Thread(
            target=lambda: counts.append(SearchIndex(source, tmp_path / "index").prepare())
        )
        for _ in range(4)
    ]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert counts == [2_000] * 4
    files = {path.name for path in (tmp_path / "index").iterdir()}
    assert len(files - {"interlace-search.lock", "interlace-search.json"}) == 1


def test_a_builder_that_never_ends_is_waited_for_only_so_long(tmp_path: Path) -> None:
    source, folder = corpus(tmp_path / "a.jsonl", "one"), tmp_path / "index"
    folder.mkdir()
    with (folder / "interlace-search.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ToolUnavailable, match=r"more than 0\.1 s"):
            SearchIndex(source, folder, patience=0.1).prepare()
    assert SearchIndex(source, folder).prepare() == 1


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    source = corpus(tmp_path / "a.jsonl", "one")
    with pytest.raises(UsageError, match="a folder of its own"):
        SearchIndex(source, tmp_path).prepare()
    assert list(tmp_path.iterdir()) == [source]


def test_an_index_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    source = corpus(tmp_path / "a.jsonl", "one")
    with pytest.raises(DataError, match="can't build the index"):
        SearchIndex(source, source / "index").prepare()


def test_the_index_lies_in_the_cache_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    index = SearchIndex(corpus(tmp_path / "a.jsonl", "one"))
    assert ids(index, "one") == ["0"]
    assert index.folder.parent == tmp_path / "cache" / "interlace" / "search"


def test_without_the_extra_it_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tantivy", None)
    with pytest.raises(MissingExtra, match=r"\[search\]"):
        SearchIndex(corpus(tmp_path / "a.jsonl", "one"), tmp_path / "index")


def test_a_build_goes_on_when_whoever_waits_is_cancelled(tmp_path: Path) -> None:
    index = SearchIndex(
        corpus(tmp_path / "a.jsonl", *(f"row {n}" for n in range(5_000))), tmp_path / "index"
    )

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001), index.opened():
                pass
        async with index.opened():
            assert len(await index.search("row", 3)) == 3

    asyncio.run(main())
    assert len(list((tmp_path / "index").glob("index-*"))) == 1
