"""Public data sets as they are published: one made-up row of each shape, and the task wanted."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interlace.rollout.task import Task
from interlace.tools.errors import DataError, UsageError
from interlace.train.data.sources import find_tasks
from interlace.train.verl.data import from_row, write_dataset

DAPO = (
    "Solve the following math problem step by step. The last line of your response should be of "
    "the form Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n{}"
    '\n\nRemember to put your answer on its own line after "Answer:".'
)
SEARCH_R1 = (
    "Answer the given question. You must conduct reasoning inside <think> and </think> first every "
    "time you get new information. (...) without detailed illustrations. For example, <answer> "
    "Beijing </answer>. Question: {}\n"
)
RETOOL = (
    "Solve the following problem step by step. You may write code.\n\n*user question:*\nAnswer "
    "the following Math Problem and put the answer in the format of \\boxed{answer}\n\n%s\n\n\n"
    "Remember "
    "to place the final answer in the last part using the format: \n<answer>\n\\boxed{'x'}\n"
    "</answer>"
)
STEPS = " Let's think step by step and output the final answer "
TRACE = (
    "<code>\n```python\nprint(2**9)\n```\n</code>\n<interpreter>\n512\n</interpreter>\n"
    "<answer>\n\\boxed{512}\n</answer>"
)
THOUGHT = (
    "<|begin_of_thought|>\n\n\\boxed{7}? No.\n\n<|end_of_thought|>\n\n"
    "<|begin_of_solution|>\n\nIt is $\\boxed{8}$.\n\n<|end_of_solution|>"
)


def for_verl(source: str, prompt: str, truth: Any, **more: Any) -> dict[str, Any]:
    """A row in the columns of verl's data sets."""
    return {
        "data_source": source,
        "prompt": [{"role": "user", "content": prompt}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": truth},
        **more,
    }


def searched(source: str, question: str, answers: list[str]) -> dict[str, Any]:
    row = for_verl(source, SEARCH_R1.format(question), {"target": answers})
    return {"id": "train_4", "question": question, "golden_answers": answers, **row}


LAMPS = "How many lamps burn\nwhen $3$ of $10$ are out?\n\nCount the rest."
MATH = {"checker": "math", "tools": ["python"]}
SEARCH = {"checker": "em", "tools": ["search"]}
SQL = {"checker": "sql", "tools": ["sql"], "database": "port/port.sqlite"}
SHAPES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    # its name in front of the file ("": its data_source says it), the row, the task
    "DAPO": (
        "",
        for_verl("math_dapo", DAPO.format("Find $k$ if $k+1=8$."), "7", extra_info={"index": "a"}),
        {"question": "Find $k$ if $k+1=8$.", "answer": "7", **MATH},
    ),
    "DAPO, two paragraphs": (
        "",
        for_verl("math_dapo", DAPO.format(LAMPS), "7", extra_info={"index": "b"}),
        {"question": LAMPS, "answer": "7", **MATH},
    ),
    "nq": (
        "",
        searched("nq", "who kept the light at Arn?", ["Ida Holm", "I. Holm"]),
        {
            "question": "who kept the light at Arn?",
            "answer": "Ida Holm",
            "answers": ["Ida Holm", "I. Holm"],
            **SEARCH,
        },
    ),
    "hotpotqa": (
        "",
        searched("hotpotqa", "Are Arn and Bol both islands?", ["no"]),
        {"question": "Are Arn and Bol both islands?", "answer": "no", "answers": ["no"], **SEARCH},
    ),
    "nq, a year": (
        "",
        searched("nq", "when was it built?", ["1,871", "1871"]),
        {"question": "when was it built?", "answers": ["1,871", "1871"], **SEARCH},
    ),
    "ReTool-SFT": (
        "retool_sft",
        {
            "messages": [
                {"role": "user", "content": RETOOL % "What is $2^9$?"},
                {"role": "assistant", "content": TRACE},
            ]
        },
        {"question": "What is $2^9$?", "answer": "512", "demonstration": TRACE, **MATH},
    ),
    "BIRD": (
        "bird",
        {
            "question_id": 3,
            "db_id": "port",
            "question": "How many large ships are there?",
            "evidence": "large means tons > 9",
            "SQL": "SELECT COUNT(*) FROM ship WHERE tons > 9",
            "difficulty": "simple",
        },
        {
            "question": "How many large ships are there?\nHint: large means tons > 9",
            "gold": "SELECT COUNT(*) FROM ship WHERE tons > 9",
            "rule": "bird",
            **SQL,
        },
    ),
    "BIRD, no evidence": (
        "bird",
        {
            "question_id": 4,
            "db_id": "port",
            "question": "Ships?",
            "evidence": "",
            "SQL": "SELECT 1",
        },
        {"question": "Ships?", "gold": "SELECT 1", "rule": "bird", **SQL},
    ),
    "Spider": (
        "spider",
        {
            "db_id": "port",
            "query": 'SELECT name FROM ship WHERE flag = "red"',
            "query_toks": ["SELECT"],
            "question": "Which ships fly red?",
            "question_toks": ["Which"],
        },
        {
            "question": "Which ships fly red?",
            "gold": 'SELECT name FROM ship WHERE flag = "red"',
            "rule": "spider",
            **SQL,
        },
    ),
    "GSM8K": (
        "gsm8k",
        {"question": "Two nets of 9 fish?", "answer": "2*9=<<2*9=18>>18\n#### 18"},
        {"question": "Two nets of 9 fish?", "answer": "18", **MATH},
    ),
    "GSM8K, thousands": (
        "gsm8k",
        {"question": "40 nets of 900?", "answer": "<<40*900=36000>>36,000\n#### 36,000"},
        {"question": "40 nets of 900?", "answer": "36000", **MATH},
    ),
    "verl's GSM8K": (
        "",
        for_verl(
            "openai/gsm8k",
            f'Two nets of 9 fish?{STEPS}after "####".',
            "18",
            extra_info={
                "index": 0,
                "split": "train",
                "question": "Two nets of 9 fish?",
                "answer": "2*9=<<2*9=18>>18\n#### 18",
            },
        ),
        {"question": "Two nets of 9 fish?", "answer": "18", **MATH},
    ),
    "verl's MATH": (
        "",
        for_verl("DigitalLearningGmbH/MATH-lighteval", f"Find $x$.{STEPS}within \\boxed{{}}.", "5"),
        {"question": "Find $x$.", "answer": "5", **MATH},
    ),
    "MATH": (
        "math",
        {
            "problem": "What is $\\dfrac12+\\dfrac13$?",
            "level": "Level 1",
            "type": "Prealgebra",
            "solution": "$\\boxed{1}$? No, $\\boxed{\\frac{5}{6}}$.",
        },
        {"question": "What is $\\dfrac12+\\dfrac13$?", "answer": "\\frac{5}{6}", **MATH},
    ),
    "MATH, a bare box": (
        "math",
        {"problem": "Even primes?", "solution": "Only $2$ is, so $\\boxed 1$ prime."},
        {"question": "Even primes?", "answer": "1", **MATH},
    ),
    "MATH-500": (
        "math",
        {
            "problem": "Add the columns.",
            "solution": "$\\boxed{\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}}$",
            "answer": "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}",
            "unique_id": "test/algebra/1.json",
        },
        {"answer": "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", **MATH},
    ),
    "OpenThoughts": (
        "openthoughts",
        {
            "system": "Your role is to think.",
            "conversations": [
                {"from": "user", "value": "Return your final response within \\boxed{}. $2^3$?"},
                {"from": "assistant", "value": THOUGHT},
            ],
        },
        {"question": "$2^3$?", "answer": "8", "demonstration": THOUGHT, **MATH},
    ),
    "OpenThoughts' metadata": (
        "openthoughts",
        {
            "problem": "$2^3$?",
            "deepseek_reasoning": "It is 9.",
            "deepseek_solution": "$\\boxed{9}$",
            "ground_truth_solution": "$\\boxed{8}$",
            "domain": "math",
            "source": "a contest",
        },
        {"question": "$2^3$?", "answer": "8", **MATH},
    ),
    "AIME, a later file": (
        "aime",
        {"question": "What is $3^3$?", "answer": "27"},
        {"question": "What is $3^3$?", "answer": "27", **MATH},
    ),
    "AMC, without solutions": (
        "math",
        {"id": 4, "problem": "How far is the pier?", "answer": 27.0, "url": "https://example.org"},
        {"question": "How far is the pier?", "answer": "27", **MATH},
    ),
    "DAPO, processed": (
        "",
        for_verl("math_dapo", "", "7", solution="7") | {"prompt": "Find $k$ if $k+1=8$."},
        {"question": "Find $k$ if $k+1=8$.", "answer": "7", **MATH},
    ),
    "TriviaQA": (
        "nq",
        {
            "question": "Who kept the light?",
            "question_id": "tc_9",
            "answer": {
                "aliases": ["I. Holm", "Ida Holm"],
                "normalized_aliases": ["i holm"],
                "value": "Ida Holm",
                "normalized_value": "ida holm",
            },
        },
        {"question": "Who kept the light?", "answers": ["Ida Holm", "I. Holm"], **SEARCH},
    ),
    "SQuAD": (
        "nq",
        {
            "id": "a1",
            "context": "Ida Holm kept it.",
            "question": "Who kept the light?",
            "answers": {"text": ["Ida Holm", "Ida Holm"], "answer_start": [0, 0]},
        },
        {"question": "Who kept the light?", "answer": "Ida Holm", **SEARCH},
    ),
    "PopQA": (
        "nq",
        {"id": 77, "question": "What is Arn?", "possible_answers": '["island", "isle"]'},
        {"question": "What is Arn?", "answers": ["island", "isle"], **SEARCH},
    ),
    "MuSiQue": (
        "nq",
        {"id": "2hop_1", "question": "When?", "answer": "1871", "answer_aliases": ["in 1871"]},
        {"question": "When?", "answers": ["1871", "in 1871"], **SEARCH},
    ),
    "AIME": (
        "aime",
        {"ID": "2098-II-1", "Problem": "What is $3^3$?", "Solution": "27.", "Answer": 27},
        {"question": "What is $3^3$?", "answer": "27", **MATH},
    ),
}
CODE = {
    "problem": "Read n, print 2n.",
    "deepseek_reasoning": "Double it.",
    "deepseek_solution": "print(2 * int(input()))",
    "ground_truth_solution": None,
    "domain": "code",
    "source": "exercises",
}
ENDINGS = ["jsonl", "json", "parquet"]


