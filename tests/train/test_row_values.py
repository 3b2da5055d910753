"""Sources of tasks: every reader takes the same files, and makes the same of the same value."""

import bz2
import csv
import gzip
import json
import lzma
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from support.attempts import attempt
from support.fakes import answer as answered

from interlace.rollout.episode_log import EpisodeLog, read_episodes
from interlace.rollout.row_values import answer_texts, row_id
from interlace.rollout.rows import Located, with_integers
from interlace.rollout.task import Task
from interlace.rollout.task_files import to_tasks
from interlace.tools.errors import DataError
from interlace.train.data.sources import find_tasks
from interlace.train.rewards import Checker, Unscored

# -- values --------------------------------------------------------------------------------------

NOTHING: list[str] = []
REFUSED = None
VALUES: dict[str, list[str] | None] = {
    # as JSON: the answers that are right
    '"Bergen"': ["Bergen"],
    '"nan"': ["nan"],  # a bread
    '"4.0"': ["4.0"],
    "0": ["0"],
    "-7": ["-7"],
    "12345678901234567890": ["12345678901234567890"],
    "3.10": ["3.10"],
    "6e23": ["6e23"],
    "20000000000000000000000.25": ["20000000000000000000000.25"],
    "4.0": ["4"],  # an integer that pandas kept as a float
    "null": NOTHING,
    "NaN": NOTHING,
    '""': NOTHING,
    '" "': NOTHING,
    "true": REFUSED,
    "Infinity": REFUSED,
    '{"number": 4}': REFUSED,
    "[[4]]": REFUSED,
}
LISTS: dict[str, list[str] | None] = {
    '["Bergen", "Bjorgvin", "Bergen"]': ["Bergen", "Bjorgvin"],
    '[null, "Bergen", ""]': ["Bergen"],
    "[3.10, 7]": ["3.10", "7"],
    "[null, NaN]": NOTHING,
    "[]": NOTHING,
}
COLUMNS: dict[str, tuple[str, str]] = {
    # the name in front of the file, the row
    "plain": ("", '{"question": "q", "answer": %s}'),
    "plain, of our own": ("", '{"question": "q", "gold": "x", "answer": %s}'),
    "aime": ("aime:", '{"ID": "7", "Problem": "q", "Answer": %s}'),
    "math": ("math:", '{"problem": "q", "answer": %s}'),
    "facts": ("nq:", '{"question": "q", "answer": %s}'),
    "facts, golden": ("nq:", '{"question": "q", "golden_answers": %s}'),
    "verl": ("verl:", '{"prompt": "q", "reward_model": {"ground_truth": %s}}'),
    "verl's gsm8k": (
        "gsm8k:",
        '{"prompt": "q", "reward_model": {"ground_truth": %s}, "extra_info": {"index": 3}}',
    ),
    "DAPO": ("dapo_math:", '{"prompt": "q", "reward_model": {"ground_truth": %s}}'),
}
SEVERAL = ("plain", "plain, of our own", "facts", "facts, golden", "verl")
WITHOUT = ("plain", "plain, of our own", "verl")
"""Columns that may hold several answers, or none; where others have none, the row is left out."""


def read(folder: Path, name: str, content: str | bytes, file: str = "rows.jsonl") -> list[Task]:
    path = folder / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return find_tasks(f"{name}{path}")


def golds(task: Task) -> list[str]:
    with Checker() as checker:
        try:
            return checker.golds(task) or NOTHING
        except Unscored:
            return NOTHING


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("form", ["lines", "list"])
def test_a_value_is_the_same_answer_in_every_column(column: str, form: str, tmp_path: Path) -> None:
    adapter, row = COLUMNS[column]
    other = row.replace("%s", '"other"').replace('"q"', '"another"')
    for text, wanted in (VALUES | (LISTS if column in SEVERAL else {})).items():
        rows = [row % text, other]
        content = "\n".join(rows) if form == "lines" else f"[{', '.join(rows)}]"
        if text.startswith("{") and column == "verl":
            continue  # other people's ground truth may be anything
        if wanted is REFUSED:
            with pytest.raises(DataError, match=r"(line|row) 1 .*a text or a number|no keys"):
                read(tmp_path, adapter, content, f"rows.json{'l' * (form == 'lines')}")
            continue
        tasks = read(tmp_path, adapter, content, f"rows.json{'l' * (form == 'lines')}")
        found = {task.question: golds(task) for task in tasks}
        expected = {"q": wanted, "another": ["other"]}
        if not wanted and column not in WITHOUT:
            del expected["q"]
        assert found == expected, text


