"""Short answers in words: exact match and F1 after SQuAD's normalisation (arXiv 1606.05250).

Search-R1 (arXiv 2503.09516, section 3.4) rewards the exact match alone.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

__all__ = ["best_f1", "exact_match", "normalized"]

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_VERDICTS = ("yes", "no", "noanswer")


def normalized(text: str) -> str:
    """Lower case, without ASCII punctuation, English articles and extra blanks.

    Where nothing would be left (the band The The, the answer "+"), only case and blanks are
    levelled.

    Example:
        >>> normalized("The  Eiffel-Tower!"), normalized("The The")
        ('eiffeltower', 'the the')
    """
    folded = text.lower()
    short = " ".join(_ARTICLES.sub(" ", folded.translate(_PUNCTUATION)).split())
    return short or " ".join(folded.split())


def exact_match(answer: str, golds: Sequence[str]) -> bool:
    """True if the answer is one of `golds`, both normalised. An empty answer never is."""
    said = normalized(answer)
    return bool(said) and said in map(normalized, golds)


def best_f1(answer: str, golds: Sequence[str]) -> float:
    """The best F1 of the answer's words against any of `golds`, from 0 to 1.

    As in HotpotQA's evaluation, a yes or no that is not the gold answer gets nothing.

    Example:
        >>> best_f1("the tall tower", ["a tower", "spire"])
        0.6666666666666666
    """
    return max((_f1(normalized(answer), normalized(gold)) for gold in golds), default=0.0)


def _f1(answer: str, gold: str) -> float:
    if answer != gold and (answer in _VERDICTS or gold in _VERDICTS):
        return 0.0
    words, wanted = answer.split(), gold.split()
    shared = (Counter(words) & Counter(wanted)).total()
    return 2 * shared / (len(words) + len(wanted)) if shared else 0.0