def write(folder: Path, ending: str, *rows: dict[str, Any]) -> Path:
    """A file of rows, in one of the three ways in which they are published."""
    file = folder / f"rows.{ending}"
    if ending == "parquet":
        pa = pytest.importorskip("pyarrow", reason="needs interlace[parquet]")
        pytest.importorskip("pyarrow.parquet").write_table(pa.Table.from_pylist(rows), file)
    elif ending == "json":
        file.write_text(json.dumps(rows, indent=1))
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def databases(tmp_path: Path) -> Path:
    folder = tmp_path / "databases"
    (folder / "port").mkdir(parents=True)
    with closing(sqlite3.connect(folder / "port" / "port.sqlite")) as db:
        db.execute("create table ship (name, tons, flag)")
    return folder


def said(task: Task) -> dict[str, Any]:
    return {"question": task.question, "answer": task.answer, **task.data}


def _is_verls(shape: str) -> bool:
    name, row, _ = SHAPES[shape]
    return not name and isinstance(row["prompt"], list)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_becomes_its_task_from_every_kind_of_file(
    shape: str, ending: str, tmp_path: Path, databases: Path
) -> None:
    name, row, wanted = SHAPES[shape]
    file = write(tmp_path, ending, row)
    (task,) = find_tasks(f"{name}:{file}" if name else str(file), databases=databases)
    found = said(task)
    if "database" in found:
        found["database"] = str(Path(found["database"]).relative_to(databases))
    assert {key: found.get(key) for key in wanted} == wanted
    json.dumps(task.data)


