"""The page on security claims what a test shows: each row of its table of attacks names tests."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs/security.md").read_text().splitlines()
    if line.startswith("|") and "::test_" in line
]
TIERS = ("full", "confined", "jupyter", "none")
TRIED_BY = {
    "full": r"\b(box|sandbox): Box|\bfull\b|BACKENDS",
    "confined": r"\b(box|sandbox): Box|\bconfined\b|BACKENDS",
    "jupyter": r"\bbox: Box|\bjupyter\b|BACKENDS|_kernel",
    "none": r"isolation=\"none\"|\"none\"\]",
}
"""What in a test's text shows that it runs in a tier: its fixture, or its parameters."""


def source(name: str) -> str:
    """The text of a test, with its decorators; raises `StopIteration` if there is none."""
    file, _, function = name.partition("::")
    folder = "rollout" if file == "test_blame.py" else "tools"
    text = (ROOT / "tests" / folder / file).read_text()
    found = next(
        node
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef) and node.name == function
    )
    first = min([found.lineno, *(each.lineno for each in found.decorator_list)])
    return "\n".join(text.splitlines()[first - 1 : found.end_lineno])


def test_there_is_a_table() -> None:
    assert len(ROWS) > 20 and all(len(row) == 6 for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_each_claim_has_a_test_that_runs_in_its_tiers(row: list[str]) -> None:
    names = re.findall(r"`(test_\w+\.py::test_\w+)`", row[5])
    assert names and row[5] == ", ".join(f"`{name}`" for name in names)
    sources = [source(name) for name in names]
    for tier, said in zip(TIERS, row[1:5], strict=True):
        assert said in ("held", "open", "-")
        tried = any(re.search(TRIED_BY[tier], text) for text in sources)
        assert tried or said != "held", f"no test named here runs in {tier}"
