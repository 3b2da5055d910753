"""What holds for any text a model may write and any text a tool may give back."""

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.toy_tokenizers import VOCABULARIES, tokenizer

from interlace.rollout.formats import FORMATS, Encoder, Format
from interlace.rollout.formats.sample import sample_of, sample_tools
from interlace.rollout.ledger import Source
from interlace.rollout.trajectory import CallRecord, FinishReason

TAGS = sorted({tag for format in FORMATS.values() for tag in format.control_tags})
SYNTAX = ["'", '"', '"""', "'''", "\\", "#", "--", "/*", "\n", "```", "```python\n", "\n```\n"]
JSON = ['{"name": "python", "arguments": ', '{"code": "1"}', "{", "}", "[", "null", "NaN"]
BOXES = ["\\boxed{", "}", "7", " and ", "```output\n", "é", "\x00", "python"]
pieces = st.sampled_from([*TAGS, *SYNTAX, *JSON, *BOXES])
texts = st.lists(pieces | st.text(max_size=4), max_size=30).map("".join)
formats = st.sampled_from(list(FORMATS.values()))
finishes = st.sampled_from(FinishReason)


@given(formats, texts, finishes, st.booleans())
def test_any_text_can_be_read(format: Format, text: str, finish: FinishReason, tools: bool) -> None:
    parsed = format.parse(text, finish, sample_tools(format) if tools else ())
    assert not (parsed.calls and parsed.answer is not None)
    assert parsed.answer is None or parsed.answer.strip() == parsed.answer != ""
    assert parsed.complete or (finish is FinishReason.STOP and not parsed.calls)
    for call in parsed.calls:
        assert (call.arguments is None) == (call.problem is not None)
        json.dumps(call.arguments, allow_nan=False)
    # The answer is the policy's own words; what stood between them (a thought) is a line break.
    for line in (parsed.answer or "").split("\n"):
        assert line in text


@given(formats, texts, st.sampled_from(list(VOCABULARIES)))
def test_a_result_is_never_read_as_a_call_or_an_answer(
    format: Format, output: str, name: str
) -> None:
    # Llama 3 writes a call as bare JSON. A result is a message of its own there, never parsed.
    assume(format.name != "llama3" or '{"name"' not in output)
    harmless = tokenizer(name).escape_control_tokens(output, format.control_tags)
    record = CallRecord("python", {}, harmless)
    parsed = format.parse(format.render([record, record]), FinishReason.EOS, sample_tools(format))
    assert parsed.calls == ()
    if format.inline:
        assert parsed.forged
        assert parsed.answer is None


@given(formats, texts, st.sampled_from(list(VOCABULARIES)))
def test_spans_are_given_and_hold_the_output_as_it_was_recorded(
    format: Format, output: str, name: str
) -> None:
    encoder = ENCODERS[format.name, name]
    record = CallRecord("python", {}, encoder.escape_control_tokens(output))
    spans = encoder.results([record], ended=False, notice="1 tool call left")
    assert {span.source for span in spans} == {Source.TOOL, Source.HOST}
    assert all(span.weight == 0 for span in spans)
    again = CallRecord("python", {}, output)
    assert encoder.results([again], ended=False, notice="1 tool call left") == spans


ENCODERS = {
    (format, name): Encoder(FORMATS[format], tokenizer(name), sample_tools(FORMATS[format]))
    for format in FORMATS
    for name in VOCABULARIES
}
plain = st.text(
    st.characters(codec="utf-8", exclude_characters="<>`|\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\r")
)


@given(plain)
def test_any_code_comes_out_of_its_tags_as_it_went_in(code: str) -> None:
    expected = code.strip("\n").rstrip()
    if not expected:
        return
    for name, text in (
        ("retool", f"<code>\n```python\n{code}\n```\n</code>\n"),
        ("markdown", f"Now:\n```python\n{code}\n```\n"),
        ("notebook", f"<action_input>\n```python\n{code}\n```\n</action_input>"),
        ("hermes", _json_call(code)),
    ):
        # A fence in an open string does not close it: only where nothing follows, it does.
        finish = FinishReason.EOS if name in ("markdown", "hermes") else FinishReason.STOP
        (call,) = FORMATS[name].parse(text, finish, ()).calls
        assert call.arguments == {"code": code if name == "hermes" else expected}


def _json_call(code: str, *, ascii_only: bool = False) -> str:
    call = {"name": "note", "arguments": {"code": code}}
    return f"<tool_call>\n{json.dumps(call, ensure_ascii=ascii_only)}\n</tool_call>"


@given(
    st.lists(texts, min_size=1, max_size=3),
    st.booleans(),
    st.sampled_from(["", "<think>7</think>"]),
)
def test_any_code_with_any_tags_comes_out_of_json_as_it_went_in(
    codes: list[str], ascii_only: bool, lead: str
) -> None:
    said = lead + " then ".join(_json_call(code, ascii_only=ascii_only) for code in codes)
    parsed = FORMATS["hermes"].parse(said, FinishReason.EOS, ())
    assert [call.arguments for call in parsed.calls] == [{"code": code} for code in codes]
    assert not parsed.forged


@given(formats, st.integers(min_value=0))
def test_a_turn_that_is_cut_off_anywhere_calls_nothing_it_did_not_write(
    format: Format, at: int
) -> None:
    first, _ = sample_of(format).said
    cut = first[: at % len(first)]
    parsed = format.parse(cut, FinishReason.LENGTH, sample_tools(format))
    whole = format.parse(first, FinishReason.LENGTH, sample_tools(format))
    assert parsed.calls in ((), whole.calls)


@given(formats, st.text(alphabet=st.characters(codec="utf-8"), max_size=40), st.booleans())
def test_a_call_that_a_format_writes_is_the_call_that_it_reads(
    format: Format, text: str, after: bool
) -> None:
    tool, argument, _ = sample_of(format).tool
    argued = text.strip()
    assume(argued and not any(mark in argued for mark in ("`", "<", "'", '"', "#", "\\", "-", "*")))
    said = format.write_call(tool, {argument: argued}, thought="I look.", after=after)
    finish = FinishReason.STOP if format.stop else FinishReason.EOS
    (call,) = format.parse(said, finish, ()).calls
    assert (call.tool, call.arguments) == (tool, {argument: argued})


@given(formats, st.integers(), st.booleans())
def test_an_answer_that_a_format_writes_is_the_answer_that_it_reads(
    format: Format, value: int, after: bool
) -> None:
    said = format.write_answer(str(value), thought="So it is.", after=after)
    assert format.parse(said, FinishReason.EOS, ()).answer == str(value)


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_every_call_and_answer_lies_in_a_block_that_screens_know(format: Format) -> None:
    tool, argument, _ = sample_of(format).tool
    call = format.write_call(tool, {argument: "1"})
    ends = getattr(format, "ends", ())  # a token that ends the turn is not in its text
    blocks = [block for block in format.blocks if block.kind != "answer"]
    assert format.name.startswith("llama3") or any(  # which marks no call
        block.open in call and (block.close in call or block.close in ends) for block in blocks
    )
