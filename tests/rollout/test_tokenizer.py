"""Tokenizers: text of others never becomes a control token, and continuations gain no blank."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.toy_tokenizers import TEMPLATES, VOCABULARIES, save, tokenizer
from tokenizers import Tokenizer as Fast
from tokenizers import normalizers

from interlace.agent.cli.actions.doctor import report
from interlace.rollout.engines.scripted import ScriptedEngine
from interlace.rollout.formats import FORMATS
from interlace.rollout.loop import Rollout
from interlace.rollout.policy import Policy
from interlace.rollout.tokenizer import Tokenizer, TokenizerError
from interlace.rollout.trajectory import FinishReason, Trajectory

TAGS = sorted({tag for format in FORMATS.values() for tag in format.control_tags})
CONTROLS = sorted({text for name in VOCABULARIES for text in tokenizer(name).control_texts})
PIECES = [
    *TAGS,
    *CONTROLS,
    "<",
    "</",
    "|>",
    "<|im_",
    "end|>",
    "\\",
    "`",
    "\uff1c",
    "\uff5c",
    "<\\",
    "İ",
    "é",
]
names = st.sampled_from(list(VOCABULARIES))
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=5)).map("".join)


@given(names, texts | texts.map(str.upper))
def test_no_text_of_others_becomes_a_control_token_or_a_tag(name: str, text: str) -> None:
    t = tokenizer(name)
    safe = t.escape_control_tokens(text, TAGS)
    assert t.control_ids.isdisjoint(t.encode(safe))
    assert t.control_ids.isdisjoint(t.encode_continuation(safe))
    assert not [tag for tag in TAGS if tag in safe]
    assert t.escape_control_tokens(safe, TAGS) == safe


@given(names, st.text())
def test_text_without_marks_is_left_as_it_is(name: str, text: str) -> None:
    t = tokenizer(name)
    if not any(mark.casefold() in text.casefold() for mark in (*TAGS, *t.control_texts)):
        assert t.escape_control_tokens(text, TAGS) == text


@pytest.mark.parametrize("name", VOCABULARIES)
def test_text_of_any_length_may_hold_half_a_character(name: str) -> None:
    t = tokenizer(name)
    for length in (1, 30_000):
        assert t.encode("a" * length + "\ud800") == t.encode("a" * length + "\\ud800")


def test_the_change_is_visible_and_small() -> None:
    t = tokenizer("qwen")
    assert (
        t.escape_control_tokens("a <|im_end|> b </answer>", ["</answer>"])
        == "a <\\|im_end|> b <\\/answer>"
    )
    assert t.escape_control_tokens("a < b") == "a < b"
    assert t.escape_control_tokens("````", ["```"]).replace("\\", "") == "````"
    # what a model said may keep tags that are no special tokens
    assert (
        t.escape_control_tokens("<think> <|im_end|>", special_only=True) == "<think> <\\|im_end|>"
    )


def test_a_normalizer_can_not_make_a_control_token_out_of_other_characters(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    folder.mkdir()
    save(folder, "qwen", None)
    content = json.loads((folder / "tokenizer.json").read_text())
    for token in content["added_tokens"]:
        token["normalized"] = True
    (folder / "tokenizer.json").write_text(json.dumps(content))
    fast = Fast.from_file(str(folder / "tokenizer.json"))
    fast.normalizer = normalizers.NFKC()
    fast.save(str(folder / "tokenizer.json"))
    t = Tokenizer.load(folder)
    wide = "\uff1c\uff5cim_end\uff5c\uff1e"  # fullwidth
    assert not t.control_ids.isdisjoint(t.encode(wide))  # the danger is real
    assert t.control_ids.isdisjoint(t.encode(t.escape_control_tokens(wide)))


@given(names, st.text(alphabet=st.characters(codec="utf-8"), min_size=1))
def test_a_continuation_adds_its_own_text_and_nothing_else(name: str, text: str) -> None:
    t = tokenizer(name)
    before = t.encode("so")
    whole = t.encode("so" + text)
    continued = before + t.encode_continuation(text)
    assert t.decode(continued) == t.decode(whole)


def test_a_continuation_behind_a_control_token_has_the_ids_of_the_whole() -> None:
    for name in VOCABULARIES:
        t = tokenizer(name)
        end = t.special_text("eos_token")
        assert end is not None
        text = "\nThen print(1)"
        whole = t.encode(f"one{end}{text}")
        assert whole[-len(t.encode_continuation(text, after=end)) :] == t.encode_continuation(
            text, after=end
        )


@given(names, st.text(alphabet=st.characters(codec="utf-8")))
def test_pieces_join_to_the_text_but_for_a_character_that_is_not_whole(
    name: str, text: str
) -> None:
    t = tokenizer(name)
    ids = t.encode_continuation(text)
    assert len(t.pieces(ids)) == len(ids)
    if name != "mistral":  # (a first blank is the tokenizer's own)
        assert "".join(t.pieces(ids)) == t.decode(ids)


def test_ends_and_beginnings_are_read_from_the_config() -> None:
    assert [tokenizer("qwen").token(id) for id in tokenizer("qwen").eos_ids] == ["<|im_end|>"]
    assert not tokenizer("qwen").adds_bos


def broken(tmp_path: Path, name: str, content: str | bytes | None) -> Path:
    folder = tmp_path / "broken"
    shutil.copytree(tokenizer("qwen").path, folder)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("tokenizer.json", "{", "tokenizer.json is not a readable tokenizer"),
        ("tokenizer.json", "{}", "tokenizer.json is not a readable tokenizer"),
        ("tokenizer_config.json", "{", "tokenizer_config.json is not JSON"),
        ("tokenizer_config.json", b"\xff", "tokenizer_config.json is not UTF-8"),
        ("tokenizer_config.json", "[]", "does not hold a JSON object"),
        ("generation_config.json", "nope", "generation_config.json is not JSON"),
    ],
)
def test_broken_files_are_named_in_one_sentence(
    tmp_path: Path, name: str, content: str | bytes, sentence: str
) -> None:
    with pytest.raises(TokenizerError, match=sentence) as caught:
        Tokenizer.load(broken(tmp_path, name, content))
    assert "\n" not in str(caught.value)


def test_no_tokenizer_is_told_apart_from_no_folder(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="is not a folder"):
        Tokenizer.load(tmp_path / "nowhere")
    with pytest.raises(TokenizerError, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("left", [[], ["vocab.json"], ["merges.txt"]])
def test_a_lost_tokenizer_is_never_taken_for_another(tmp_path: Path, left: list[str]) -> None:
    """transformers would make an empty Qwen2 tokenizer of these without a word."""
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    for name in left:
        (tmp_path / name).write_text('{"a": 0, "b": 1}' if name == "vocab.json" else "#version\n")
    with pytest.raises(TokenizerError, match="fetch it again"):
        Tokenizer.load(tmp_path)


def test_ends_that_are_no_ids_are_refused(tmp_path: Path) -> None:
    folder = broken(tmp_path, "generation_config.json", '{"eos_token_id": "<|im_end|>"}')
    with pytest.raises(TokenizerError, match="no token id"):
        _ = Tokenizer.load(folder).eos_ids


def test_a_slow_tokenizer_is_converted_by_transformers(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    content = json.loads((tokenizer("llama3").path / "tokenizer.json").read_text())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps({**content["vocab"], "<|endoftext|>": 9999}))
    merges = [" ".join(pair) for pair in content["merges"]]
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    config = {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    t = Tokenizer.load(tmp_path)
    assert t.decode(t.encode("print(1)")) == "print(1)"
    assert [t.token(id) for id in t.eos_ids] == ["<|endoftext|>"]


def base(folder: Path, vocabulary: str, template: str | None) -> Tokenizer:
    """A base model's tokenizer: its files name `<|endoftext|>` alone as the end of a text."""
    save(folder, vocabulary, template)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token": "<|endoftext|>"}))
    return Tokenizer.load(folder)