@pytest.mark.parametrize(
    ("text", "id"),
    [('"a"', "a"), ("7", "7"), ("7.0", "7"), ("null", ""), ("NaN", ""), ('" "', "")]
    + [(odd, None) for odd in ("true", "[1]", '{"a": 1}', "0.5")],
)
def test_an_id_is_a_text_or_an_integer(text: str, id: str | None, tmp_path: Path) -> None:
    content = f'{{"question": "q", "id": {text}}}'
    if id is None:
        with pytest.raises(DataError, match="line 1 is not a task: an id is a text or an integer"):
            read(tmp_path, "", content)
    else:
        (task,) = read(tmp_path, "", content)
        (same,) = read(tmp_path, "", '{"question": "q"}')
        assert task.id == (id or same.id)


def test_an_id_of_a_table_may_be_a_whole_number_of_any_type() -> None:
    assert [row_id(seven) for seven in (np.float32(7), np.int64(7), Decimal("7.0"))] == ["7"] * 3
    for half in (np.float32(0.5), Decimal("0.5")):
        with pytest.raises(ValueError, match="an id is a text or an integer"):
            row_id(half)
    for other in (date(2026, 11, 30), datetime(2026, 11, 30, 7), time(7), True):
        with pytest.raises(ValueError, match="an id is a text or an integer"):
            row_id(other)


def test_a_cell_of_csv_is_as_long_as_is_documented_whatever_limit_csv_has(tmp_path: Path) -> None:
    path, before = tmp_path / "a.csv", csv.field_size_limit(131_072)
    try:
        path.write_text("question,answer\n" + "q" * 131_073 + ",7\n")
        assert len(find_tasks(str(path))[0].question) == 131_073
        path.write_text("question,answer\n" + "q" * 16_000_001 + ",7\n")
        for limit in (131_072, 20_000_000):
            csv.field_size_limit(limit)
            with pytest.raises(DataError, match=r"line 2: field larger .* \(16000000\)"):
                find_tasks(str(path))
    finally:
        csv.field_size_limit(before)


def test_an_id_of_two_rows_is_refused_whatever_kind_of_mapping_they_are() -> None:
    row = MappingProxyType({"question": "q", "id": 7})
    with pytest.raises(DataError, match="row 2: the id '7' stands there twice"):
        to_tasks(Located(f"row {number}", number, row) for number in (1, 2))


def test_a_number_of_data_stays_a_number(tmp_path: Path) -> None:
    (task,) = read(tmp_path, "", '{"question": "q", "tests": [{"returns": 2.50}], "level": 3.0}')
    assert json.dumps(task.data) == '{"tests": [{"returns": 2.5}], "level": 3.0}'


def test_a_solution_is_asked_only_where_there_is_no_answer(tmp_path: Path) -> None:
    for value, wanted in (("0", "0"), ("NaN", "9"), ('""', "9")):
        row = f'{{"problem": "q", "solution": "$\\\\boxed 9$", "answer": {value}}}'
        assert read(tmp_path, "math:", row)[0].answer == wanted
    with pytest.raises(DataError, match=r"line 1 .*nothing behind ####"):
        read(tmp_path, "gsm8k:", '{"question": "q", "answer": "So. #### "}')


def test_golds_are_read_alike_of_tasks_made_in_python() -> None:
    assert golds(Task("a", "q", "", {"answers": "Oslo"})) == ["Oslo"]  # not its letters
    assert golds(Task("a", "q", "4", {"answers": [5, None, "4"]})) == ["4", "5"]
    assert golds(Task("a", "q", " ")) == NOTHING
    for odd in ({"text": ["Oslo"]}, [True], [["Oslo"]]):
        assert golds(Task("a", "q", None, {"answers": odd})) == NOTHING
    with Checker() as checker:
        assert checker.golds(Task("a", "q", None, {"checker": "tests"})) is None


