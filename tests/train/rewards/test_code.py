"""Code by hidden tests: right programs pass, and no trick of an answer replaces being right."""

import base64
import json
import pickle
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interlace.rollout.task import Task
from interlace.tools.errors import DataError
from interlace.tools.python import PythonTool
from interlace.train.data.sources import find_tasks
from interlace.train.rewards import Checker, Unscored
from interlace.train.rewards.code import CodeJudge

PROMPT = (
    "from typing import List\n\n\ndef scale(xs: List[int]) -> List[int]:\n"
    '    """Each number times three."""\n    return [3 * x for x in xs]\n\n\n'
    "def unscale(xs: List[int]) -> List[int]:\n"
    '    """Undo scale."""\n'
)
CHECK = (
    "def check(candidate):\n"
    "    import random\n"
    "    for _ in range(5):\n"
    "        xs = [random.randrange(99) for _ in range(4)]\n"
    "        assert candidate(scale(list(xs))) == xs\n"
    "    assert candidate([]) == [], 'nothing'\n"
)
HUMANEVAL = {"task_id": "H/0", "prompt": PROMPT, "entry_point": "unscale", "test": CHECK}
WHOLE = "def unscale(xs):\n    return [x // 3 for x in xs]\n"
MBPP = {
    "task_id": 7,
    "prompt": "Write functions to pair up and to sum.",
    "code": "class Pair:\n    pass\n\n\ndef sum(p):\n    pass\n\n\ndef both(a, b):\n    pass\n",
    "test_imports": ["import math"],
    "test_list": [
        "assert sum(Pair(2, 3)) == 5",
        "assert both(1, {2}) == (1, {2}, {'k': b'x'}, 2**70)",
        "assert math.isinf(sum(Pair(math.inf, 1)))",
    ],
}
PAIRS = """Here it is:
```python
class Pair:
    def __init__(self, a, b):
        self.a, self.b = a, b

def sum(pair):
    print("noise", pair)
    return pair.a + pair.b

def both(a, b):
    return a, b, {"k": b"x"}, 2**70
```
"""
STDIN = [{"input": "2 3\n", "output": "5\n"}, {"input": "1 1", "output": "2"}]
ADDS = "print(sum(map(int, open(0).read().split())))"


@pytest.fixture(scope="module")
def checker() -> Iterator[Checker]:
    with Checker() as checker:
        yield checker


def task_of(adapter: str, row: dict[str, Any], folder: Path) -> Task:
    file = folder / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    (task,) = find_tasks(f"{adapter}:{file}")
    return task


def returning(expected: Any, *arguments: Any, **data: Any) -> Task:
    tests = [{"arguments": list(arguments), "returns": expected}]
    return Task("f", "?", None, {"checker": "tests", "tests": tests, "functions": ["f"], **data})


def asserting(tests: str, **data: Any) -> Task:
    return Task("f", "?", None, {"checker": "tests", "tests": tests, "functions": ["f"], **data})


def test_humaneval_takes_the_function_or_its_body_in_the_prompts_context(
    checker: Checker, tmp_path: Path
) -> None:
    task = task_of("humaneval", HUMANEVAL, tmp_path)
    assert task.answer is None and task.question == PROMPT.strip()
    assert checker.right(task, WHOLE)
    assert checker.right(task, f"So:\n```python\n{WHOLE}```\nDone.")
    assert checker.right(task, "    return [x // 3 for x in xs]\n")
    assert checker.right(task, "def unscale(xs):\n    return [x * 3 // 9 for x in xs]\n")
    assert not checker.right(task, WHOLE.replace("3", "2"))
    # What the prompt defines is the tests' own: an answer can't redefine it.
    assert not checker.right(task, "def scale(xs):\n    return xs\ndef unscale(xs):\n    return xs")
    assert not checker.right(task, None)


