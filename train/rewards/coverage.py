"""Word coverage: which of a task's concepts a text uses, in any inflected form.

CommonGen (arXiv 1911.03705, section 4): coverage is the share of the concepts that are present in
the lemmatized text; of a set of tasks, the mean. A concept is present here if one of its lemmas, as
any part of speech, is one of a word of the text. Of a hyphenated concept one part is enough, as
counted in jincan333/MAS-TTS (`evaluate_dataset.py`); its Porter stems, for which `organ` covers
`organization`, are left out.
"""

import re
from functools import lru_cache

from ...rollout.task import Task
from ...tools.errors import MissingExtra
from .base import Unscored

__all__ = ["covered"]

_MOST = 20_000
"""Characters of a text: a longer one, such as a dump of a dictionary, covers nothing."""
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")  # noqa: RUF001


def covered(task: Task, text: str) -> float:
    """The share of `task.data["concepts"]` that a text covers, from 0 to 1.

    A text of nothing but concepts, which is a list and no sentence, covers none. Raises Unscored
    if the task has no concepts, MissingExtra without lemminflect.
    """
    concepts = task.data.get("concepts")
    if not isinstance(concepts, list | tuple) or not all(map(_WORD.search, map(str, concepts))):
        raise Unscored(f"the task {task.id!r} has no list of words as concepts in its data")
    if not concepts:
        raise Unscored(f"the task {task.id!r} has no concepts")
    if len(text) > _MOST:
        return 0.0
    wanted = [
        frozenset[str]().union(*map(_lemmas, _WORD.findall(str(concept).casefold())))
        for concept in concepts
    ]
    used = [_lemmas(word) for word in set(_WORD.findall(text.casefold()))]
    every = frozenset[str]().union(*wanted)
    if all(lemmas & every for lemmas in used):
        return 0.0
    lemmas_used = frozenset[str]().union(*used)
    return sum(bool(lemmas & lemmas_used) for lemmas in wanted) / len(wanted)


@lru_cache(maxsize=50_000)
def _lemmas(word: str) -> frozenset[str]:
    try:
        import lemminflect
    except ImportError as error:
        raise MissingExtra("word coverage", "words") from error
    known = lemminflect.getAllLemmas(word[:40])
    return frozenset({word, *(lemma.casefold() for lemmas in known.values() for lemma in lemmas)})