# -- tables --------------------------------------------------------------------------------------


def test_what_pandas_writes_is_read_as_it_was_meant(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="comes with interlace[hub]")
    frame = pandas.DataFrame(
        {
            "id": [1, None, 3],
            "question": ["a?", "b?", "c?"],
            "answer": [4, 15, None],
            "share": [0.1, 2.5, np.nan],
        }
    )
    frame.index = [5, 2, 9]  # as of a table of which rows were left out
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    frame.to_json(tmp_path / "a.json", orient="records", indent=1)
    frame.to_csv(tmp_path / "a.csv.gz")
    frame.convert_dtypes().astype({"share": "float32"}).to_parquet(tmp_path / "b.parquet")
    for file in ("a.parquet", "a.jsonl", "a.json", "b.parquet"):
        tasks = find_tasks(str(tmp_path / file))
        assert [task.answer for task in tasks] == ["4", "15", None], file
        assert [tasks[0].id, tasks[2].id] == ["1", "3"]
        assert [task.data for task in tasks] == [{"share": 0.1}, {"share": 2.5}, {"share": None}]
    assert [task.answer for task in find_tasks(str(tmp_path / "a.csv.gz"))] == ["4.0", "15.0", None]
    (tmp_path / "nan.csv").write_text("question,answer\na?,NaN\nb?,7\n")  # as polars writes it
    assert [task.answer for task in find_tasks(str(tmp_path / "nan.csv"))] == [None, "7"]
    for rows in (frame.convert_dtypes().to_dict("records"), frame.to_dict("records")):
        located = with_integers(Located("a row", 1, row) for row in rows)  # as `evaluate` does
        assert [task.answer for task in to_tasks(located)] == ["4", "15", None]


def test_columns_that_json_cant_hold_are_left_out_and_named(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs interlace[parquet]")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = {
        "question": ["a?"],
        "answer": [Decimal("2.50")],
        "day": [date(2031, 5, 4)],
        "picture": [{"bytes": b"\xff", "path": "a.png"}],
        "data": ["free text"],
        "level": [3],
    }
    parquet.write_table(pa.table(table), tmp_path / "a.parquet")
    told = list[str]()
    (task,) = find_tasks(str(tmp_path / "a.parquet"), tell=told.append)
    assert (task.answer, task.data) == ("2.50", {"data": "free text", "level": 3})
    assert answer_texts([date(2031, 5, 4), Decimal("2.50")]) == ["2031-05-04", "2.50"]
    assert told == ["left out, as JSON can't hold their values: the columns 'day', 'picture'"]


# -- files ---------------------------------------------------------------------------------------

