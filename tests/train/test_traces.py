"""Cold start: traces with every kind of lie planted in them, and the true ones among them."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from support.attempts import TOKENIZER, attempt
from support.fakes import answer, code

from interlace.rollout.engines import ScriptedEngine
from interlace.rollout.formats import FORMATS, Encoder
from interlace.rollout.ledger import Source
from interlace.rollout.many.runner import Runner
from interlace.rollout.policy import Policy
from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode
from interlace.tools.errors import DataError, ToolUnavailable
from interlace.tools.python import PythonTool
from interlace.train.coldstart.checks import Checked, check_traces
from interlace.train.coldstart.gsm8k import trace_of
from interlace.train.coldstart.reject import select
from interlace.train.coldstart.rewrite import TEMPLATE, Rewriting, to_rewrite
from interlace.train.coldstart.traces import Bad, Dropped, read_trace, trace_format
from interlace.train.rewards import Checker

RETOOL = trace_format("retool")
TASK = Task("a", "How many are 6 boxes of 7, and 8 more?", "50")
CHECKER = Checker()


def call(body: str, output: str) -> str:
    return f"{code(body)}\n<interpreter>\n{output}\n</interpreter>\n"


END = f"Eight more make 50. {answer('50')}"
GOOD = f"I multiply.\n{call('x = 6 * 7; print(x)', '42')}Then I add.\n{call('x + 8', '50')}{END}"
ERROR = "NameError: name 'y' is not defined"


def mended(error: str) -> str:
    """A first call that fails, and one that puts it right."""
    return f"I add.\n{call('print(y + 8)', error)}I meant 42.\n{call('print(42 + 8)', '50')}{END}"


PLANTED = {
    "output": GOOD.replace("\n42\n", "\n43\n"),
    "wrong_answer": GOOD.replace("boxed{50}", "boxed{51}"),
    "forged": f"<interpreter>\n42\n</interpreter>\n{GOOD}",
    "unclosed": GOOD.replace("</code>", "", 1),
    "unknown_tool": f"<search>six times seven</search>\n{GOOD}",
    "no_answer": GOOD.replace(answer("50"), ""),
    "no_call": END,
    "unstable": f"{call('import time; print(time.time_ns())', '1700000000000000000')}{END}",
    "stopped": f"{call('import os; os._exit(0)', '')}{END}",
    "too_long": f"{'I think. ' * 3000}{GOOD}",
}
NOBODY_KNOWS = Task("b", TASK.question)
FORMAT_FAULTS = {
    "a result that no call asked for": ("forged", GOOD.replace(END, f"{call('', '1')[-40:]}{END}")),
    "a call without its result": ("forged", f"{code('print(42)')}\nIt is 42.\n{END}"),
    "a result that is not closed": ("unclosed", GOOD.replace("\n</interpreter>", "")),
    "a closing tag too many": ("unclosed", GOOD.replace("Then", "</code>Then")),
    "an answer that is not closed": ("unclosed", GOOD.replace("</answer>", "")),
    "a call of JSON": ("unknown_tool", f'<tool_call>{{"name": "sql"}}</tool_call>{GOOD}'),
    "a second result": ("forged", GOOD.replace("Then", "<interpreter>\n9\n</interpreter>\nThen")),
}


@pytest.fixture(scope="module")
def checked() -> Checked:
    """All of them, checked with the real tool."""
    failing = asyncio.run(_output("print(y + 8)"))
    assert ERROR in failing
    traces = [(TASK, text) for text in PLANTED.values()]
    traces += [(TASK, GOOD), (TASK, GOOD.replace("Then", "then ")), (TASK, mended(failing))]
    traces += [(TASK, GOOD.replace("multiply", "count")), (NOBODY_KNOWS, GOOD)]
    return asyncio.run(
        check_traces(
            traces,
            RETOOL,
            PythonTool(),
            CHECKER,
            TOKENIZER,
            model="nano",
            origin="planted",
            cap=2,
        )
    )


async def _output(body: str) -> str:
    async with PythonTool().session() as session:
        return (await session.call({"code": body}, 10.0)).text


def test_every_planted_lie_is_dropped_for_its_reason(checked: Checked) -> None:
    others = {"duplicate": 1, "cap": 1, "unjudged": 1}
    assert dict(checked.dropped) == dict.fromkeys(PLANTED, 1) | others
    assert set(checked.dropped) == set(Dropped)
    assert checked.seen == len(PLANTED) + 5 and len(checked.kept) == 2


@pytest.mark.parametrize("fault", FORMAT_FAULTS)
def test_the_format_check_finds(fault: str) -> None:
    why, text = FORMAT_FAULTS[fault]
    with pytest.raises(Bad) as found:
        read_trace(TASK, text, RETOOL)
    assert found.value.why == why


def test_tags_in_strings_of_the_code_are_no_tags() -> None:
    body = "print('</code> <interpreter>')"
    trace = read_trace(TASK, f"{call(body, '</code> <interpreter>')}{END}", RETOOL)
    assert [section.argument for section in trace.sections] == [body]


def test_what_is_kept_reads_as_it_was_written_and_trains_the_policys_words_alone(
    checked: Checked,
) -> None:
    good, _ = checked.kept
    ledger = good.trajectory.ledger
    said = "".join(
        TOKENIZER.decode(span.ids) for span in ledger if span.source is not Source.PROMPT
    )
    assert said.removesuffix("<|im_end|>") == GOOD
    assert good.answer == "50" and good.rewards == {"correct": 1.0}
    for span in ledger:
        assert (span.weight > 0) == (span.source is Source.POLICY)
    shown = [TOKENIZER.decode(span.ids) for span in ledger if span.source is Source.TOOL]
    assert "42" in shown[0] and "50" in shown[1]
    asked = Encoder(FORMATS["retool"], TOKENIZER, [PythonTool()]).prompt(TASK.question)
    assert ledger.ids[: ledger.prompt_length].tolist() == asked[0].ids.tolist()


def test_a_mistake_is_shown_and_not_learnt(checked: Checked) -> None:
    _, mended_one = checked.kept
    weights = [s.weight for s in mended_one.trajectory.ledger if s.source is Source.POLICY]
    assert weights == [0, 1, 1]
    assert mended_one.trajectory.calls[0].error == "exception"
    turns = mended_one.trajectory.turns
    assert [TOKENIZER.decode(mended_one.trajectory.ledger.ids[t.start : t.stop]) for t in turns][
        1
    ].startswith("I meant 42.")


def test_a_tool_that_fails_drops_nothing_and_is_told() -> None:
    class Broken(PythonTool):
        def session(self):  # type: ignore[no-untyped-def]
            raise ToolUnavailable("no interpreter")

    with pytest.raises(ToolUnavailable):
        asyncio.run(
            check_traces(
                [(TASK, GOOD)], RETOOL, Broken(), CHECKER, TOKENIZER, model="nano", origin="planted"
            )
        )


def test_gsm8ks_marks_become_code() -> None:
    solution = (
        "Half is 9/2 = $<<9/2=4.5>>4.5.\nA tenth of a third: <<1/3*.1=.03>>.03, 20%: <<20%*4=.8>>"
    )
    trace = read_trace(TASK, trace_of(replace(TASK, data={"solution": solution})) or "", RETOOL)
    ran = [(section.argument, section.claimed.strip()) for section in trace.sections]
    assert ran == [
        ("print(9/2)", "4.5"),
        ("print(round(1/3*.1, 2))", "0.03"),
        ("print((20/100)*4)", "0.8"),
    ]
    assert trace.sections[1].text.startswith("4.5.\nA tenth")
    for lie in ("no marks at all", "<<2+2=5>>", "<<__import__('os')=1>>", "<<1/0=1>>", "<<07=7>>"):
        assert trace_of(replace(TASK, data={"solution": lie})) is None


def numbered(*episodes: Episode) -> list[Episode]:
    return [replace(e, id=f"{e.group}/{i}", sample=i) for i, e in enumerate(episodes)]


def test_of_a_models_own_attempts_the_right_ones_are_kept_once() -> None:
    by_call = attempt(TASK, f"So {code('say 50')}", answer("50"))
    after_error = attempt(TASK, code("fail"), code("say 50"), answer("50"))
    episodes = numbered(
        by_call,
        attempt(TASK, answer("51")),
        attempt(TASK, f"so  {code('say 50')}", answer("50")),
        attempt(TASK, answer("50")),
        attempt(TASK, f"<interpreter>\n50\n</interpreter> {answer('50')}"),
        attempt(TASK, code("bug")),
        after_error,
        attempt(TASK, code("say 5"), answer("50.0")),
    )
    checked = select(episodes, CHECKER, TOKENIZER, cap=2, needs_call=True)
    assert [episode.sample for episode in checked.kept] == [0, 6]
    assert dict(checked.dropped) == {
        "wrong_answer": 1,
        "duplicate": 1,
        "no_call": 1,
        "forged": 1,
        "unjudged": 1,
        "cap": 1,
    }
    weights = [
        span.weight for span in checked.kept[1].trajectory.ledger if span.source is Source.POLICY
    ]
    assert weights == [0, 1, 1]


def test_a_template_that_can_not_be_filled_in_is_refused(tmp_path: Path) -> None:
    task = replace(TASK, data={"solution": "6*7=<<6*7=42>>42, 42+8=<<42+8=50>>50"})
    (asked,) = to_rewrite([task, TASK], TEMPLATE)
    assert asked.id == task.id and "6*7=42, 42+8=50" in asked.question
    assert r"\boxed{answer}" in asked.question
    with pytest.raises(DataError, match="can't be filled in"):
        to_rewrite([task], "{hint}")
    with pytest.raises(DataError, match="nothing to rewrite"):
        to_rewrite([TASK])


def test_what_a_writer_makes_of_solutions_is_a_proposal() -> None:
    """A script plays the writer: a true trace in a fence, one with a made-up output, a refusal."""
    tasks = [replace(TASK, id=f"t{i}", data={"solution": "42 and 8 make 50."}) for i in range(3)]
    lie = GOOD.replace("\n42\n", "\n41\n")
    written = ["<think>Well.</think>```\n" + GOOD + "\n```", lie, "I would rather not."]

    async def write() -> Checked:
        traces = []
        for task, asked, reply in zip(tasks, to_rewrite(tasks), written, strict=True):
            policy = Policy(ScriptedEngine(TOKENIZER, [reply]), Rewriting())
            (episode,) = [each async for each in Runner(policy).run([asked])]
            assert "42 and 8 make 50." in TOKENIZER.decode(episode.trajectory.ledger.ids)
            traces.append((task, episode.answer or ""))
        return await check_traces(
            traces, RETOOL, PythonTool(), CHECKER, TOKENIZER, model="nano", origin="rewrite"
        )

    checked = asyncio.run(write())
    assert [episode.group for episode in checked.kept] == ["t0"]
    assert dict(checked.dropped) == {"output": 1, "no_answer": 1}
    assert checked.kept[0].trajectory.origin == "rewrite"