@pytest.mark.parametrize("shape", [name for name in SHAPES if _is_verls(name)])
def test_verls_own_loader_reads_the_same_task(shape: str, tmp_path: Path) -> None:
    _, row, wanted = SHAPES[shape]
    (task,) = find_tasks(str(write(tmp_path, "jsonl", row)))
    handed = {key: value for key, value in row.items() if key != "prompt"}
    handed["raw_prompt"] = np.array(row["prompt"], dtype=object)  # as Parquet gives it
    if "golden_answers" in handed:
        handed["golden_answers"] = np.array(handed["golden_answers"])
    mine, history = from_row(handed)
    assert not history and (mine.id, mine.question, mine.answer) == (
        task.id, task.question, task.answer,
    )  # fmt: skip
    assert {key: said(mine)[key] for key in wanted} == wanted
    kept, _ = from_row(handed, keep_instruction=True)
    assert kept.question == row["prompt"][0]["content"].strip()


def test_an_instruction_is_kept_where_that_is_said(tmp_path: Path, databases: Path) -> None:
    for shape in ("DAPO", "verl's MATH", "nq"):
        file = write(tmp_path, "jsonl", SHAPES[shape][1])
        (task,) = find_tasks(f"{file}@instruction=keep")
        assert task.question == SHAPES[shape][1]["prompt"][0]["content"].strip()
    with pytest.raises(UsageError, match="hold no instruction"):
        find_tasks(f"bird:{file}@instruction=keep", databases=databases)


