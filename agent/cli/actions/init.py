"""`interlace init`: a folder to begin with."""

from contextlib import suppress
from pathlib import Path

from ....tools.errors import DataError, UsageError
from ....tools.files import write_error, write_whole
from ..exits import eprint, print_json

__all__ = ["FILES", "write_starter_files"]

FILES = {
    "agent.py": '''"""An agent of your own: a model, tools, and what it may use."""

from interlace import Agent, Approval, Budget

QUESTION = "A crate holds 4387 bolts. How many bolts are in 296 crates?"

# Offer functions of your own as tools: Agent("Qwen/Qwen3-0.6B", tools=["python", my_function]).
with Agent(
    "nano",
    tools=["python"],
    budget=Budget(tokens=20_000, calls=50, seconds=300),
    approve=Approval(r"deny python \\bsubprocess\\b", "allow"),
) as agent:
    result = agent.run_sync(QUESTION)

print(result.answer, f"({result.stop}, {result.usage.calls} call)")
''',
    "tasks.jsonl": """\
{"id": "bolts", "question": "A crate holds 43 bolts. How many bolts are in 29 crates?", \
"answer": "1247"}
{"id": "nails", "question": "A box holds 25 nails. How many nails are in 312 boxes?", \
"answer": "7800"}
""",
    "approve.txt": """\
# Which calls are run: the first rule that fits decides; where none does, you are asked.
# allow, ask or deny; then a tool; then a regular expression for its arguments.
deny python \\bsubprocess\\b
allow sql
allow search
ask
""",
}
_NEXT = """\
{folder}: {files}. Next:
  python {folder}/agent.py
  interlace chat --approve {folder}/approve.txt
  interlace rollout {folder}/tasks.jsonl --n 4 --out {folder}/t.jsonl"""


def write_starter_files(folder: Path, *, json: bool) -> None:
    """Write `FILES` into a folder. Raises UsageError if one exists, DataError if it can't."""
    there = [name for name in FILES if (folder / name).exists()]
    if there:
        raise UsageError(f"{folder} has a file {there[0]} already: name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        for name, text in FILES.items():
            write_whole(folder / name, text)
    except DataError:
        for name in FILES:  # none of them was there before
            with suppress(OSError):
                (folder / name).unlink()
        raise
    if json:
        print_json({"files": [str(folder / name) for name in FILES], "error": None})
    else:
        eprint(_NEXT.format(folder=folder, files=", ".join(FILES)))
