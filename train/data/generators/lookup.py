"""Questions over a small corpus of made-up facts: what is found first says what to look for next.

Nobody can know the answers: people, towns and rivers are invented, and every corpus invents others.
Every task follows from (seed, split, index) alone, and its corpus from the task's `data`.
"""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ....rollout.task import Task, equal_answers
from ....tools.files import write_whole
from ....tools.search import Passage
from .endless import EndlessTasks

__all__ = ["LEVELS", "Lookups", "check", "passages", "twin", "write_corpus"]

LEVELS = (0, 1, 2)
PER_CORPUS = 25
"""Questions that are asked of one corpus before the next one is drawn."""
PEOPLE, TOWNS, BOOKS, MUSEUMS = 16, 8, 8, 6


@dataclass(frozen=True, slots=True)
class Relation:
    """A fact that passages about one `kind` of thing state.

    `passages`: how the passage says it. `question`: how one asks for it. `of`: how a longer
    question names what it gives. `gives`: the kind of thing it gives, where that has a passage.
    """

    name: str
    kind: str
    gives: str | None
    passages: tuple[str, ...]
    question: str
    of: str = ""


RELATIONS = (
    Relation(
        "born",
        "person",
        "town",
        ("{0} was born in {1}.", "{0} comes from the town of {1}."),
        "In which town was {0} born?",
        "the town where {0} was born",
    ),
    Relation(
        "job",
        "person",
        None,
        ("{0} works as a {1}.", "{0} earns a living as a {1}."),
        "What does {0} work as?",
    ),
    Relation(
        "river",
        "town",
        None,
        ("{0} lies on the river {1}.", "The river {1} flows through {0}."),
        "On which river does {0} lie?",
    ),
    Relation(
        "mayor",
        "town",
        None,
        ("The mayor of {0} is {1}.", "{1} is the mayor of {0}."),
        "Who is the mayor of {0}?",
    ),
    Relation(
        "founded",
        "town",
        None,
        ("{0} was founded in {1}.", "The town of {0} goes back to {1}."),
        "In which year was {0} founded?",
    ),
    Relation(
        "author",
        "book",
        "person",
        ("The book {0} was written by {1}.", "{1} is the author of the book {0}."),
        "Who wrote the book {0}?",
        "the author of the book {0}",
    ),
    Relation(
        "stands",
        "museum",
        "town",
        ("The museum {0} stands in {1}.", "Visitors find the museum {0} in {1}."),
        "In which town does the museum {0} stand?",
        "the town where the museum {0} stands",
    ),
)
JOBS = ("baker", "pilot", "painter", "doctor", "teacher", "farmer", "singer", "sailor", "lawyer")
HELD_OUT = {("author", "job"), ("stands", "mayor"), ("born", "founded")}
"""Pairs of hops that are never trained on, though each hop is."""
_BY_NAME = {relation.name: relation for relation in RELATIONS}
_CHAINS = [
    (first.name, second.name)
    for first in RELATIONS
    for second in RELATIONS
    if first.gives == second.kind
]


@dataclass(frozen=True, slots=True)
class Lookups(EndlessTasks):
    """A source of tasks.

    `split`: `train`, `test` (trained kinds of questions, over corpora of their own) or `held_out`
    (two hops that are never trained on together). `levels`: the searches a question takes; one of
    level 0 says itself what it asks for. `corpus`: all questions are about this one (a task's
    `data["corpus"]`).

    A task's `data` holds `steps` (what to search for), `facts` (what each search finds),
    `relations`, `level`, `template`, `split`, `needs_tool`, and `corpus`, from which `passages`
    and `write_corpus` make it.

    Example:
        >>> task = Lookups(seed=1, split="test", levels=(2,))[0]
        >>> len(task.data["steps"]), check(task, task.answer)
        (2, True)
    """

    levels: tuple[int, ...] = LEVELS
    corpus: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuse settings from which no task can be drawn."""
        EndlessTasks.__post_init__(self)
        if not self.levels or not set(self.levels) <= set(LEVELS):
            raise ValueError(f"levels must be of {LEVELS}, not {self.levels!r}")
        if self.split == "held_out" and 2 not in self.levels:
            raise ValueError("held-out questions have level 2")

    def __getitem__(self, index: int) -> Task:
        """Task number `index`, without drawing those before it."""
        rng = random.Random(f"lookup {self.seed} {self.split} {index}")
        corpus = self.corpus
        if corpus is None:
            name = f"{self.split} {self.seed} {index // PER_CORPUS}"
            corpus = {"names": name, "facts": 0}
        level = 2 if self.split == "held_out" else rng.choice(self.levels)
        relations: tuple[str, ...]
        if level == 2:
            held_out = self.split == "held_out"
            relations = rng.choice([c for c in _CHAINS if (c in HELD_OUT) == held_out])
        else:
            relations = (rng.choice(RELATIONS).name,)
        made = _Corpus(**corpus)
        start = rng.choice(made.things[_BY_NAME[relations[0]].kind])
        data = {"level": level, "split": self.split, "told": rng.randrange(2)}
        return _task(f"lookup-{self.split}-{self.seed}-{index}", made, relations, start, data)


def twin(task: Task) -> Task:
    """The same question over a corpus with the same names and other facts.

    Every fact on the way to the answer is another one, and so is the answer, but where the question
    says itself what it asks for.
    """
    data = task.data
    if not data["needs_tool"]:
        corpus = data["corpus"] | {"facts": data["corpus"]["facts"] + 1}
        return replace(task, id=f"{task.id}-twin", data=data | {"corpus": corpus})
    kept = {name: data[name] for name in ("level", "split", "told")}
    relations = tuple(data["relations"])
    for facts in range(1, 100):
        made = _Corpus(data["corpus"]["names"], data["corpus"]["facts"] + facts)
        other = _task(f"{task.id}-twin", made, relations, data["steps"][0], dict(kept))
        if all(a != b for a, b in zip(other.data["facts"], data["facts"], strict=True)):
            return other
    raise AssertionError(f"no other facts for {task.id}")


def passages(corpus: Mapping[str, Any]) -> list[Passage]:
    """All passages of a task's `data["corpus"]`."""
    return _Corpus(**corpus).passages()