def test_repeated_prompts_are_one_task_read_lazily_and_told(tmp_path: Path) -> None:
    """As in the public file of DAPO, which holds each a hundred times, under other indices."""
    rows = [
        for_verl("math_dapo", DAPO.format(f"What is {n % 3}?"), str(n % 3), extra_info={"index": n})
        for n in range(300)
    ]
    file, told = write(tmp_path, "parquet", *rows), list[str]()
    tasks = find_tasks(str(file), tell=told.append)
    assert [task.answer for task in tasks] == ["0", "1", "2"]
    assert told == [f"297 rows of {file} repeat others: 3 tasks"]
    lines = write(tmp_path, "jsonl", *rows)
    lines.write_text(lines.read_text() + "no JSON\n")
    assert len(find_tasks(str(lines), limit=2)) == 2  # what is behind them is not read
    with pytest.raises(DataError, match="line 301 is not JSON"):
        find_tasks(str(lines))


def test_rows_of_another_kind_are_left_out_and_counted(tmp_path: Path) -> None:
    both = write(tmp_path, "parquet", SHAPES["OpenThoughts' metadata"][1], CODE)
    told = list[str]()
    assert len(find_tasks(f"openthoughts:{both}", tell=told.append)) == 1
    assert "1 rows" in told[0] and "no ground_truth_solution" in told[0]
    alone = write(tmp_path, "jsonl", CODE)
    with pytest.raises(DataError, match=r"no row .* there is no ground_truth_solution"):
        find_tasks(f"openthoughts:{alone}")


@pytest.mark.parametrize(
    ("name", "row", "says"),
    [
        ("", SHAPES["BIRD"][1], r"evidence, SQL, difficulty: name it bird:.*rows\.jsonl"),
        ("", SHAPES["GSM8K"][1], r"columns question, answer: name it gsm8k:"),
        ("", SHAPES["ReTool-SFT"][1], r"columns messages: name it retool_sft:"),
        (
            "",
            for_verl("mine", "Why?", "so"),
            r"data_source 'mine'.*verl:.* takes their prompts",
        ),
        ("", {"text": "Why?"}, r"line 1 can't be used.*columns are text, which fit no adapter"),
        ("aime", {"prompt": "1+1?", "answer": 2}, r"no 'question'; its columns are prompt, answer"),
        ("", SHAPES["TriviaQA"][1], r"columns question, question_id, answer: name it nq:"),
        ("", SHAPES["SQuAD"][1], r"columns id, context, question, answers: name it nq:"),
        ("math", SHAPES["AIME"][1], r"columns are ID, Problem, .*which fit aime:FILE"),
        ("spider", SHAPES["BIRD"][1], r"no 'query'.*which fit bird:FILE"),
    ],
)
def test_a_file_that_another_adapter_fits_is_told_so(
    name: str, row: dict[str, Any], says: str, tmp_path: Path
) -> None:
    file = write(tmp_path, "jsonl", row)
    with pytest.raises((DataError, UsageError), match=says):
        find_tasks(f"{name}:{file}" if name else str(file))


def test_databases_are_named_behind_the_file_or_beside_it_or_nothing_begins(
    tmp_path: Path, databases: Path
) -> None:
    file = write(tmp_path, "json", SHAPES["BIRD"][1])
    wanted = str(databases / "port" / "port.sqlite")
    assert find_tasks(f"bird:{file}:{databases}")[0].data["database"] == wanted
    with pytest.raises(UsageError, match=r"db_id and no database: name the folder with --data"):
        find_tasks(f"bird:{file}")
    own = write(tmp_path, "jsonl", {"question": "Ships?", "db_id": "port", "gold": "select 1"})
    with pytest.raises(UsageError, match="db_id and no database"):
        find_tasks(str(own))
    assert find_tasks(str(own), databases=databases)[0].data["database"] == wanted
    with pytest.raises(DataError, match="no database 'port'"):
        find_tasks(str(own), databases=tmp_path)


def test_what_we_wrote_for_verl_is_read_as_tasks_again(tmp_path: Path) -> None:
    tasks = find_tasks("database:test:3")
    write_dataset(tasks, tmp_path / "train.parquet", split="train", source="database")
    assert find_tasks(str(tmp_path / "train.parquet")) == tasks


def test_a_row_that_is_not_what_its_source_says_is_refused() -> None:
    row = for_verl("openai/gsm8k", "2 + 2?", "4")
    handed = {**row, "raw_prompt": row["prompt"], "reward_model": {}}
    with pytest.raises(DataError, match=r"no row of gsm8k .*another data_source"):
        from_row(handed)
