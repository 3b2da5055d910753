"""What hostile code may send to its owner in place of the truth, and how little comes of it."""

import asyncio
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sandbox_fixtures import Box

from interlace.tools import ErrorKind, PythonTool, Unforkable
from interlace.tools.python import PythonSession
from interlace.tools.python.output import CellOutput
from interlace.tools.python.sandbox.transcript import MessageReader, ProtocolError, Transcript

SEND = """
import os
def send(body, size=None):
    data = (len(body) if size is None else size).to_bytes(4, 'big') + body
    while data: data = data[os.write(3, data):]
"""


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("os.closerange(0, 256); os.getpid()", "ended"),
        ("send(b'x' * 100, size=0xffffffff)", "4,294,967,295"),
        ("send(b'junk!')", "no JSON"),
        ("import pickle; send(pickle.dumps(print))", "no JSON"),
        ('send(b\'{"kind": "done", "id": "?", "content": {}}\')', "answers no request"),
        ("send(b'[]')", "without a kind"),
        ("send(b'[' * 90_000)", "no JSON"),
        ("send(b'[' + b'[],' * 400_000 + b'0]')", "brackets and numbers"),
    ],
)
def test_a_process_that_lies_is_replaced(sandbox: Box, code: str, how: str) -> None:
    code = f"print('said before')\n{SEND}\n{code}\ninput()"
    _, lied, after = sandbox.cells("x = 1", code, "'x' in dir()")
    assert lied.error is ErrorKind.DIED
    assert lied.text.startswith("said before\n[The Python process")
    assert how in lied.text and lied.state_lost
    assert (after.text, after.error, after.state_lost) == ("False", None, False)


FORGE = """
import json, os
worker = get_ipython().sink
def message(kind, **content):
    return json.dumps({'kind': kind, 'id': worker._id, 'content': content}).encode()
"""


def test_a_forged_answer_changes_only_its_own_text(sandbox: Box) -> None:
    forge = f"""{FORGE}{SEND}
os.write(4, worker._mark + b'forged' + worker._mark)
send(message('done', error=None))
import time; time.sleep(0.5)
"""

    async def work(session: PythonSession) -> None:
        forged = await session.call({"code": forge}, 10)
        assert forged.text in ("(no output)", "forged")
        after = await session.call({"code": "print('mine')"}, 10)
        # The real answer to the first request is still on its way: it fits none any more.
        assert after.error is ErrorKind.DIED or after.text == "mine"
        assert (await session.call({"code": "6 * 7"}, 10)).text.endswith("42")

    sandbox.use(work)


def test_a_child_that_a_cell_forks_and_forgets_does_not_answer_for_it(sandbox: Box) -> None:
    code = "import os\nif pid := os.fork(): os.waitpid(pid, 0)\npid > 0"
    answered, failed, after = sandbox.cells(code, code + "\n1 / (pid > 0)", "6 * 7")
    assert [answered.text, failed.text, after.text] == ["True", "1.0", "42"]


def test_messages_are_not_hoarded_for_a_mark_that_never_comes(sandbox: Box) -> None:
    code = f"{FORGE}{SEND}\nfor _ in range(20_000): send(message('display_data'))"
    hoarded, after = sandbox.cells(code, "6 * 7")
    assert hoarded.error is ErrorKind.DIED and "without their marks" in hoarded.text
    assert after.text == "42"


LIE = f"""{FORGE}{SEND}
def answer(content):
    send(f'{{{{"kind": "done", "id": "{{worker._id}}", "content": {{content}}}}}}'.encode())
def nest(depth):
    return '[' * depth + ']' * depth
"""


@pytest.mark.parametrize("depth", [850, 900, 940, 960, 980])
def test_words_that_are_nested_too_deep_are_words_all_the_same(sandbox: Box, depth: int) -> None:
    """In the place of an error's text, or of why a copy is refused."""
    raised = f"""{LIE}
os.write(4, worker._mark)
answer('{{"error": ["E", ' + nest({depth}) + ']}}')
os._exit(0)
"""
    refused = f"""{LIE}
worker._fork = lambda *_: answer('{{"refused": ' + nest({depth}) + '}}')
"""

    async def work(session: PythonSession) -> None:
        result = await session.call({"code": raised}, 10)
        assert result.error in (ErrorKind.EXCEPTION, ErrorKind.DIED)
        await session.call({"code": "1"}, 10)  # in which the end of the process is seen, if not yet
        assert (await session.call({"code": refused}, 10)).error is None
        with pytest.raises(Unforkable) as why:
            await session.fork()
        assert len(str(why.value)) < 400

    sandbox.use(work)