ROWS = [{"question": "Ø + 1?", "answer": "So.\n#### 3"}, {"question": "b?", "answer": "#### 4"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
CSV = 'question,answer\nØ + 1?,"So.\n#### 3"\nb?,#### 4\n'
FORMS: dict[str, tuple[str, bytes]] = {
    # of each form, the file's name and its content
    "lines": ("a.jsonl", LINES.encode()),
    "lines, CRLF": ("a.jsonl", LINES.replace("\n", "\r\n").encode()),
    "lines, no ending": ("rows", LINES.encode()),
    "byte order mark": ("a.jsonl", b"\xef\xbb\xbf" + LINES.encode()),
    "UTF-16": ("a.jsonl", LINES.encode("utf-16")),
    "UTF-16, the other order": ("a.json", b"\xfe\xff" + LINES.encode("utf-16-be")),
    "list": ("a.json", json.dumps(ROWS, indent=2).encode()),
    "list in one line": ("A.JSONL", json.dumps(ROWS).encode()),
    "list, BOM": ("a.json", b"\xef\xbb\xbf" + json.dumps(ROWS, ensure_ascii=False).encode()),
    "CSV": ("a.csv", CSV.encode()),
    "CSV, semicolons, UTF-16": ("a.CSV", CSV.replace(",", ";").encode("utf-16")),
    "TSV": ("a.tsv", CSV.replace(",", "\t").encode()),
    "gzip": ("a.jsonl.gz", gzip.compress(LINES.encode())),
    "gzip without a name": ("a.jsonl", gzip.compress(b"\xef\xbb\xbf" + LINES.encode())),
    "bzip2": ("a.csv.bz2", bz2.compress(CSV.encode())),
    "xz": ("a.json.xz", lzma.compress(json.dumps(ROWS).encode())),
}
ODD: dict[str, tuple[str, bytes, str]] = {
    # and of files that are no tasks, what is said
    "empty": ("a.jsonl", b"", "there are no questions in "),
    "blank": ("a.csv", b"\n", "there are no questions in "),
    "empty list": ("a.json", b" [ ]\n", "there are no questions in "),
    "Latin-1": ("a.jsonl", LINES.encode("latin-1"), "is not UTF-8 text .*: save it as UTF-8"),
    "UTF-16 without a mark": ("a.jsonl", LINES.encode("utf-16-le"), "is not text: it holds NUL"),
    "zip": ("a.jsonl", b"PK\x03\x04" + bytes(30), "is a zip archive: unpack it first"),
    "zstd": ("a.jsonl.zst", b"\x28\xb5\x2f\xfd" + bytes(9), "packed with zstd: unpack it first"),
    "torn gzip": ("a.jsonl.gz", gzip.compress(LINES.encode() * 50)[:-9], "can't read .*ended"),
    "comment": ("a.jsonl", b"# made by hand\n" + LINES.encode(), "line 1 is not JSON"),
    "torn list": ("a.json", json.dumps(ROWS, indent=1).encode()[:-3], "a.json is not JSON"),
    "a row that is a list": (
        "a.jsonl",
        LINES.encode() + b"[1, 2]\n",
        "line 3 .*a list, not an obj",
    ),
    "a row that is a text": ("a.jsonl", LINES.encode() + b'"abc"\n', "line 3 .*'abc', not an obj"),
    "half a character": (
        "a.jsonl",
        b'{"question": "a \\ud83d", "answer": "#### 3"}',
        "line 1 holds half of a character",
    ),
    "a key twice": (
        "a.jsonl",
        b'{"question": "a", "answer": "#### 3", "answer": "#### 4"}',
        "the key 'answer' stands twice",
    ),
    "CSV of uneven rows": ("a.csv", CSV.encode() + b"c?\n", "row 3 has more or fewer columns"),
    "CSV with a column twice": ("a.csv", b"question,answer,answer\na,1,2\n", "two columns of one"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_form_of_file_is_read_by_its_adapter_and_as_it_is(form: str, tmp_path: Path) -> None:
    name, content = FORMS[form]
    tasks = read(tmp_path, "gsm8k:", content, name)
    assert [(task.question, task.answer) for task in tasks] == [("Ø + 1?", "3"), ("b?", "4")]
    unpacked = content.replace(b"#### ", b"")  # rows that fit no adapter are tasks of our own
    if unpacked != content:
        assert read(tmp_path, "", unpacked, name)[0].question == "Ø + 1?"


@pytest.mark.parametrize("form", ODD)
def test_a_file_that_is_no_tasks_is_one_sentence(form: str, tmp_path: Path) -> None:
    name, content, says = ODD[form]
    with pytest.raises(DataError, match=says):
        read(tmp_path, "gsm8k:", content, name)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_log_is_read_packed_or_with_a_byte_order_mark(
    pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    episode = attempt(Task("a", "1 + 1?", "2"), answered("2"))
    with EpisodeLog(tmp_path / "log.jsonl") as log:
        log.append(episode)
    content = (tmp_path / "log.jsonl").read_bytes()
    other = tmp_path / "other.jsonl"
    other.write_bytes(pack(b"\xef\xbb\xbf" + content))
    assert [each.id for each in read_episodes(other)] == [episode.id]
    other.write_bytes(gzip.compress(content)[:-5])
    with pytest.raises(DataError, match="can't read"):
        list(read_episodes(other))
