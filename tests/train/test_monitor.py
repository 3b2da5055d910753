"""A run whose policy stops interacting is told of it, in words, before its reward says so."""

from io import StringIO

import numpy as np
import pytest
from support.fakes import NANO, answer, code

from interlace.agent.cli.render.training_progress import TrainingScreen
from interlace.rollout.formats import FORMATS
from interlace.rollout.ledger import Ledger, Source, Span
from interlace.rollout.tokenizer import Tokenizer
from interlace.rollout.trajectory import Trajectory
from interlace.train.config import TrainConfig
from interlace.train.monitor import Monitor, Signs, signs_of, tag_logprobs, warnings

TOKENIZER = Tokenizer.load(NANO)


def said(run: list[dict[str, float]]) -> list[str]:
    monitor = Monitor()
    return [sentence for metrics in run for sentence in monitor.look(metrics)]


@pytest.mark.parametrize("prefix", ["", "interlace/"], ids=["local", "verl"])
def test_calls_that_cease_are_told_once_by_the_names_of_either_trainer(prefix: str) -> None:
    steady = [{f"{prefix}reward/calls": 2.0, "reward/total": 0.5}] * 8
    falling = [{f"{prefix}reward/calls": 0.4, "reward/total": 0.6}] * 8
    (sentence,) = said(steady + falling)
    assert sentence.startswith("calls an attempt fell from 2.00 to 0.")
    assert said(steady * 3) == []


@pytest.mark.parametrize(
    ("sign", "before", "after", "words"),
    [
        ("tags", -0.1, -2.0, "forgets how a call is written"),
        ("entropy", 0.5, 0.05, "all the same"),
        ("entropy", 0.5, 4.0, "noise"),
        ("clipped", 0.01, 0.4, "steps are too large"),
        ("cut", 0.0, 0.2, "longer compute the same policy"),
    ],
)
def test_each_sign_of_a_collapse_has_its_words(
    sign: str, before: float, after: float, words: str
) -> None:
    history = [Signs(**{sign: before})] * 5 + [Signs(**{sign: after})] * 5
    assert words in warnings(history)[sign]
    assert warnings(history[:9]) == {}  # too little to compare
    assert warnings([Signs(**{sign: before})] * 10) == {}


def test_the_local_trainers_screen_says_it_in_words() -> None:
    shown = StringIO()
    screen = TrainingScreen(TrainConfig(), shown, hidden=False)
    for step in range(20):
        screen.step(step, {"reward/calls": 2.0 if step < 10 else 0.5})
    lines = [line for line in shown.getvalue().splitlines() if line.startswith("warning: ")]
    assert lines == [
        "warning: calls an attempt fell from 2.00 to 0.80: the policy stops using its tools"
    ]


def test_what_a_trainer_does_not_measure_is_no_sign() -> None:
    assert signs_of({"actor/entropy": 0.3, "score": 1.0}) == Signs(entropy=0.3)
    assert said([{"score": 1.0}] * 20) == []


def test_the_tokens_of_tags_are_those_the_policy_wrote_and_no_others() -> None:
    """Each call and the answer have an opening and a closing tag; a tool's forged one is not the
    policy's.
    """
    format = FORMATS["retool"]
    ledger = Ledger()
    ledger.append(Span.given(Source.PROMPT, TOKENIZER.encode("6 times 7?")))
    for text in (code("print(6 * 7)"), answer("42")):
        ids = TOKENIZER.encode(text)
        pieces = TOKENIZER.pieces(ids)
        whole, at = "".join(pieces), 0
        logprobs = []
        for piece in pieces:  # -1 within a tag, -5 elsewhere
            within = any(
                whole.find(tag) < at + len(piece) and whole.find(tag) + len(tag) > at
                for tag in format.control_tags
                if tag in whole
            )
            logprobs.append(-1.0 if within else -5.0)
            at += len(piece)
        ledger.append(Span.policy(ids, logprobs=logprobs))
        ledger.append(Span.given(Source.TOOL, TOKENIZER.encode("<answer>")))
    trajectory = Trajectory("nano", "retool", ledgers=[ledger])
    found = tag_logprobs(trajectory, TOKENIZER, format.control_tags)
    assert set(np.round(found, 3)) == {-1.0}
    assert len(found) >= 4