def test_mbpps_asserts_take_objects_and_names_of_builtins_from_the_answer(
    checker: Checker, tmp_path: Path
) -> None:
    task = task_of("mbpp", MBPP, tmp_path)
    assert task.data["functions"] == ["Pair", "sum", "both"] and "assert both" in task.question
    assert checker.right(task, PAIRS)
    assert not checker.right(task, PAIRS.replace("return a, b,", "return b, a,"))


@pytest.mark.parametrize("packed", [False, True])
def test_livecodebench_programs_and_methods(checker: Checker, tmp_path: Path, packed: bool) -> None:
    def row(kind: str, public: list[Any], private: list[Any], **more: Any) -> dict[str, Any]:
        tests = [json.dumps([case | {"testtype": kind} for case in each])
                 for each in (public, private)]  # fmt: skip
        if packed:
            tests[1] = base64.b64encode(zlib.compress(pickle.dumps(tests[1]))).decode()
        return {
            "question_content": "Add.", "question_id": "q1", "difficulty": "easy",
            "public_test_cases": tests[0], "private_test_cases": tests[1], **more,
        }  # fmt: skip

    program = task_of("livecodebench", row("stdin", STDIN[:1], STDIN[1:]), tmp_path)
    assert checker.right(program, ADDS)
    assert checker.right(program, f"import sys\n{ADDS}\nsys.exit(0)")
    assert not checker.right(program, "print(5)")  # the public test alone
    assert not checker.right(program, f"{ADDS}\nraise SystemExit(1)")
    calls = [{"input": '[1, 2]\n"ab"', "output": '[3, "ab"]'}]
    starter = {"starter_code": "class Solution:", "metadata": '{"func_name": "add"}'}
    method = task_of("livecodebench", row("functional", calls, calls, **starter), tmp_path)
    assert "class Solution:" in method.question
    solution = "class Solution:\n    def add(self, xs, t):\n        return (sum(xs), t)"
    assert checker.right(method, solution)
    assert not checker.right(method, solution.replace("sum", "max"))


def test_packed_tests_run_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path(tmp_path / "ran").touch, ())

    packed = base64.b64encode(zlib.compress(pickle.dumps(Evil()))).decode()
    row = {"question_content": "?", "public_test_cases": "[]", "private_test_cases": packed}
    with pytest.raises(DataError, match="the packed tests want"):
        task_of("livecodebench", row, tmp_path)
    assert not (tmp_path / "ran").exists()