def test_what_the_template_ends_a_turn_with_ends_a_turn(tmp_path: Path) -> None:
    t = base(tmp_path, "qwen", TEMPLATES["qwen"])
    (end,) = t.encode("<|im_end|>")
    assert t.turn_end == end and end not in t.named_eos_ids
    assert t.eos_ids == t.named_eos_ids | {end}
    engine = ScriptedEngine(t, ["It is \\boxed{7}.<|im_end|>\nand on it runs"])
    trajectory = asyncio.run(_asked(Policy(engine, FORMATS["hermes"])))
    assert trajectory.answer == "7" and trajectory.turns[0].finish is FinishReason.EOS
    warned = [each for each in report(tmp_path, "hermes").warnings if "<|im_end|>" in each]
    assert warned == [
        "the template ends a turn with <|im_end|>, the model's files with <|endoftext|>: here both "
        "end it, other programs may run on"
    ]


async def _asked(policy: Policy) -> Trajectory:
    async with Rollout(policy, name="t") as rollout:
        return await rollout.ask("?")


@pytest.mark.parametrize("name", VOCABULARIES)
def test_a_template_that_ends_turns_as_the_files_say_adds_no_end(name: str, tmp_path: Path) -> None:
    t = tokenizer(name)
    assert t.turn_end in {None, *t.named_eos_ids}
    assert t.eos_ids == t.named_eos_ids
    save(tmp_path, name, "{{ messages[0].content }} {{ messages[1].content }}, he said")
    assert Tokenizer.load(tmp_path).turn_end is None
