"""`interlace conversations`: what was said, to be read again, resumed or forgotten."""

import json as jsonlib
import re
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ....rollout.episode_log import EpisodeLog
from ....rollout.events import CallFinished, CallStarted
from ....tools.errors import UsageError
from ....tools.files import write_whole
from ...conversations import Conversations, Saved, Summary
from ..exits import print_json
from ..render.live_view import LiveView
from ..render.pager import paged
from ..render.rows import print_rows

__all__ = [
    "delete_conversations",
    "export_conversation",
    "list_conversations",
    "search_conversations",
    "show_conversation",
]


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


def search_conversations(words: list[str], *, json: bool) -> None:
    """Print a line for each question that holds the words, itself or in its answer."""
    found = Conversations().search(" ".join(words))
    if json:
        print_json({"found": [asdict(one) for one in found], "error": None})
    elif found:
        rows = [(one.id, _when(one.updated), one.question, one.answer or "") for one in found]
        with paged() as console:
            print_rows(console, ("id", "when", "question", "answer"), rows, shorten=True)
    else:
        print("nothing found", file=sys.stderr)


def export_conversation(id: str | None, out: Path, *, json: bool) -> None:
    """Write a conversation to a file that is not there yet. Raises DataError, and UsageError for
    another kind of file.
    """
    store = Conversations()
    saved = store.load(store.find(id))
    if out.exists():
        raise UsageError(f"{out} is there already: name another file")
    if out.suffix == ".jsonl":
        with EpisodeLog(out) as log:
            log.append(saved.episode)
    elif out.suffix in (".md", ".json"):
        whole = _whole(saved)
        text = jsonlib.dumps(whole, indent=1, ensure_ascii=False) + "\n"
        write_whole(out, _markdown(whole) if out.suffix == ".md" else text)
    else:
        raise UsageError(f"{out}: end the name in .md, .json or .jsonl")
    if json:
        print_json({"exported": saved.episode.id, "out": str(out), "error": None})
    else:
        print(f"{saved.episode.id} in {out}", file=sys.stderr)


def _markdown(whole: dict[str, Any]) -> str:
    """A conversation as Markdown; what a model or a tool wrote can't end its fence."""
    parts = [f"# {whole['id']}: {whole['model']}"]
    for one in whole["questions"]:
        parts.append(f"## {' '.join(one['question'].split())}")
        for call in one["calls"]:
            arguments = call["arguments"] or {}
            code = arguments.get("code", arguments.get("query"))
            shown = code if isinstance(code, str) else jsonlib.dumps(arguments, ensure_ascii=False)
            parts += [_fenced(shown, call["tool"]), _fenced(call["output"])]
        parts.append(one["answer"] or f"({one['stop'] or 'broken off'})")
    return "\n\n".join(parts) + "\n"


def _fenced(text: str, language: str = "") -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    language = re.sub(r"[^\w-]", "", language)  # the model may have made it up
    return f"{fence}{language}\n{text}\n{fence}"


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
    rows = [
        (
            one.id,
            _when(one.updated),
            one.model,
            str(one.questions),
            one.title,
        )
        for one in kept
    ]
    heads = ("id", "when", "model", "asked", "begins with")
    with paged() as console:
        print_rows(console, heads, rows, right=("asked",), shorten=True)


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


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