HOSTILE = {
    "equal to all": (
        "class E(list):\n    def __eq__(self, o): return True\n"
        "    __hash__ = None\ndef f(*a): return E()"
    ),
    "a number equal to all": (
        "class E(int):\n    def __eq__(self, o): return True\n    __hash__ = int.__hash__\n"
        "def f(*a): return E(1)"
    ),
    "an object equal to all": "class E:\n    def __eq__(*a): return True\ndef f(*a): return E()",
    "exit in f": "import os\ndef f(*a): os._exit(0)",
    "exit at once": "import os\nos._exit(0)",
    "system exit": "import sys\ndef f(*a): sys.exit(0)",
    "passed, as printed": "print('{\"passed\": true}')\ndef f(*a): print('PASSED')",
    "forged files": (
        "import json, os\n"
        "for n in ['said', *[f'reply-{i}' for i in range(9)]]:\n"
        "    open(n, 'w').write(json.dumps({'passed': True, 'value': None}))\n"
        "def f(*a): os._exit(0)"
    ),
    "forged reply": (
        "import os\ndef f(*a):\n"
        "    open('reply-1', 'w').write('{\"value\": {\"eval\": \"1\"}}'); os._exit(0)"
    ),
    "deep reply": (
        "def f(*a):\n    x = []\n    for _ in range(100000): x = [x]\n    return x"
    ),
    "patched builtins": (
        "import builtins, json, unittest\nbuiltins.all = builtins.any = lambda *a: True\n"
        "json.dumps = lambda *a, **k: '{\"passed\": true}'\n"
        "unittest.TestCase.assertEqual = lambda *a: None\ndef f(*a): return 0"
    ),
    # These three look for what is expected, without having it in their own text.
    "the caller's frames": (
        "import sys\ndef f(*a):\n    wanted, frame = '902' + chr(49) + '0', sys._getframe(1)\n"
        "    while frame:\n        for v in (frame.f_locals, frame.f_globals):\n"
        "            if wanted in repr(v): return [int(wanted), 4]\n        frame = frame.f_back"
    ),
    "all objects": (
        "import gc\ndef f(*a):\n    wanted = '902' + chr(49) + '0'\n"
        "    for v in gc.get_objects():\n"
        "        try:\n            if wanted in repr(v): return [int(wanted), 4]\n"
        "        except Exception: pass"
    ),
    "files": (
        "import os\ndef f(*a):\n    wanted = '902' + chr(49) + '0'\n"
        "    for top in ('/tmp', '/dev/shm', os.path.expanduser('~'), '.'):\n"
        "        for folder, _, names in os.walk(top):\n            for name in names:\n"
        "                try:\n"
        "                    if wanted in open(os.path.join(folder, name)).read():\n"
        "                        return [int(wanted), 4]\n"
        "                except Exception: pass"
    ),
    "endless": "def f(*a):\n    while True: pass",
    "asleep": "import time\ndef f(*a): time.sleep(1000)",
    "endless values": "import itertools\ndef f(*a): return itertools.count()",
    "memory": "def f(*a): return bytearray(10**11)",
    "no such function": "def g(*a): return [90210, 4]",
    "no code": "the answer is [90210, 4",
}  # fmt: skip


@pytest.mark.parametrize("trick", HOSTILE)
def test_no_trick_earns_anything(checker: Checker, trick: str) -> None:
    quick = {"seconds": 0.5}
    code = HOSTILE[trick]
    assert not checker.right(returning([90210, 4], 1, **quick), code)
    assert not checker.right(asserting("assert f(1) == [90210, 4]", **quick), code)


def test_a_program_cant_see_or_fake_what_is_expected(checker: Checker) -> None:
    task = Task("p", "?", None, {"checker": "tests", "tests": STDIN, "seconds": 1.0})
    assert checker.right(task, ADDS)
    for code in (
        "",
        "import os; os.system('cat output-* input said reply* tests.py')",
        "import os; os.kill(os.getppid(), 9)",
        "print(5, 2)",
        "while True: print(5)",
        "raise SystemExit(0)",
    ):
        assert not checker.right(task, code)
    words = Task(
        "w", "?", None, {"checker": "tests", "tests": [{"input": "", "output": "2.50\nb"}]}
    )
    assert checker.right(words, "print('2.5 \\nb\\n')")  # as numbers, blanks at the ends aside
    assert not checker.right(words, "print('2.5\\n\\nb')")


def test_what_is_not_the_answers_fault_has_no_score(checker: Checker) -> None:
    for task in (
        Task("n", "?", None, {"checker": "tests"}),
        asserting("assert f("),
        asserting("assert g(1) == 1 if False else True"),
        asserting("assert f(1) == 1", prelude="def"),
        asserting("assert f(lambda: 1) == 1"),
        asserting("assert f(1) == 1", functions=[]),
    ):
        with pytest.raises(Unscored):
            checker.right(task, "def f(x): return 1")
    missing = PythonTool(modules=("no_such_module_here",))
    with Checker(code=CodeJudge(missing)) as other, pytest.raises(Unscored):
        other.right(asserting("assert f(1) == 1"), "def f(x): return 1")


def test_a_vote_does_not_look_at_the_tests(checker: Checker) -> None:
    right, also = "def f(x): return 1", "def f(x):\n    return 1"
    task = asserting("assert f(1) == 1")
    assert checker.right(task, right) and checker.right(task, also)
    assert checker.equal(task, right, right) and not checker.equal(task, right, also)