def test_words_of_code_end_up_as_one_short_line(sandbox: Box) -> None:
    lie = f"""{LIE}
words = json.dumps({{'failed': '\\x1b[31m' + 'long\\n' * 100_000}})
worker._answer = lambda *_: answer(words)
"""

    async def work(session: PythonSession) -> None:
        assert (await session.call({"code": lie}, 10)).ok
        with pytest.raises(OSError) as why:
            await session.read_file("any")
        assert str(why.value).startswith("long long") and len(str(why.value)) <= 300

    sandbox.use(work)


def test_a_file_beyond_the_limit_is_refused_though_the_process_sends_it(sandbox: Box) -> None:
    lie = f"""{LIE}
words = json.dumps({{'data': 'AAAA' * 3_000_000}})
worker._answer = lambda *_: answer(words)
"""

    async def work(session: PythonSession) -> None:
        assert (await session.call({"code": lie}, 10)).ok
        with pytest.raises(OSError, match="'any' is larger than 8,000,000 bytes"):
            await session.read_file("any")

    sandbox.use(work)


def test_a_copy_that_does_not_greet_as_it_should_is_no_copy(sandbox: Box) -> None:
    code = f"""{FORGE}
def lie(channel, output, folder):
    os.write(channel, b'\\0\\0\\0\\5junk!')
    os._exit(0)
worker._become_branch = lie
"""

    async def work(session: PythonSession) -> None:
        await session.call({"code": code}, 20)
        with pytest.raises(RuntimeError, match="the copy failed"):
            await session.fork()
        assert (await session.call({"code": "6 * 7"}, 20)).text == "42"

    sandbox.use(work)


def test_a_kernel_that_sends_nonsense_harms_only_itself(tmp_path: Path) -> None:
    code = f"""
import os, pickle
class Evil:
    def __reduce__(self): return (os.system, ('touch {tmp_path}/was-run',))
kernel = get_ipython().kernel
socket, parent, session = kernel.iopub_socket, kernel.get_parent(), kernel.session
socket.send_multipart([b'x', b'<IDS|MSG>', b'', pickle.dumps(Evil()), b'{{}}', b'{{}}', b'{{}}'])
nested = []
for _ in range(800): nested = [nested]
for data in ({{'application/json': nested}}, 'none', {{'image/png': 7}}):
    session.send(socket, 'display_data', content={{'data': data}}, parent=parent)
session.send(socket, 'stream', content={{'text': [7]}}, parent=parent)
session.send(socket, 'no such kind', content={{}}, parent=parent)
print('mine')
"""

    async def main() -> None:
        async with PythonTool("jupyter").session() as session:
            for text in (code, "6 * 7"):
                result = await session.call({"code": text}, 60)
                assert result.error is not ErrorKind.UNAVAILABLE
            assert result.text == "42"

    asyncio.run(main())
    assert not (tmp_path / "was-run").exists()


def framed(message: object) -> bytes:
    body = json.dumps(message).encode()
    return struct.pack(">I", len(body)) + body


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40)), st.integers(1, 40))
def test_any_bytes_are_messages_or_the_end(noise: list[bytes], size: int) -> None:
    good = [{"kind": "done", "n": n} for n in range(3)]
    stream = b"".join(map(framed, good)) + b"".join(noise)
    frames, seen = MessageReader(), []
    try:
        for start in range(0, len(stream), size):
            for message, _ in frames.add(stream[start : start + size]):
                seen.append(message)
    except ProtocolError:
        assert any(noise)
    assert seen[:3] == good
    assert all(isinstance(message["kind"], str) for message in seen)


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(["out", "mark", "half", "page", "display_data", "stream", "done", "alien"])
    )
)
def test_any_order_of_text_and_messages_is_an_observation_or_the_end(steps: list[str]) -> None:
    """An honest worker writes a mark for each message; a lying one whatever it likes."""
    output = CellOutput(1_000, {})
    transcript = Transcript("7", output, 1_000)
    mark = b"\x007\x00"
    content: dict[str, Any] = {"text": "t", "data": {"text/plain": "d"}, "error": ["E", "e"]}
    try:
        for step in steps:
            if step in ("out", "mark", "half"):
                text = {"out": b"o\n", "mark": mark, "half": mark[:2]}[step]
                transcript.add_text(text)
            else:
                number = "8" if step == "alien" else "7"
                transcript.add_message({"kind": step, "id": number, "content": content}, 50)
    except ProtocolError:
        assert "alien" in steps
    transcript.end_text()
    assert set(output.text()) <= set("otd7\0\\x0\n")
