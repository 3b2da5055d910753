"""What is read from files: passages with ids and titles, whatever stands in the files."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlace.tools.errors import DataError
from interlace.tools.search import Passage
from interlace.tools.search.documents import as_passage, find_files, lines, passages


def read(path: Path, characters: int = 400) -> list[Passage]:
    return list(passages(path.name, lines(path, len), characters))


def test_a_row_of_jsonl_is_a_passage_and_ids_need_not_be_strings(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text(
        '\ufeff{"id": 7, "title": "Tea", "text": "Steep it."}\n'
        "\n"
        '{"id": [1, 2], "title": null, "text": "A list for an id."}\n'
        '{"_id": "b", "contents": "\\"Oslo\\"\\nA city.\\nIn Norway."}\n'
        '{"text": "No id at all, and half an emoji: \\ud83d"}\n',
        encoding="utf-8",
    )
    assert read(path) == [
        Passage("7", "Tea", "Steep it."),
        Passage("[1, 2]", "", "A list for an id."),
        Passage("b", "Oslo", "A city.\nIn Norway."),
        Passage("corpus.jsonl:5", "", "No id at all, and half an emoji: ?"),
    ]


@pytest.mark.parametrize(
    "row",
    ["{", "[1]", '"text"', "3", '{"id": 1}', '{"text": 5}', "[" * 100_000, "9" * 5_000, "\x00"],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, row: str) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"text": "good"}\n' + row + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"corpus\.jsonl, line 2, is not"):
        read(path)


def test_markdown_is_titled_with_its_headings_and_code_is_no_heading(tmp_path: Path) -> None:
    path = tmp_path / "guide.md"
    path.write_text(
        "Before all.\n\n# Oven\n\nBake.\n\n## Care ##\n\n```sh\n# not a heading\n```\n\n"
        "# Fridge\n\n### Deep\n\nCool.\n",
        encoding="utf-8",
    )
    assert [(passage.id, passage.title, passage.text) for passage in read(path)] == [
        ("guide.md#1", "guide.md", "Before all."),
        ("guide.md#2", "Oven", "Bake."),
        ("guide.md#3", "Oven > Care", "```sh\n# not a heading\n```"),
        ("guide.md#4", "Fridge > Deep", "Cool."),
    ]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(alphabet="ab. \n", max_size=300), max_size=6), st.integers(100, 300))
def test_cutting_text_loses_no_word_and_no_piece_is_too_long(parts: list[str], most: int) -> None:
    text = "\n\n".join(parts)
    pieces = list(passages("a.txt", text.splitlines(keepends=True), most))
    assert "".join("".join(piece.text for piece in pieces).split()) == "".join(text.split())
    assert all(0 < len(piece.text) <= most for piece in pieces)
    assert [piece.id for piece in pieces] == [f"a.txt#{n + 1}" for n in range(len(pieces))]


def test_text_is_cut_where_sentences_end() -> None:
    sentence = "The cat sat on the mat and it was warm there. "
    pieces = list(passages("a.txt", [sentence * 20], 200))
    assert len(pieces) > 4
    assert all(piece.text.endswith("there.") for piece in pieces)


def test_bytes_that_are_no_text_are_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"caf\xe9 \x00 \xff\xfe ok")
    [passage] = read(path)
    assert passage.text == "caf\ufffd \x00 \ufffd\ufffd ok"


def test_a_folder_is_read_whole_but_for_what_is_hidden_or_no_file(tmp_path: Path) -> None:
    for name in ("b.md", "a.TXT", "sub/c.jsonl", ".git/d.md", ".e.md", "f.pdf"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x", encoding="utf-8")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.md").symlink_to(tmp_path / "nowhere")
    assert list(find_files(tmp_path)) == ["a.TXT", "b.md", "sub/c.jsonl"]


def test_a_link_that_leads_out_of_the_folder_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = tmp_path / "corpus"
    (corpus / "sub").mkdir(parents=True)
    for path in (tmp_path / "secret.txt", corpus / "own.txt", corpus / "sub" / "deep.txt"):
        path.write_text("x", encoding="utf-8")
    (corpus / "away.txt").symlink_to("../secret.txt")
    (corpus / "absolute.md").symlink_to(tmp_path / "secret.txt")
    (corpus / "by.txt").symlink_to(corpus / "away.txt")
    (corpus / "again.txt").symlink_to("sub/deep.txt")
    linked = tmp_path / "linked"
    linked.symlink_to(corpus)  # the folder itself may be a link: its user named it
    for source in (corpus, linked):
        assert list(find_files(source)) == ["again.txt", "own.txt", "sub/deep.txt"]
        assert "3 links lead out of" in caplog.messages[-1] and "away.txt" in caplog.messages[-1]
    for name in ("again.txt", "own.txt", "sub/deep.txt"):
        (corpus / name).unlink()
    with pytest.raises(DataError, match="3 links lead out of it"):
        find_files(corpus)


def test_a_source_that_holds_nothing_to_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(DataError, match=r"holds no file .* \.jsonl, \.md"):
        find_files(tmp_path)
    with pytest.raises(DataError, match="may end in"):
        find_files(tmp_path / "a.pdf")
    with pytest.raises(DataError, match="no file or folder"):
        find_files(tmp_path / "b")


@pytest.mark.parametrize(
    ("row", "passage"),
    [
        ("text", Passage("", "", "text")),
        ({"contents": "one line"}, Passage("", "", "one line")),
        ({"contents": '"T"\nx', "title": "U"}, Passage("", "U", '"T"\nx')),
        ({"id": 0, "title": "T", "content": "x"}, Passage("0", "T", "x")),
        ({"id": 1}, None),
        (None, None),
        ([], None),
    ],
)
def test_documents_come_in_several_shapes(row: object, passage: Passage | None) -> None:
    assert as_passage(row) == passage
