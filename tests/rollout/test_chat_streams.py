"""The reader of chat streams: one reply, cut, repeated, reordered and padded in any way."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.servers import delta

from interlace.rollout.engines.http.chat import ChatReply
from interlace.rollout.engines.http.client import DONE
from interlace.rollout.formats import FORMATS
from interlace.rollout.trajectory import FinishReason

Event = Any

USAGE = {"choices": [], "usage": {"prompt_tokens": 31, "completion_tokens": 17}}
PADDING: list[Event] = [
    {"choices": []},
    {"choices": None, "type": "ping"},
    delta(None),
    delta(""),
    delta(None, role="assistant", tool_calls=[]),
    delta(None, tool_calls=None, reasoning_content=None),
    USAGE,
]
"""Events that add nothing, wherever they come."""

words = st.text('ab \n{}"\\é潮\U0001f642', max_size=12)
arguments = st.dictionaries(st.sampled_from("xyz"), st.one_of(words, st.integers()), max_size=2)


@dataclass
class Said:
    """A reply, as its server means it."""

    thought: str
    text: str
    calls: list[tuple[str, dict[str, Any]]]
    mixed: bool
    """True if pieces of several calls may mix, so that their order is not told."""
    events: list[Event]


@st.composite
def replies(draw: st.DrawFn) -> Said:
    """A reply and its stream: thought, then text, between them calls in one of many habits."""
    thought, text = draw(words), draw(words)
    named = draw(st.lists(st.tuples(st.sampled_from("abc"), arguments), max_size=3))
    calls = [(f"{name}{number}", given) for number, (name, given) in enumerate(named)]
    ids, indices, again = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    mixed = indices or (ids and again)
    queues = [
        pieces(draw, name, given, number if indices else None, f"i{number}" if ids else "", again)
        for number, (name, given) in enumerate(calls)
    ]
    field = draw(st.sampled_from(["reasoning_content", "reasoning", "thinking"]))
    spoken = [delta(None, **{field: part}) for part in cuts(draw, thought)]
    spoken += [delta(part) for part in cuts(draw, text)]
    called = merged(draw, queues) if mixed else list(chain(*queues))
    events = merged(draw, [spoken, called, draw(st.lists(st.sampled_from(PADDING), max_size=3))])
    end = [delta(None, draw(st.sampled_from(["stop", "tool_calls"]))), DONE]
    tail = draw(st.sampled_from([end, end[:1], end[1:], [end[0], USAGE, end[1]], [end[0], *end]]))
    return Said(thought, text, calls, mixed, [*events, *tail])


def pieces(
    draw: st.DrawFn, name: str, given: dict[str, Any], index: int | None, id: str, again: bool
) -> list[Event]:
    """A call in pieces of its arguments, as an object, or as all that there is so far."""
    way = draw(st.sampled_from(["pieces", "object", "cumulative", "resent"]))
    written = json.dumps(given, ensure_ascii=False)
    parts: list[Any] = list(cuts(draw, written))
    if way == "object" and given:
        parts = [given]
    elif way == "cumulative":
        parts = ["".join(parts[: at + 1]) for at in range(len(parts))]
    elif way == "resent" and len(parts) > 1 and (id or index is not None):  # else another call
        parts = [*parts, written]
    known: dict[str, Any] = {"id": id} if id else {}
    where: dict[str, Any] = {} if index is None else {"index": index}
    rest = known if again or index is None else {}
    return [
        delta(
            None,
            tool_calls=[
                {
                    **where,
                    **(known if not at else rest),
                    "function": {"arguments": part} | ({"name": name} if not at or again else {}),
                }
            ],
        )
        for at, part in enumerate(parts)
    ]


def cuts(draw: st.DrawFn, text: str) -> list[str]:
    """Text in pieces, cut anywhere: inside a character that JSON writes in two halves, too."""
    units = text.encode("utf-16-le")
    at = sorted(2 * place for place in draw(st.sets(st.integers(1, max(1, len(units) // 2 - 1)))))
    return [
        units[a:b].decode("utf-16-le", "surrogatepass")
        for a, b in zip([0, *at], [*at, len(units)], strict=True)
        if units[a:b]
    ]


def merged(draw: st.DrawFn, queues: Sequence[Sequence[Event]]) -> list[Event]:
    """The events of several queues in any order that keeps each queue's own."""
    turns = draw(st.permutations([n for n, queue in enumerate(queues) for _ in queue]))
    sources = [iter(queue) for queue in queues]
    return [next(sources[n]) for n in turns]


def read(events: Sequence[Event]) -> tuple[ChatReply, str]:
    reply = ChatReply()
    said = "".join(reply.read(event) for event in json.loads(json.dumps(events)))
    return reply, said + reply.end()


@settings(max_examples=50, deadline=None)
@given(replies())
def test_a_reply_is_the_same_however_its_server_streams_it(said: Said) -> None:
    reply, text = read(said.events)
    thought = f"<think>\n{said.thought}\n</think>\n\n" if said.thought else ""
    spoken = text.partition("\n<tool_call>")[0] if said.calls else text
    assert spoken == thought + said.text
    calls = FORMATS["hermes"].parse(text[len(spoken) :], FinishReason.EOS, ()).calls
    found = [(call.tool, call.arguments) for call in calls]
    by_text = (lambda each: sorted(each, key=str)) if said.mixed else list
    assert by_text(found) == by_text(said.calls)
    assert reply.finish in ("stop", "tool_calls")
    assert reply.usage == (USAGE["usage"] if USAGE in said.events else {})


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_stream_that_lost_its_order_is_no_error_of_python_and_no_answer_without_an_end(
    data: st.DataObject,
) -> None:
    """Events dropped, repeated and in any order, of two replies at once."""
    events = data.draw(replies()).events + data.draw(replies()).events
    kept = data.draw(st.lists(st.sampled_from(events), max_size=12))
    reply, text = read(kept)
    FORMATS["hermes"].parse(text, FinishReason.EOS, ())
    text.encode()
    ends = any(event == DONE or _finish(event) for event in kept)
    assert (reply.finish is not None) == ends


def _finish(event: Event) -> Any:
    return event != DONE and any(choice["finish_reason"] for choice in event["choices"] or ())
