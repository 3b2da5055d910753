"""`interlace conversations`: what was said, to be read again, resumed or forgotten."""

import sys
import time
from typing import Any

from rich.table import Table

from ....rollout.events import CallFinished, CallStarted
from ...conversations import Conversations, Saved, Summary
from ..exits import print_json
from ..render.live_view import LiveView
from ..render.pager import paged
from ..render.terminal import printable

__all__ = ["delete_conversations", "list_conversations", "show_conversation"]


def list_conversations(*, json: bool) -> None:
    """Print a line for each conversation that was kept."""
    kept = Conversations().all()
    if json:
        print_json({"conversations": [_as_json(one) for one in kept], "error": None})
    elif kept:
        _print_list(kept)
    else:
        print("no conversation yet: `interlace chat` begins one", file=sys.stderr)


def show_conversation(id: str | None, *, json: bool) -> None:
    """Print one conversation. Raises DataError if there is none with that id."""
    store = Conversations()
    saved = store.load(store.find(id))
    if json:
        print_json({"conversation": _whole(saved), "error": None})
    else:
        _print(saved)


def delete_conversations(ids: list[str], *, json: bool) -> None:
    """Delete conversations: all of them, or, if one is not found, none (DataError)."""
    store = Conversations()
    found = [store.find(id) for id in ids]
    for id in found:
        store.delete(id)
    if json:
        print_json({"deleted": found, "error": None})


def _as_json(one: Summary) -> dict[str, Any]:
    return {
        "id": one.id,
        "title": one.title,
        "model": one.model,
        "format": one.format,
        "tools": list(one.tools),
        "started": one.started,
        "updated": one.updated,
        "questions": one.questions,
    }


def _print_list(kept: list[Summary]) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for head in ("id", "when", "model", "asked", "begins with"):
        last = head == "begins with"
        table.add_column(head, no_wrap=True, overflow="ellipsis", ratio=1 if last else None)
    for one in kept:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.updated))
        title = printable(" ".join(one.title.split()))
        table.add_row(one.id, when, printable(one.model), str(one.questions), title)
    with paged() as console:
        console.print(table, markup=False)


def _turns(saved: Saved) -> list[list[Any]]:
    """The calls of each question."""
    turns, asked = saved.episode.trajectory.turns, saved.asked
    ends = [one.mark.turns for one in asked[1:]] + [len(turns)]
    return [
        [call for turn in turns[one.mark.turns : end] for call in turn.calls]
        for one, end in zip(asked, ends, strict=True)
    ]


def _whole(saved: Saved) -> dict[str, Any]:
    return {
        "id": saved.episode.id,
        "model": saved.episode.trajectory.model,
        "format": saved.episode.trajectory.format,
        "questions": [
            {
                "question": one.question,
                "calls": [
                    {"tool": call.tool, "arguments": call.arguments, "output": call.output}
                    for call in calls
                ],
                "answer": one.answer,
                "stop": one.stop,
            }
            for one, calls in zip(saved.asked, _turns(saved), strict=True)
        ],
    }


def _print(saved: Saved) -> None:
    with paged() as console:
        screen = LiveView(console)
        for one, calls in zip(saved.asked, _turns(saved), strict=True):
            screen.say(f"> {one.question}", "dim")
            for call in calls:
                screen.show(CallStarted(call.tool, call.arguments or {}))
                screen.show(CallFinished(call))
            answered = one.answer is not None
            screen.say(
                one.answer or f"[{one.stop or 'broken off'}]", "answer" if answered else "notice"
            )
            screen.gap()
