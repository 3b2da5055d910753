"""Files of tasks, as people and programs write them."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlace.rollout.task import Task
from interlace.rollout.task_files import read_tasks
from interlace.tools.errors import DataError


def write(folder: Path, content: str) -> str:
    file = folder / "tasks"
    file.write_bytes(content.encode())
    return str(file)


def test_a_plain_file_has_a_question_a_line_with_the_same_ids_in_every_run(tmp_path: Path) -> None:
    file = write(tmp_path, "\ufeffone?\r\n\r\n  two?  \nthree?")
    tasks = read_tasks(file)
    assert [task.question for task in tasks] == ["one?", "two?", "three?"]
    assert read_tasks(file) == tasks
    other = read_tasks(write(tmp_path, "zero?\nthree?\none?\n\nthree?"))
    ids = {task.question: task.id for task in tasks}
    assert [task.id for task in other[1:]] == [ids["three?"], ids["one?"], f"{ids['three?']}-2"]


def test_objects_may_bring_an_id_an_answer_and_more(tmp_path: Path) -> None:
    file = write(tmp_path, '{"question": "one?", "id": 7, "answer": 1, "level": 2}\n')
    assert read_tasks(file) == [Task("7", "one?", "1", {"level": 2})]


@settings(deadline=None)
@given(question=st.text(st.characters(codec="utf-8")).filter(lambda text: text.strip()))
def test_any_question_comes_out_of_json_as_it_went_in(
    tmp_path_factory: pytest.TempPathFactory, question: str
) -> None:
    """U+2028, form feeds and the like end no line: JSON may hold them as they are."""
    lines = [json.dumps({"question": question, "id": id}, ensure_ascii=False) for id in "ab"]
    tasks = read_tasks(write(tmp_path_factory.mktemp("tasks"), "\n".join(lines)))
    assert tasks == [Task("a", question), Task("b", question)]


@pytest.mark.parametrize("end", ["\u2028", "\x0c", "\x85", "\x1c"])
def test_a_plain_question_may_hold_what_is_no_line_feed(tmp_path: Path, end: str) -> None:
    (task,) = read_tasks(write(tmp_path, f"one{end}and two?\n"))
    assert task.question == f"one{end}and two?"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"question": "half \\ud800"}', r"line 2 holds half of a character, '\\ud800'"),
        ('{"question": "q", "id": "\\udc00"}', "line 2 holds half of a character"),
        ('{"question": "q", "data": ["\\udc00"]}', "line 2 holds half of a character"),
        ('{"question": ', "line 2 is not JSON"),
        ('{"question": ' + "[" * 100_000, "line 2 is not JSON"),
        ("[1]", "line 2 is not a task"),
        ('{"question": " "}', "line 2 is not a task"),
        ('{"question": "q", "id": "a"}', "line 2: the id 'a' stands there twice"),
    ],
)
def test_what_is_no_task_is_refused_with_its_line(tmp_path: Path, line: str, says: str) -> None:
    file = write(tmp_path, '{"question": "q", "id": "a"}\n' + line + "\n")
    with pytest.raises(DataError, match=says):
        read_tasks(file)