def write_corpus(corpus: Mapping[str, Any], file: Path) -> Path:
    """Write a task's corpus as JSONL, one passage a line, for a `SearchTool`; the file."""
    lines = [
        json.dumps({"id": each.id, "title": each.title, "text": each.text})
        for each in passages(corpus)
    ]
    write_whole(file, "\n".join(lines) + "\n")
    return file


def check(task: Task, answer: str | None) -> bool:
    """True if `answer` is the task's answer."""
    return answer is not None and task.answer is not None and equal_answers(answer, task.answer)


class _Corpus:
    """The things of one corpus and what is true of them. `facts` numbers what could be true."""

    def __init__(self, names: str, facts: int) -> None:
        self.key = {"names": names, "facts": facts}
        rng = random.Random(f"lookup names {names}")
        taken: set[str] = set()
        self.things = {
            "person": [f"{_name(rng, taken)} {_name(rng, taken)}" for _ in range(PEOPLE)],
            "town": [_name(rng, taken) for _ in range(TOWNS)],
            "book": [f"{_name(rng, taken)} {_name(rng, taken)}" for _ in range(BOOKS)],
            "museum": [_name(rng, taken) for _ in range(MUSEUMS)],
        }
        rng = random.Random(f"lookup facts {names} {facts}")
        self.facts: dict[tuple[str, str], str] = {}
        self.texts: dict[tuple[str, str], str] = {}
        for relation in RELATIONS:
            for thing in self.things[relation.kind]:
                value = self._value(relation, rng, taken)
                self.facts[relation.name, thing] = value
                self.texts[relation.name, thing] = rng.choice(relation.passages).format(
                    thing, value
                )

    def _value(self, relation: Relation, rng: random.Random, taken: set[str]) -> str:
        if relation.gives is not None:
            return rng.choice(self.things[relation.gives])
        if relation.name == "job":
            return rng.choice(JOBS)
        if relation.name == "founded":
            return str(rng.randint(1000, 1999))
        name = _name(rng, taken)
        return f"{name} {_name(rng, taken)}" if relation.name == "mayor" else name

    def passages(self) -> list[Passage]:
        made = []
        for kind, things in self.things.items():
            about = [relation.name for relation in RELATIONS if relation.kind == kind]
            for number, thing in enumerate(things):
                texts = [self.texts[name, thing] for name in about]
                random.Random(thing).shuffle(texts)
                made.append(Passage(f"{kind}-{number + 1}", thing, " ".join(texts)))
        return made


def _task(
    id: str, made: _Corpus, relations: tuple[str, ...], start: str, data: dict[str, Any]
) -> Task:
    steps, facts = [], []
    thing = start
    for name in relations:
        steps.append(thing)
        thing = made.facts[name, thing]
        facts.append(thing)
    first, last = _BY_NAME[relations[0]], _BY_NAME[relations[-1]]
    question = last.question.format(start if len(steps) == 1 else first.of.format(start))
    if data["level"] == 0:
        question = f"{last.passages[data['told']].format(start, thing)} {question}"
        steps = []
    data |= {
        "steps": steps,
        "facts": facts,
        "relations": list(relations),
        "needs_tool": bool(steps),
        "template": "/".join(relations),
        "corpus": made.key,
    }
    return Task(id, question, facts[-1], data)


_BEGINNINGS = "bdfgjhklmnprstvwz"
_CLUSTERS = ("br", "dr", "fl", "gr", "kl", "pr", "sk", "st", "tr")
_ENDINGS = ("", "n", "r", "s", "l", "m", "th")


def _name(rng: random.Random, taken: set[str]) -> str:
    """A name that no other thing of the corpus has."""
    while True:
        sounds = ""
        for _ in range(rng.randint(2, 3)):
            sounds += rng.choice(_CLUSTERS if rng.random() < 0.15 else _BEGINNINGS)
            sounds += rng.choice("aeiou")
        name = (sounds + rng.choice(_ENDINGS)).capitalize()
        if name not in taken:
            taken.add(name)
            return name
