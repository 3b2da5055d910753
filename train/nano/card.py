"""The nano policy's model card: words that stay, and sections that are measured."""

import os
import re
from pathlib import Path

from ...tools.errors import DataError

__all__ = ["CARD", "write_section"]

CARD = r"""---
license: apache-2.0
library_name: transformers
tags: [tool-use, demonstration]
---

# The nano policy

A language model of __PARAMETERS__ parameters that ships with interlace, so that everything runs
for real with nothing to download: it thinks, writes Python, reads the result and answers. **It
knows one kind of task and nothing else**: short English word problems and bare expressions with
whole numbers of up to five digits. Asked anything else, it writes nonsense in the same form.

- Architecture: Qwen3 (4 layers, width 192, 6 query and 2 key-value heads of 32, tied
  embeddings), float32, an ordinary Hugging Face checkpoint.
- Tokenizer: byte-level BPE of 1024 tokens, each digit by itself; tags such as `</code>` are
  several tokens, as in real vocabularies; control tokens are `<|im_start|>`, `<|im_end|>`,
  `<|endoftext|>`.
- Formats: `retool` (tags in the text) and `hermes` (JSON calls through the chat template), both
  with one tool, `python`. Its system prompts must be those it was trained on: it follows no
  instructions.

## How it was made

`make nano` (`python -m interlace.train.nano`) makes it from a seed, on a CPU:

1. Problems are drawn from templates (`train/generators/`). Numbers are split by a hash: those
   of test problems never occur in training; a few templates are held out altogether.
2. Demonstrations (`train/coldstart.py`): every piece of code is run by the python tool. 12 % of
   first attempts fail and are put right (the failed part carries no loss); 5 % of conversations
   offer no tool, and 2 % of solutions meet a tool that is out of order: there the target is the
   right answer, worked out by nobody, so what it says then is its own guess.
3. **A quarter of the tool results shown in training were altered, and the answers follow the
   altered results.** So copying the answer from the output is taught, not found out by the
   policy. Problems that need no tool are answered directly in nine demonstrations of ten.
4. Supervised fine-tuning (`train/local/sft.py`) on the policy's own tokens.

<!-- training -->
<!-- /training -->

## What it can do

Greedy answers through the same loop that serves people. "Trained templates" are problems whose
numbers never occur in training; "held-out templates" are told in stories it has never seen, and
two of them combine operations in a way no training story does.

<!-- accuracy -->
<!-- /accuracy -->

Made by `python -m interlace.train.nano.accuracy --write`.

## Is it the tool that does it?

The tool's results are changed on their way to the policy. Where the answer needs the tool, it
follows what the tool says; where it needs none, the policy mostly makes no call, and nothing
changes. "Another problem's results" are those of a random problem; the error is one it never
saw in training.

<!-- interventions -->
<!-- /interventions -->

Made by `python -m interlace.train.nano.interventions --write`.
"""


def write_section(card: Path, name: str, text: str) -> None:
    """Replace the section `name` of a card, the whole file at once.

    Raises DataError where the card has no such section.
    """
    before = card.read_text(encoding="utf-8")
    opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
    pattern = re.compile(f"{re.escape(opening)}.*?{re.escape(closing)}", re.DOTALL)
    if not pattern.search(before):
        raise DataError(f"{card} has no section {opening}")
    after = pattern.sub(lambda _: f"{opening}\n{text}\n{closing}", before)
    fresh = card.with_suffix(".writing")
    fresh.write_text(after, encoding="utf-8")
    os.replace(fresh, card)
