"""The nano policy's model card: words that stay, and sections that are measured."""

import re
from pathlib import Path

from interlace.tools.errors import DataError
from interlace.tools.files import write_whole

__all__ = ["CARD", "write_section"]

CARD = r"""---
license: apache-2.0
library_name: transformers
tags: [tool-use, demonstration]
---

# The nano policy

A language model of __PARAMETERS__ parameters that ships with interlace, so that everything runs
for real with nothing to download: it thinks, calls a tool, reads the result and answers. **It
knows three kinds of tasks and nothing else.** Asked anything else, it writes nonsense in the same
form.

- **arithmetic**, with the tool `python`, in the formats `retool` and `hermes`: short English word
  problems and bare expressions with whole numbers of up to five digits;
- **database**, with `sql`, in `reex_sql` and `hermes`: counts, sums and maxima over small tables
  whose spellings, codes and units have to be looked up first;
- **lookup**, with `search`, in `search_r1` and `hermes`: one fact, or two of which one leads to the
  other, in a corpus about people and places that do not exist.

How it is built:

- Architecture: Qwen3 (4 layers, width 192, 6 query and 2 key-value heads of 32, tied
  embeddings), float32, an ordinary Hugging Face checkpoint.
- Tokenizer: byte-level BPE of 1024 tokens, each digit by itself; tags such as `</code>` are
  several tokens, as in real vocabularies; control tokens are `<|im_start|>`, `<|im_end|>`,
  `<|endoftext|>`.
- Its system prompts must be those it was trained on: it follows no instructions. In `hermes` it may
  be offered one tool or all three.

## How it was made

`make nano` (`python -m studies.nano`) makes it from a seed, on a CPU:

1. Problems are drawn from templates (`train/data/generators/`); test problems differ from those of
   training: in arithmetic by their numbers (but for sums of two digits, which one knows by heart),
   in databases by the question, the database being drawn anew each time, in look-ups by the corpus
   with all its names. Some kinds of each family are held out altogether.
2. Demonstrations (`train/coldstart/`): every call is run by the tool. In arithmetic, 12 % of first
   attempts fail and are put right (the failed part carries no loss); 5 % of conversations offer no
   tool, and 2 % of solutions meet a tool that is out of order: there the target is the right
   answer, worked out by nobody, so what it says then is its own guess.
3. **Up to a quarter of what tools show in training is not what the problem's own tool would
   say, and the answers follow what is shown**: other numbers in arithmetic, in the others another
   database or corpus than the prompt was made for. So reading the answer off the tool is taught,
   not found out by the policy. Problems that need no tool are answered directly (in arithmetic in
   nine demonstrations of ten).
4. Supervised fine-tuning (`train/local/sft.py`) on the policy's own tokens: first on drills
   (single problems, no system prompt, nothing that fails), then on conversations of one to six
   questions, a fifth of those in `hermes` with all tools at once. In short contexts digits were
   copied rightly after five minutes of training; on conversations from the start, not after twenty.
   Copying names and spellings out of results takes longest: practice, in two rounds, shows the
   families equally often, and took the right answers of `database` and `lookup` from under 60 % to
   80 % and then over 90 %. Sums of two digits, which it has to know by heart, are polished last.

<!-- training -->
<!-- /training -->

## What it can do

Greedy answers through the same loop that serves people. "Trained kinds" are unseen problems of the
kinds it was trained on. "Held-out kinds" are word problems in stories it has never seen (two
of them combine operations in a way no training story does), databases about things it has never
seen, and pairs of facts that training never put together. In `reex_sql` an answer is a query, and
right where its rows are those of the gold query.

<!-- accuracy -->
<!-- /accuracy -->

Made by `python -m studies.nano.accuracy --problems 300 --write`.

## Is it the tool that does it?

The tool's results are changed on their way to the policy. Where the answer needs the tool, it
follows what the tool says; where it needs none, the policy mostly makes no call, and nothing
changes. "Wrong results" are other numbers in arithmetic; in the other families the tool is put on
another database or corpus, in which the same question has another answer (the prompt still tells
of the first one). "Another problem's results" are those of a random problem; what they imply
can't always be said. The error is one it never saw in training. Where a database follows less than
the rest, the reason is mostly this: the other database stores the very unit of the question, and
the policy converts all the same.

<!-- interventions -->
<!-- /interventions -->

Made by `python -m studies.nano.interventions --problems 60 --write`.
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
    write_whole(card, after)
