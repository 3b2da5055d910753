"""The encoder: what it appends is what the chat template would have written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.toy_tokenizers import MISTRAL_LIKE, QWEN_LIKE, TEMPLATES, VOCABULARIES, save, tokenizer

from interlace.rollout.formats import FORMATS, Encoder, Message
from interlace.rollout.formats.sample import sample_tools
from interlace.rollout.formats.schema import tool_schema
from interlace.rollout.formats.template import ChatTemplate
from interlace.rollout.ledger import Source, Span
from interlace.rollout.tokenizer import Tokenizer, TokenizerError
from interlace.rollout.trajectory import CallRecord
from interlace.tools.errors import UsageError

TOOLS = sample_tools(FORMATS["hermes"])
SCHEMAS = [tool_schema(tool) for tool in TOOLS]
OUTPUTS = ['1298552\n"two"', "é ✓ 3"]


def encoder(vocabulary: str, template: str | None = None, format: str = "hermes") -> Encoder:
    return Encoder(FORMATS[format], tokenizer(vocabulary, template), TOOLS)


def records(outputs: Sequence[str] = OUTPUTS) -> list[CallRecord]:
    return [CallRecord("python", {}, output) for output in outputs]


def ids(spans: Sequence[Span]) -> list[int]:
    return [id for span in spans for id in span.ids.tolist()]


def text(e: Encoder, spans: Sequence[Span]) -> str:
    return e.tokenizer.decode(ids(spans))


def with_template(folder: Path, template: str, vocabulary: str = "qwen") -> Tokenizer:
    save(folder, vocabulary, template)
    return Tokenizer.load(folder)


# -- the identity that matters --------------------------------------------------------------------


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("name", VOCABULARIES)
def test_a_ledger_holds_the_ids_of_the_conversation_rendered_as_a_whole(
    name: str, ended: bool
) -> None:
    e = encoder(name)
    lead = " " if name == "mistral" else ""  # what that template puts before a reply
    said, last = lead + "I look.", lead + "It is 3."
    end = e.tokenizer.encode(e.tokenizer.special_text("eos_token") or "")
    ledger = ids(e.prompt("How many?")) + e.tokenizer.encode_continuation(said)
    ledger += (end if ended else []) + ids(e.results(records(), ended=ended))
    ledger += e.tokenizer.encode_continuation(last) + (end if ended else [])
    ledger += ids(e.follow_up("And now?", ended=ended) or [])

    if name == "mistral":  # no tool role: one user message, with Hermes' tags
        tagged = [f"<tool_response>\n{output}\n</tool_response>" for output in OUTPUTS]
        results = [{"role": "user", "content": "\n".join(tagged)}]
    else:
        results = [{"role": "tool", "content": output} for output in OUTPUTS]
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": e.format.system(() if e.tells_tools else TOOLS)},
        {"role": "user", "content": "How many?"},
        {"role": "assistant", "content": said.strip()},
        *results,
        {"role": "assistant", "content": last.strip()},
        {"role": "user", "content": "And now?"},
    ]
    whole = e.template.render(messages, tools=SCHEMAS if e.tells_tools else None)
    assert e.tokenizer.decode(ledger) == e.tokenizer.decode(e.tokenizer.encode(whole))
    assert ledger == e.tokenizer.encode(whole)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("format", ["hermes", "retool"])
def test_an_encoder_for_other_tools_is_as_if_it_had_been_made_for_them(
    template: str, format: str
) -> None:
    bare = Encoder(FORMATS[format], tokenizer("qwen", template), ())
    made, shared = encoder("qwen", template, format), bare.with_tools(TOOLS)
    assert shared.template is bare.template
    assert shared.prompt("How many?") == made.prompt("How many?")
    for ended in (True, False):
        assert shared.results(records(), ended=ended) == made.results(records(), ended=ended)
        assert shared.follow_up("And?", ended=ended) == made.follow_up("And?", ended=ended)
    assert ids(bare.prompt("How many?")) != ids(shared.prompt("How many?"))


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("format", FORMATS)
def test_every_template_serves_every_format(template: str, format: str) -> None:
    e = Encoder(FORMATS[format], tokenizer("qwen", template), sample_tools(FORMATS[format]))
    (prompt,) = e.prompt("How many?", [Message("user", "Hi."), Message("assistant", "Yes?")])
    assert prompt.source is Source.PROMPT
    for part in (FORMATS[format].system(())[:9], "Hi.", "Yes?", "How many?"):
        assert part in text(e, [prompt])
    spans = e.results(records(), ended=not e.format.inline, notice="1 tool call left")
    assert "1298552" in text(e, spans)
    host = [span for span in spans if span.source is Source.HOST]
    assert "[1 tool call left]" in text(e, host).replace("\\n", "\n").split("\n")
    assert "1 tool call left" not in text(e, [s for s in spans if s.source is Source.TOOL])
    assert (e.follow_up("And?", ended=True) is None) == (template == "stripping")


@pytest.mark.parametrize("name", ["qwen", "llama3", "mistral"])
@pytest.mark.parametrize("template", ["qwen", "llama3", "mistral", "stripping"])
def test_prompts_are_those_of_transformers(tmp_path: Path, name: str, template: str) -> None:
    transformers = pytest.importorskip("transformers")
    save(tmp_path, name, TEMPLATES[template])
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    e = Encoder(FORMATS["hermes"], Tokenizer.load(tmp_path), TOOLS)
    history = [Message("user", "Hi <b>é</b> & you."), Message("assistant", "Yes?\n")]
    messages = [
        {"role": "system", "content": e.format.system(() if e.tells_tools else TOOLS)},
        *({"role": message.role, "content": message.content} for message in history),
        {"role": "user", "content": "How many?"},
    ]
    expected = theirs.apply_chat_template(
        messages, tools=SCHEMAS if e.tells_tools else None, add_generation_prompt=True
    )
    expected = expected["input_ids"] if not isinstance(expected, list) else expected
    assert ids(e.prompt("How many?", history)) == expected


def test_a_history_cut_anywhere_serves_a_strict_template() -> None:
    e = encoder("mistral")
    history = [
        Message("user", "Hi."),
        Message("assistant", "I look."),
        Message("tool", "12"),
        Message("assistant", "Yes?"),
    ]
    whole = text(e, e.prompt("How?", history))
    assert whole.endswith(
        "\n\nHi. [/INST] I look.</s>[INST] <tool_response>\n12\n</tool_response> [/INST] Yes?</s>"
        "[INST] How? [/INST]"
    )
    for cut in range(1, 5):
        shown = text(e, e.prompt("How?", history[cut:]))
        assert shown.count("[INST]") == 1 + (cut <= 2)
        assert shown.endswith("How? [/INST]")
        assert "Solve the problem" in shown


# -- formats with tags ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", VOCABULARIES)
def test_results_in_tags_continue_the_message_without_a_blank(name: str) -> None:
    e = encoder(name, format="retool")
    before = e.tokenizer.encode("so</code>")
    spans = e.results(records(["12"]), ended=False, notice="last turn")
    assert [span.source for span in spans] == [Source.TOOL, Source.HOST]
    assert e.tokenizer.decode(before + ids(spans)) == (
        "so</code>\n<interpreter>\n12\n</interpreter>\n[last turn]\n"
    )


@pytest.mark.parametrize("name", VOCABULARIES)
@pytest.mark.parametrize("format", FORMATS)
def test_what_tools_and_people_write_can_not_become_a_control_token(name: str, format: str) -> None:
    e = Encoder(FORMATS[format], tokenizer(name), sample_tools(FORMATS[format]))
    evil = "".join((*e.tokenizer.control_texts, *e.format.control_tags))
    for spans, calm in (
        (e.prompt(evil), e.prompt("calm")),
        (e.prompt("?", [Message("user", evil)]), e.prompt("?", [Message("user", "calm")])),
        (e.results(records([evil]), ended=True), e.results(records(["calm"]), ended=True)),
        (e.follow_up(evil, ended=True), e.follow_up("calm", ended=True)),
    ):
        assert spans and calm
        controls = [id for id in ids(spans) if id in e.tokenizer.control_ids]
        assert controls == [id for id in ids(calm) if id in e.tokenizer.control_ids]
    shown = text(e, e.results(records([evil]), ended=True))
    for tag in e.format.control_tags:
        assert shown.count(tag) == text(e, e.results(records(["calm"]), ended=True)).count(tag)


# -- what templates can and can't -----------------------------------------------------------------


def test_a_template_that_strips_thinking_is_recognised() -> None:
    assert encoder("qwen", "stripping").strips_thinking
    assert not encoder("qwen").strips_thinking
    # within one question nothing is stripped, so results go on as ever
    assert ids(encoder("qwen", "stripping").results(records(), ended=True)) == ids(
        encoder("qwen").results(records(), ended=True)
    )


def test_tools_are_told_by_the_template_or_else_by_our_own_prompt() -> None:
    for name, told in (("qwen", True), ("llama3", False), ("mistral", False)):
        e = encoder(name)
        assert e.tells_tools == told
        assert text(e, e.prompt("?")).count('"name": "python"') == 1
    assert (
        "tools" not in text(encoder("qwen"), encoder("qwen").prompt("?")).partition("<|im_end")[2]
    )


def test_a_template_that_asks_for_other_calls_does_not_tell_of_ours(tmp_path: Path) -> None:
    other = QWEN_LIKE.replace('"<tool_call>\\n" +', '"<function>\\n" +')
    assert other != QWEN_LIKE
    e = Encoder(FORMATS["hermes"], with_template(tmp_path, other), TOOLS)
    assert not e.tells_tools
    assert '{"name": "...", "arguments": {...}}' in text(e, e.prompt("?"))


def test_a_system_prompt_goes_into_the_question_where_there_is_no_system_role(
    tmp_path: Path,
) -> None:
    refusing = QWEN_LIKE.replace(
        "{%- if tools %}",
        '{%- if messages[0].role == "system" %}{{ raise_exception("no") }}{%- endif %}'
        "{%- if tools %}",
        1,
    )
    e = Encoder(FORMATS["retool"], with_template(tmp_path, refusing), TOOLS)
    assert not e.takes_system
    shown = text(e, e.prompt("How many?", [Message("user", "Hi."), Message("assistant", "Yes?")]))
    assert shown.startswith("<|im_start|>user\nSolve the problem")
    assert "\n\nHi.<|im_end|>" in shown
    assert shown.endswith("<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n")


def test_a_template_that_moves_the_system_prompt_starts_a_new_ledger(tmp_path: Path) -> None:
    # as some Mistral models do: the system prompt stands before the last question
    moving = MISTRAL_LIKE.replace("loop.first and system is", "loop.last and system is")
    e = Encoder(FORMATS["retool"], with_template(tmp_path, moving, "mistral"), TOOLS)
    assert not e.strips_thinking
    assert e.follow_up("And?", ended=True) is None


def test_a_template_that_names_the_tool_is_told_its_name(tmp_path: Path) -> None:
    naming = QWEN_LIKE.replace(
        '"\\n<tool_response>\\n"', '"\\n<tool_response " + message.name + ">\\n"'
    )
    assert naming != QWEN_LIKE
    e = Encoder(FORMATS["hermes"], with_template(tmp_path, naming), TOOLS)
    shown = text(e, e.results([CallRecord("a", {}, "1"), CallRecord("b", {}, "2")], ended=True))
    assert "<tool_response a>\n1\n" in shown
    assert "<tool_response b>\n2\n" in shown


def test_a_template_with_trimmed_contents_gets_trimmed_contents(tmp_path: Path) -> None:
    trimming = QWEN_LIKE.replace("message.content +", "message.content | trim +")
    e = Encoder(FORMATS["hermes"], with_template(tmp_path, trimming), TOOLS)
    assert "<tool_response>\n1\n</tool_response>" in text(
        e, e.results(records([" 1\n"]), ended=True)
    )


@pytest.mark.parametrize("template", ["{% for %}", "{{ nope("])
def test_a_broken_template_is_told_in_one_sentence(tmp_path: Path, template: str) -> None:
    with pytest.raises(TokenizerError, match=r"the chat template in .*broken"):
        Encoder(FORMATS["retool"], with_template(tmp_path, template), TOOLS)


def test_a_template_that_loses_tool_results_is_refused(tmp_path: Path) -> None:
    losing = "{% for m in messages[:2] %}{{ m.role + m.content }}{% endfor %}"
    with pytest.raises(UsageError, match="can't take tool results"):
        Encoder(FORMATS["hermes"], with_template(tmp_path, losing), TOOLS)
    Encoder(FORMATS["retool"], with_template(tmp_path, losing), TOOLS)


def test_a_template_can_not_reach_out_of_its_sandbox(tmp_path: Path) -> None:
    template = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    chat = ChatTemplate(with_template(tmp_path, template))
    with pytest.raises(ValueError, match="unsafe"):
        chat.render([{"role": "user", "content": "?"}])


def test_the_plain_layout_is_plain() -> None:
    e = encoder("llama3", "plain", "retool")
    assert e.template.plain
    shown = text(e, e.prompt("How many?", [Message("system", "Be brief.")]))
    assert shown.endswith("\n\nBe brief.\n\nUser:\nHow many?\n\nAssistant:\n")
    assert text(e, e.follow_up("And?", ended=True) or []) == "\n\nUser:\nAnd?\n\nAssistant:\n"
    assert text(e, e.follow_up("And?", ended=False) or []).startswith("<|eot_id|>\n\nUser:")
