"""Servers that keep to the chat protocol in ways of their own: what is read, sent back and learnt.

Every server here is a real one on this machine.
"""

import asyncio
import json
import logging
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.servers import Asked, Handler, Served, delta, serving

from interlace.rollout.engines import HttpEngine, Sampling
from interlace.rollout.engines.http.chat import ChatReply
from interlace.rollout.engines.http.client import DONE
from interlace.rollout.formats import FORMATS
from interlace.rollout.limits import Limits
from interlace.rollout.loop import Rollout
from interlace.rollout.models.load import load_engine
from interlace.rollout.policy import Policy
from interlace.rollout.trajectory import StopReason, Trajectory
from interlace.tools.errors import ModelError, UsageError
from interlace.tools.function import FunctionTool

SECRET = "sk-do-not-tell"


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("INTERLACE_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    yield


def tide(harbour: str) -> str:
    """Tell when high water is."""
    return "04:10"


def depth(harbour: str, metres: int) -> str:
    """Tell the depth."""
    return "deep"


class Server:
    """Answers chat requests with `replies` in order, each a list of events, then with "Done."."""

    def __init__(self, *replies: Sequence[Any], refuse: Callable[[Any], Any] = lambda _: None):
        self.replies, self.refuse = list(replies), refuse
        self.bodies: list[dict[str, Any]] = []

    async def __call__(self, asked: Asked) -> None:
        if asked.path.startswith("/v1/models"):
            return await asked.json({"data": [{"id": "m"}]})
        if (refused := self.refuse(asked.body)) is not None:
            return await asked.json(refused[1], refused[0])
        self.bodies.append(asked.body)
        events = self.replies.pop(0) if self.replies else [delta("Done."), delta(None, "stop")]
        await asked.events([e for e in events if e != DONE], cut=events[-1] == "cut")


async def roll_out(
    engine: HttpEngine, questions: int = 1, sampling: Any = None, system: str = ""
) -> Trajectory:
    tools = [FunctionTool(tide), FunctionTool(depth)]
    policy = Policy(engine, FORMATS["hermes"], tools, limits=Limits(max_turns=3), system=system)
    if sampling is not None:
        policy = Policy(engine, FORMATS["hermes"], tools, sampling=sampling)
    async with Rollout(policy, name="a") as rollout:
        for _ in range(questions):
            trajectory = await rollout.ask("When can we sail?")
    return trajectory


def ask(
    server: Handler, questions: int = 1, sampling: Any = None, system: str = "", **options: Any
) -> Trajectory:
    async def go() -> Trajectory:
        async with serving(server) as served:
            engine = await HttpEngine.connect(served.url, pause=0.001, **options)
            trajectory = await roll_out(engine, questions, sampling, system)
            await engine.aclose()
            return trajectory

    return asyncio.run(go())


# -- reading ------------------------------------------------------------------------------------


def piece(name: Any = None, arguments: Any = None, **more: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return more | {"function": {k: v for k, v in function.items() if v is not None}}


def calls(*pieces: dict[str, Any]) -> dict[str, Any]:
    return delta(None, tool_calls=list(pieces))


BRIG, QUAY = '{"harbour": "Brig"}', '{"harbour": "Quay", "metres": 4}'
BOTH = [("tide", {"harbour": "Brig"}), ("depth", {"harbour": "Quay", "metres": 4})]
END = delta(None, "tool_calls")
TEXTS = [delta("At "), delta("four.")]

STREAMS: dict[str, tuple[list[Any], list[Any] | str]] = {
    "each index the same": (
        [
            calls(piece("tide", BRIG, index=0, id="x1")),
            calls(piece("depth", QUAY, index=0, id="x2")),
        ],
        BOTH,
    ),
    "the same index, and no ids": (
        [calls(piece("tide", BRIG, index=0)), calls(piece("depth", QUAY, index=0))],
        BOTH,
    ),
    "no index": ([calls(piece("tide", BRIG, id="x1")), calls(piece("depth", QUAY, id="x2"))], BOTH),
    "no index, no id, one event": ([calls(piece("tide", BRIG), piece("depth", QUAY))], BOTH),
    "an index that is text, the second call first to end": (
        [
            calls(piece("tide", BRIG[:9], index="0", id="x1")),
            calls(piece("depth", "", index="1", id="x2")),
            calls(piece(None, QUAY, index="1")),
            calls(piece(None, BRIG[9:], index="0")),
        ],
        BOTH,
    ),
    "the id comes late": (
        [calls(piece("tide", "", index=0)), calls(piece(None, BRIG, index=0, id="x1"))],
        BOTH[:1],
    ),
    "another id in each piece": (
        [
            calls(piece("tide", "", index=0, id="x1")),
            calls(piece(None, BRIG[:5], index=0, id="x2")),
            calls(piece(None, BRIG[5:], index=0, id="x3")),
            calls(piece("depth", QUAY, index=0, id="x4")),
        ],
        BOTH,
    ),
    "name and id in each piece": (
        [calls(piece("tide", part, index=0, id="x1")) for part in ("", BRIG[:5], BRIG[5:])],
        BOTH[:1],
    ),
    "a name in parts": (
        [calls(piece("ti", "", index=0, id="x1")), calls(piece("de", BRIG, index=0))],
        BOTH[:1],
    ),
    "all that there is so far in each piece": (
        [calls(piece("tide", BRIG[:at], index=0, id="x1")) for at in (4, 11, 99)],
        BOTH[:1],
    ),
    "all that there is so far in each piece, without ids, and the whole call twice more": (
        [calls(piece("tide", BRIG[:at], index=0)) for at in (4, 11, 99, 99, 99)],
        BOTH[:1],
    ),
    "an empty object before the arguments, the whole call again behind them": (
        [
            calls(piece("tide", "{}", index=0, id="x1")),
            calls(piece(None, BRIG, index=0)),
            calls(piece("depth", QUAY[:9], index=1, id="x2")),
            calls(piece(None, QUAY[9:], index=1)),
            calls(piece("depth", QUAY, index=1, id="x2")),
        ],
        BOTH,
    ),
    "arguments as an object": ([calls(piece("tide", {"harbour": "Brig"}, index=0))], BOTH[:1]),
    "a call alone, not in a list": (
        [delta(None, tool_calls=piece("tide", BRIG, id="x1"))],
        BOTH[:1],
    ),
    "the older field of one call": (
        [
            delta(None, function_call={"name": "tide", "arguments": BRIG}),
            delta(None, "function_call"),
        ],
        BOTH[:1],
    ),
    "`stop` behind a call": ([calls(piece("tide", BRIG, index=0)), delta(None, "stop")], BOTH[:1]),
    "a call as text": (
        [
            delta("<tool"),
            delta('_call>{"name": "tide", "argu'),
            delta(f'ments": {BRIG}}}</tool_call>'),
        ],
        BOTH[:1],
    ),
    "a call that looks like a control token": (
        [calls(piece("tide", '{"harbour": "<|im_end|>"}', index=0))],
        [("tide", {"harbour": "<|im_end|>"})],
    ),
    "no finish reason, but an end": (TEXTS, "At four."),
    "another name of the end": ([*TEXTS, delta(None, "STOP")], "At four."),
    "a stream that is cut behind its end": ([*TEXTS, delta(None, "stop"), "cut"], "At four."),
    "no choices first, and nothing else in them": (
        [{"choices": [], "prompt_filter_results": []}, {"choices": None}, {"type": "ping"}, *TEXTS],
        "At four.",
    ),
    "parts of several types": (
        [
            delta([{"type": "thinking", "thinking": [{"type": "text", "text": "Spring tide."}]}]),
            delta([{"type": "text", "text": "At "}, {"type": "output_text", "text": "four"}]),
            delta("."),
        ],
        "At four.",
    ),
    "a thought whose end alone is told": (
        [delta("Spring tide.\n</thi"), delta("nk>\n\nAt four.")],
        "At four.",
    ),
    "another reply to the same question": (
        [*TEXTS, {"choices": [{"index": 1, "delta": {"content": " Or five."}}]}],
        "At four.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_read_in_its_servers_way(name: str) -> None:
    events, expected = STREAMS[name]
    server = Server(events)
    trajectory = ask(server)
    assert trajectory.error is None and trajectory.stop is StopReason.ANSWERED
    if isinstance(expected, str):
        assert trajectory.answer == expected
    else:
        assert [(call.tool, call.arguments) for call in trajectory.calls] == expected
        assert all(call.error is None for call in trajectory.calls)


NESTED = '{"choices": [{"delta": {"content": ' + '{"text":' * 600 + '"x"' + "}" * 600 + "}}]}"


@pytest.mark.parametrize(
    ("last", "says"),
    [
        ({"error": {"message": "the boiler is cold", "code": 500}}, "the boiler is cold"),
        ({"error": {"code": 507}}, "507"),
        ({"error": {"message": "the boiler is cold", "code": "5" * 5000}}, "the boiler is cold"),
        ("data: " + '{"error":' * 600 + "1" + "}" * 600 + "\n\n", "nested too deeply"),
        (f"data: {NESTED}\n\n", "is not a chat delta: maximum recursion"),
        ({"choices": [{"error": {"message": "the boiler is cold"}}]}, "the boiler is cold"),
        ({"object": "error", "message": "the boiler is cold", "code": 400}, "the boiler is cold"),
        ({"detail": [{"loc": ["body"], "msg": "the boiler is cold"}]}, "the boiler is cold"),
        ("event: error\ndata: the boiler is cold\n\n", "the boiler is cold"),
        ('{"error": "the boiler is cold"}\n\n', "the boiler is cold"),
        (delta(None, "upstream_lost"), "ended a reply with 'upstream_lost'"),
        ("cut", "broke off"),
        ("data: the boiler is cold\n\n", "is not JSON: the boiler is cold"),
        (delta([{"type": "audio", "audio": {}}]), 'content has a part of type "audio"'),
        (delta(17), "content can't be 17"),
        (delta(None, ["stop"]), 'finish_reason can\'t be ["stop"]'),
        (calls(piece({"a": 1})), 'name can\'t be {"a": 1}'),
        ({"choices": "none"}, 'choices can\'t be "none"'),
    ],
)  # fmt: skip
def test_a_failure_in_a_stream_is_told_in_its_servers_words(last: Any, says: str) -> None:
    trajectory = ask(Server([delta("At four "), last]))
    assert trajectory.stop is StopReason.INFRASTRUCTURE and trajectory.answer is None
    assert says in (trajectory.error or "")


def test_the_last_words_of_a_stream_that_breaks_off_are_told_if_they_were_not_understood() -> None:
    failed = {"status": "failed", "reason": "the boiler is cold"}

    async def handler(asked: Asked) -> None:
        if asked.path == "/v1/models":
            return await asked.json({"data": [{"id": "m"}]})
        events = [f"data: {json.dumps(each)}\n\n" for each in (delta("At four "), failed)]
        await asked.raw("".join(events).encode(), "text/event-stream")

    assert "middle of a reply: {" in (error := str(ask(handler).error))
    assert "the boiler is cold" in error


def test_an_event_of_any_shape_is_read_or_told_and_never_an_error_of_python() -> None:
    whole = delta("A", "stop", reasoning="B", tool_calls=[piece("f", "{}", index=0, id="i")])
    odd: list[Any] = [
        None,
        0,
        1.5,
        True,
        "",
        "x",
        [],
        {},
        [None],
        [[]],
        {"type": "text"},
        {"text": 1},
    ]
    odd += [{"type": []}, [{"type": {}, "text": "x"}], {"type": "thinking", "thinking": [{}]}]

    def changed(value: Any) -> Iterator[Any]:
        yield from odd
        if isinstance(value, dict):
            for key in value:
                yield {k: v for k, v in value.items() if k != key}
                yield from (value | {key: other} for other in changed(value[key]))
        elif isinstance(value, list):
            for at, each in enumerate(value):
                yield from ([*value[:at], other, *value[at + 1 :]] for other in changed(each))

    for event in changed(whole):
        reply = ChatReply()
        try:
            said = reply.read(event) + reply.end()
        except ValueError as error:
            assert " can't be " in str(error) or " has a part of type " in str(error)
        else:
            assert isinstance(said, str)


# -- going back -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("thought", "field", "content"),
    [
        ([delta(None, reasoning_content="Spring "), delta(None, reasoning_content="tide.")],
         {"reasoning_content": "Spring tide."}, "I look."),
        ([delta(None, reasoning="Spring tide.")], {"reasoning": "Spring tide."}, "I look."),
        (
            [delta(None, thinking="Spring"), delta(" "), delta(None, thinking=" tide.")],
            {"thinking": "Spring tide."},
            "I look.",
        ),
        ([delta("<think>Spring tide.</think>")], {}, "<think>Spring tide.</think>I look."),
        ([delta("Spring tide.</think>\n")], {}, "Spring tide.</think>\nI look."),
    ],
)  # fmt: skip
def test_within_the_tool_loop_a_reply_goes_back_as_it_came(
    thought: list[Any], field: dict[str, str], content: str
) -> None:
    """Its thought in the field in which it came, its calls under their own ids."""
    call = calls(piece("tide", BRIG, index=0, id="call_of_the_server"))
    server = Server([*thought, delta("I look."), call, END])
    ask(server, questions=2)
    _, within, later = server.bodies
    reply, result = within["messages"][2:]
    assert reply == {
        "role": "assistant",
        "content": content,
        **field,
        "tool_calls": [
            {
                "id": "call_of_the_server",
                "type": "function",
                "function": {"name": "tide", "arguments": BRIG},
            }
        ],
    }
    assert result["tool_call_id"] == "call_of_the_server"
    assert "Spring tide" not in json.dumps(later["messages"])  # another question has come


def test_a_limit_of_tokens_is_the_servers_to_count_from_turn_to_turn() -> None:
    """Ids of our own, 3 to a Chinese character, take nothing from the limit."""
    usage = {"choices": [], "usage": {"prompt_tokens": 50, "completion_tokens": 600}}
    call = calls(piece("tide", BRIG, index=0, id="x"))
    server = Server([delta("潮" * 1000), call, END, usage], [*TEXTS, delta(None, "stop")])
    trajectory = ask(server)
    assert (trajectory.stop, trajectory.answer) == (StopReason.ANSWERED, "At four.")
    first, second = (body["max_tokens"] for body in server.bodies)
    assert 550 < first - second < 700


# -- what a server takes -------------------------------------------------------------------------


def refusing(*names: str, status: int = 400, says: str) -> Callable[[Any], Any]:
    def refuse(body: Any) -> Any:
        for name in names:
            if name in body or any(name in message for message in body["messages"]):
                return status, json.loads(says % name)
        return None

    return refuse


@pytest.mark.parametrize(
    ("names", "status", "says"),
    [
        (["max_tokens"], 400, '{"error": {"message": "Unsupported value.", "param": "%s"}}'),
        (["max_tokens"], 400, '{"error": {"message": "Unsupported parameter: %s."}}'),
        (["temperature", "top_p", "seed"], 400, '{"error": "%s is not supported by this model"}'),
        (["top_k", "seed"], 422, '{"detail": [{"type": "extra_forbidden", "loc": ["%s"]}]}'),
        (["stream_options"], 400, '{"message": "Unrecognized request argument supplied: %s"}'),
        (["reasoning_content"], 400, '{"error": {"message": "property \'%s\' is unsupported"}}'),
    ],
)
def test_a_field_that_a_server_refuses_is_left_out_and_said_once(
    names: list[str], status: int, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    call = calls(piece("tide", BRIG, index=0, id="x"))
    server = Server(
        [delta(None, reasoning_content="Hm."), call, END],
        refuse=refusing(*names, status=status, says=says),
    )
    with caplog.at_level(logging.WARNING):
        trajectory = ask(server, sampling=Sampling(0.5, top_p=0.9, top_k=5, seed=3))
    assert trajectory.answer == "Done."
    assert [len([r for r in caplog.messages if name in r]) for name in names] == [1] * len(names)
    limit = "max_completion_tokens" if names == ["max_tokens"] else "max_tokens"
    assert all(body[limit] > 0 for body in server.bodies)


@pytest.mark.parametrize(
    ("says", "then"),
    [
        ("temperature must be at most 2", "must be at most 2"),
        ("tools[0]: the schema has no type", "--engine-option tools=null explains the tools"),
        ("max_tokens is too large: 9000 > 4096", "too large"),
    ],
)
def test_another_refusal_is_told_and_nothing_is_left_out(says: str, then: str) -> None:
    server = Server(refuse=lambda _: (400, {"error": {"message": says}}))
    assert then in (ask(server).error or "")


@pytest.mark.parametrize(
    ("field", "says", "times"),
    [("tool_call_id", "%s is not supported", 2), ("max_tokens", "%s is too large", 1)],
)
def test_what_cant_be_left_out_or_lowered_is_not_asked_for_again(
    field: str, says: str, times: int
) -> None:
    """A field of ours that has to be there, and a value that the user set."""
    bodies: list[Any] = []

    def refuse(body: Any) -> Any:
        bodies.append(body)
        return refusing(field, says=f'{{"error": "{says}"}}')(body) if len(bodies) < 9 else None

    server = Server([calls(piece("tide", BRIG, index=0, id="x")), END], refuse=refuse)
    options = {"max_tokens": 9000} if field == "max_tokens" else {}
    assert says % field in (ask(server, options=options).error or "")
    assert len(bodies) == times


NO_TOOLS = [
    (400, {"error": {"message": "gull:2b does not support tools"}}),
    (400, {"message": '"auto" tool choice requires a parser of tool calls to be set'}),
    (404, {"error": {"message": "No endpoints found that support tool use."}}),
    (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "tools"]}]}),
    (501, {"error": "function calling is not enabled for this model"}),
    (200, {"error": {"message": "this model does not support tools", "code": 400}}),
]


