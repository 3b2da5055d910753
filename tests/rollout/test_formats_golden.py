"""A trajectory of each format on each vocabulary, token by token, against the files in tests/data.

After a change that is meant: INTERLACE_UPDATE_GOLDEN=1 pytest tests/rollout/test_formats_golden.py
and look at the diff. The tokenizers are trained anew in each run; a version of `tokenizers` that
trains otherwise changes the files without any change of ours.
"""

import os
from pathlib import Path

import pytest
from support.toy_tokenizers import VOCABULARIES, tokenizer

from interlace.rollout.formats import FORMATS, Encoder
from interlace.rollout.formats.sample import sample_ledger, sample_tools, spelled
from interlace.rollout.ledger import Source

# Those of chat templates have a test of their own, test_formats_native.py.
NAMES = ["retool", "reex_sql", "search_r1", "hermes", "notebook", "markdown"]
DATA = Path(__file__).parents[1] / "data" / "formats"


def transcript(format: str, vocabulary: str) -> str:
    """A line for each line of text: who wrote it, `*` if it is trained, its tokens."""
    tools = sample_tools(FORMATS[format])
    encoder = Encoder(FORMATS[format], tokenizer(vocabulary), tools)
    ledger = sample_ledger(encoder, tools, notice="1 tool call left")
    lines = [
        f"{span.source.value:<6} {'*' if span.weight else ' '} {line}"
        for span in ledger
        for line in spelled(encoder.tokenizer, span)
    ]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("format", NAMES)
def test_a_trajectory_is_laid_out_as_ever(format: str, vocabulary: str) -> None:
    file = DATA / f"{format}-{vocabulary}.txt"
    now = transcript(format, vocabulary)
    if os.environ.get("INTERLACE_UPDATE_GOLDEN"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(now, encoding="utf-8")
    assert now == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("format", NAMES)
def test_policy_tokens_alone_are_trained_and_the_text_is_whole(
    format: str, vocabulary: str
) -> None:
    tools = sample_tools(FORMATS[format])
    encoder = Encoder(FORMATS[format], tokenizer(vocabulary), tools)
    ledger = sample_ledger(encoder, tools)
    assert all((span.weight > 0) == (span.source is Source.POLICY) for span in ledger)
    parts = "".join(encoder.tokenizer.pieces(ledger.ids))
    assert parts == encoder.tokenizer.decode(ledger.ids)