@pytest.mark.parametrize(("status", "says"), NO_TOOLS)
def test_a_server_without_tools_is_told_of_them_in_the_prompt(
    status: int, says: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Calls are then text of the reply, and results messages of the user; it is said once."""

    def refuse(body: Any) -> Any:
        roles = [message["role"] for message in body["messages"]]
        calls = any("tool_calls" in message for message in body["messages"])
        return (status, says) if "tools" in body or "tool" in roles or calls else None

    call = f'I look.\n<tool_call>{{"name": "tide", "arguments": {BRIG}}}</tool_call>'
    server = Server([delta("<think>Hm.</think>"), delta(call), END], refuse=refuse)
    with caplog.at_level(logging.WARNING):
        trajectory = ask(server, questions=2)
    assert trajectory.answer == "Done."
    assert [(c.tool, c.arguments, c.output) for c in trajectory.calls] == [(*BOTH[0], "04:10")]
    assert [message.count("takes no tools") for message in caplog.messages] == [1]
    told = FORMATS["hermes"].system([FunctionTool(tide), FunctionTool(depth)])
    asked = {"role": "user", "content": "When can we sail?"}
    opening = [{"role": "system", "content": told}, asked]
    result = {"role": "user", "content": "<tool_response>\n04:10\n</tool_response>"}
    first, within, later = (body["messages"] for body in server.bodies)
    assert first == opening
    said = {"role": "assistant", "content": f"<think>Hm.</think>{call}"}
    assert within == [*opening, said, result]
    done = {"role": "assistant", "content": "Done."}
    assert later == [*opening, {"role": "assistant", "content": call}, result, done, asked]


def test_tools_are_explained_in_the_prompt_on_demand() -> None:
    server = Server()
    trajectory = ask(server, system="Speak as a sailor.", options={"tools": None})
    assert trajectory.answer == "Done."
    (body,) = server.bodies
    told = FORMATS["hermes"].system([FunctionTool(tide), FunctionTool(depth)])
    assert "tools" not in body
    assert body["messages"][0]["content"] == f"Speak as a sailor.\n\n{told}"


def test_a_model_without_a_system_message_has_it_at_the_head_of_the_question() -> None:
    def refuse(body: Any) -> Any:
        says = "System role not supported"
        return (400, {"error": says}) if body["messages"][0]["role"] == "system" else None

    server = Server(refuse=refuse)
    assert ask(server).answer == "Done."
    (message,) = server.bodies[0]["messages"]
    assert message["role"] == "user" and message["content"].endswith("}.\n\nWhen can we sail?")


def test_a_limit_that_the_context_has_no_room_for_is_lowered() -> None:
    def refuse(body: Any) -> Any:
        says = f"max_tokens is too large: {body['max_tokens']}. The context length is 1000."
        return (400, {"error": {"message": says}}) if body["max_tokens"] > 900 else None

    server = Server(refuse=refuse)
    assert ask(server).answer == "Done."
    assert server.bodies[0]["max_tokens"] == 4096 // 8


@pytest.mark.parametrize("status", [400, 200])
def test_a_stream_without_an_event_is_asked_for_as_one_answer(status: int) -> None:
    """As llama-cpp-python 0.3.36 does, which says in the stream nothing of a prompt too long."""
    message = {"role": "assistant", "content": "At four."}
    whole = {"choices": [{"message": message, "finish_reason": "stop"}]}
    too_long = {"error": {"message": "the prompt has 9 tokens, and 7 have room"}}

    async def handler(asked: Asked) -> None:
        if asked.path == "/v1/models":
            return await asked.json({"data": [{"id": "m"}]})
        if asked.body.get("stream"):
            return await asked.raw(b"", "text/event-stream")
        await asked.json(whole if status == 200 else too_long, status)

    trajectory = ask(handler)
    if status == 200:
        assert trajectory.answer == "At four."
    else:
        assert "the prompt has 9 tokens" in (trajectory.error or "")


def test_many_requests_at_once_learn_one_refusal() -> None:
    def refuse(body: Any) -> Any:
        names = {"temperature", "tools"} & body.keys()
        return (400, {"error": f"{min(names)} is not supported"}) if names else None

    async def go() -> list[Trajectory]:
        async with serving(Server(refuse=refuse)) as served:
            engine = await HttpEngine.connect(served.url)
            found = await asyncio.gather(*(roll_out(engine) for _ in range(8)))
            await engine.aclose()
            return found

    assert [trajectory.answer for trajectory in asyncio.run(go())] == ["Done."] * 8


def test_options_set_fields_headers_and_the_query(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARBOUR_KEY", SECRET)
    server = Server(refuse=lambda body: (400, {"error": f"no {SECRET}"}) if "bad" in body else None)
    options: dict[str, Any] = {
        "headers": {"api-key": "$HARBOUR_KEY"},
        "query": {"api-version": "7"},
        "reasoning_effort": "low",
        "max_completion_tokens": 99,
        "temperature": None,
    }

    async def go(**more: Any) -> tuple[Trajectory, Served]:
        async with serving(server) as served:
            engine = await asyncio.to_thread(load_engine, served.url, options=options | more)
            assert isinstance(engine, HttpEngine)
            trajectory = await roll_out(engine)
            await engine.aclose()
            return trajectory, served

    trajectory, served = asyncio.run(go())
    assert trajectory.answer == "Done."
    (body,) = server.bodies
    assert (body["reasoning_effort"], body["max_completion_tokens"]) == ("low", 99)
    assert not {"max_tokens", "temperature"} & body.keys()
    assert all(asked.headers["api-key"] == SECRET for asked in served.asked)
    assert all(asked.path.endswith("?api-version=7") for asked in served.asked)
    trajectory, _ = asyncio.run(go(bad=1))
    assert "no ***" in (trajectory.error or "") and SECRET not in (trajectory.error or "")
    for wrong in ({"key": SECRET}, {"headers": {"api-key": "$NO_SUCH_KEY"}}, {"headers": "x"}):
        with pytest.raises(UsageError) as caught:
            load_engine("http://127.0.0.1:9/v1", options=wrong)
        assert SECRET not in str(caught.value)


# -- what a server lists, and how it is reached ----------------------------------------------------


@pytest.mark.parametrize(
    ("listed", "status", "sent"),
    [
        ({"data": []}, 200, "gull"),
        ({"error": "no list here"}, 501, "gull"),
        ({"error": "may not list"}, 403, "gull"),
        ({"data": [{"id": "bird/*"}, {"id": "tern"}]}, 200, "gull"),
        ({"data": [{"id": "gull:latest"}, {"id": "tern"}]}, 200, "gull:latest"),
        ({"data": [{"id": "bird/gull"}]}, 200, "bird/gull"),
        ({"data": [{"id": "gull:7b"}, {"id": "gull:9b"}]}, 200, "gull"),
    ],
)
def test_a_list_of_models_is_advice(listed: Any, status: int, sent: str) -> None:
    async def handler(asked: Asked) -> None:
        if asked.path == "/v1/models":
            return await asked.json(listed, status)
        if asked.body["model"] != sent:
            return await asked.json({"error": "no such model"}, 404)
        await asked.events([*TEXTS, delta(None, "stop")])

    async def go() -> None:
        async with serving(handler) as served:
            engine = await HttpEngine.connect(f"{served.url}#gull")
            assert (await roll_out(engine)).answer == "At four."
            await engine.aclose()
            if len(listed.get("data", ())) != 1:
                with pytest.raises(ModelError, match="#NAME"):
                    await HttpEngine.connect(served.url)
            engine = await HttpEngine.connect(f"{served.url}#albatross")
            error = (await roll_out(engine)).error or ""
            assert "no such model" in error
            for card in listed.get("data", ()):
                assert card["id"] in error
            await engine.aclose()

    asyncio.run(go())


def test_a_stream_under_another_content_type_is_a_stream() -> None:
    async def handler(asked: Asked) -> None:
        if asked.path == "/v1/models":
            return await asked.json({"data": [{"id": "m"}]})
        lines = [f"data: {json.dumps(event)}\n\n" for event in TEXTS]
        await asked.raw("".join([*lines, "data: [DONE]\n\n"]).encode(), "text/plain")

    assert ask(handler).answer == "At four."


def test_a_stream_may_be_cut_at_any_place_and_its_lines_end_in_any_way() -> None:
    lines = [
        f"data: {json.dumps(each, ensure_ascii=False)}" for each in (delta("Ñ\U0001f642"), *TEXTS)
    ]
    text = "\r\n\r\n".join([": hello", "event: message", *lines, "data:[DONE]\r\n\r\n"])
    data = text.encode()
    for size in (1, 7):  # bytes, inside of characters too
        server = Server([data[at : at + size] for at in range(0, len(data), size)])
        assert ask(server).answer == "Ñ\U0001f642At four."


def test_a_wait_in_milliseconds_is_heeded() -> None:
    async def handler(asked: Asked) -> None:
        await asked.json({"error": "busy"}, 429, retry_after_ms="90500")

    async def go() -> None:
        async with serving(handler) as served:
            with pytest.raises(ModelError, match="left alone for 90 s"):
                await HttpEngine.connect(served.url)

    asyncio.run(go())


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("SSL_CERT_FILE", "/no/such", "SSL_CERT_FILE can't be used: .*No such file"),
        ("ALL_PROXY", f"socks://me:{SECRET}@h:1", "ALL_PROXY can't be used: it is not an address"),
        ("HTTPS_PROXY", f"http://h:{SECRET}", "HTTPS_PROXY can't be used: it is not an address"),
        ("ALL_PROXY", f"socks5://me:{SECRET}@h:1", "ALL_PROXY can't be used: for a SOCKS proxy"),
        ("NO_PROXY", "a,fd00::/8", "NO_PROXY can't be used: it is not an address"),
    ],
)
def test_a_wrong_proxy_or_certificate_is_named(
    name: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "SSL_CERT_FILE"):
        monkeypatch.delenv(each, raising=False)
        monkeypatch.delenv(each.lower(), raising=False)
    monkeypatch.setenv(name, value)
    with pytest.raises(ModelError, match=says) as caught:
        asyncio.run(HttpEngine.connect("https://models.invalid/v1", tries=1))
    assert SECRET not in str(caught.value)


def test_a_proxy_that_is_not_there_and_a_server_without_tls_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)  # no HTTP
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def go() -> None:
        async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(ModelError, match="does its address begin with http://"):
                await HttpEngine.connect(f"https://127.0.0.1:{port}/v1", tries=1)
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        with pytest.raises(ModelError, match="is the proxy in HTTP_PROXY the right one"):
            await HttpEngine.connect("http://models.invalid/v1", tries=1)

    asyncio.run(go())


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_a_server_with_a_certificate_of_its_own(tmp_path: Path) -> None:
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    command += " -subj /CN=localhost -addext subjectAltName=DNS:localhost -out c.pem -keyout k.pem"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")

    async def go() -> None:
        async with serving(Server(), tls=tls) as served:
            url = served.url.replace("http://127.0.0.1", "https://localhost")
            with pytest.raises(ModelError, match=r"certificate of .* is not valid .*SSL_CERT_FILE"):
                await HttpEngine.connect(url)
            with pytest.raises(ModelError, match=r"the certificates in .*no.pem can't be read"):
                await HttpEngine.connect(url, ca=str(tmp_path / "no.pem"))
            engine = await HttpEngine.connect(url, ca=str(tmp_path / "c.pem"))
            assert (await roll_out(engine)).answer == "Done."
            await engine.aclose()

    asyncio.run(go())
