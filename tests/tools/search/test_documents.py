"""What is read from files: passages with ids and titles, whatever the files hold."""

import bz2
import csv
import gzip
import json
import lzma
import os
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from interlace.tools.errors import DataError
from interlace.tools.search import Passage, SearchIndex
from interlace.tools.search.documents import ENDINGS, as_passage, passages, read_passages
from interlace.tools.search.sources import LONGEST_LINE, Remarks, find_files


def read(path: Path, characters: int = 400, remarks: Remarks | None = None) -> list[Passage]:
    found = list(read_passages(path, path.name, characters, remarks or Remarks()))
    assert len({place for place, _ in found}) == len(found)
    return [passage for _, passage in found]


def shown(path: Path, text: str | bytes) -> list[tuple[str, str]]:
    """The titles and texts of the passages of a file with this content."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return [(passage.title, passage.text) for passage in read(path)]


def cut(name: str, text: str, most: int) -> list[Passage]:
    lines = [f"{line}\n" for line in text.split("\n")]
    return [passage for _, passage in passages(name, lines, most, Remarks())]


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
    pieces = cut("a.txt", text, most)
    assert "".join("".join(piece.text for piece in pieces).split()) == "".join(text.split())
    assert all(0 < len(piece.text) <= most for piece in pieces)
    assert [piece.id for piece in pieces] == [f"a.txt#{n + 1}" for n in range(len(pieces))]


def test_text_is_cut_where_sentences_end() -> None:
    sentence = "The cat sat on the mat and it was warm there. "
    pieces = cut("a.txt", sentence * 20, 200)
    assert len(pieces) > 4
    assert all(piece.text.endswith("there.") for piece in pieces)


# -- bytes ----------------------------------------------------------------------------------------

FERRY = "Das Fährschiff nach Håøya: 5 €"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("ending", [".txt", ".md", ".rst", ".html", ".jsonl", ".json", ".csv"])
@pytest.mark.parametrize("packed", [False, True])
def test_text_is_read_in_its_encoding(
    tmp_path: Path, encoding: str, ending: str, packed: bool
) -> None:
    text = {
        ".jsonl": json.dumps({"text": FERRY}) + "\n",
        ".json": json.dumps([{"text": FERRY}], ensure_ascii=False),
        ".csv": f"id,text\n,{FERRY}\n",
    }.get(ending, f"{FERRY}\n")
    data = text.encode(encoding)
    path = tmp_path / f"a{ending}{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(data) if packed else data)
    remarks = Remarks()
    [passage] = read(path, remarks=remarks)
    assert passage.text == FERRY and not remarks.files


def test_bytes_that_are_not_utf_8_are_read_as_windows_1252_and_counted(tmp_path: Path) -> None:
    remarks = Remarks()
    (tmp_path / "old.txt").write_bytes("Schlüssel in Köln\n".encode("latin-1"))
    (tmp_path / "mixed.txt").write_bytes("Köln: caf".encode() + b"\xe9 \x00 \xff\x93 ok \x81")
    (tmp_path / "good.txt").write_text("Köln")
    assert [read(path, remarks=remarks)[0].text for path in sorted(tmp_path.iterdir())] == [
        "Köln",
        "Köln: café \x00 ÿ\u201c ok \ufffd",
        "Schlüssel in Köln",
    ]
    assert str(remarks) == (
        "2 files with bytes that are not UTF-8, read as Windows-1252 (mixed.txt: 4, old.txt: 2)"
    )


def test_a_page_that_declares_its_encoding_is_read_in_it(tmp_path: Path) -> None:
    page = '<html><head><meta charset="{}"></head><body>{}</body></html>'
    for charset, text in (
        ("shift_jis", "灯台"),
        ("ISO-8859-1", "Köln"),
        ("windows-1251", "маяк"),
        ("iso-9999", "Köln"),
        ("utf-16", "Köln"),
    ):
        known = charset not in ("iso-9999", "utf-16")
        data = page.format(charset, text).encode(charset if known else "utf-8")
        assert shown(tmp_path / "a.html", data) == [("a.html", text)]


@pytest.mark.parametrize(
    ("ending", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)]
)
def test_packed_files_are_read_and_damaged_ones_told(
    tmp_path: Path, ending: str, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / f"a.txt.{ending}"
    data = pack(b"The ferry. " * 1_000)
    path.write_bytes(data)
    assert found(tmp_path) == [path.name] and read(path)[0].text.startswith("The ferry. ")
    path.write_bytes(data[:-20])
    with pytest.raises(DataError, match=rf"can't read a\.txt\.{ending}: "):
        read(path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_line_end_ends_a_line(tmp_path: Path, end: str) -> None:
    lines = ["# Ferry", "", "It leaves", "at nine.", "", "## Fare", "", "Two pounds.", ""]
    assert shown(tmp_path / "a.md", end.join(lines)) == [
        ("Ferry", "It leaves\nat nine."),
        ("Ferry > Fare", "Two pounds."),
    ]


@pytest.mark.parametrize(
    ("name", "before"), [("a.jsonl", '{"text": "'), ("a.csv", "text\n"), ("a.tsv", "1\t2\n3\t")]
)
def test_a_row_that_is_too_long_is_told_by_its_length(
    tmp_path: Path, name: str, before: str
) -> None:
    path = tmp_path / name
    path.write_text(before + "x" * LONGEST_LINE + '"}\n')
    with pytest.raises(DataError, match=r"line [12], is longer than 16,000,000 characters"):
        read(path)


def test_a_cell_may_be_longer_than_csv_s_own_limit(tmp_path: Path) -> None:
    path, before = tmp_path / "a.csv", csv.field_size_limit(131_072)
    try:
        path.write_text("id,text\n7," + "x" * 131_073 + "\n")
        assert read(path) == [Passage("7", "", "x" * 131_073)]
    finally:
        csv.field_size_limit(before)


# -- files ----------------------------------------------------------------------------------------


def found(folder: Path) -> list[str]:
    return list(find_files(folder, ENDINGS)[0])


def test_each_file_of_a_folder_is_read_or_named_with_the_reason(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    names = [
        "b.md",
        "a.TXT",
        "sub/c.jsonl",
        "e.HTML.gz",
        "f.pdf",
        "g.pdf",
        "sub/h.tar.gz",
        "README",
    ]
    names += [".git/d.md", ".e.md", "~$b.md"]
    for name in (*names, "../secret.txt", "../else/i.md"):
        path = corpus / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("x", encoding="utf-8")
    os.mkfifo(corpus / "pipe.txt")
    (corpus / "sub" / "loop").symlink_to(corpus)
    (corpus / "gone.md").symlink_to("nowhere.md")
    (corpus / "away.txt").symlink_to("../secret.txt")
    (corpus / "by.txt").symlink_to(corpus / "away.txt")
    (corpus / "else").symlink_to("../else")
    (corpus / "own.txt").symlink_to("sub/../b.md")
    linked = tmp_path / "linked"
    linked.symlink_to(corpus)  # the folder itself may be a link: its user named it
    for source in (corpus, linked):
        files, others = find_files(source, ENDINGS)
        assert list(files) == ["a.TXT", "b.md", "e.HTML.gz", "own.txt", "sub/c.jsonl"]
        assert {why: sorted(names) for why, names in others.files.items()} == {
            "ending in .pdf": ["f.pdf", "g.pdf"],
            "ending in .gz": ["sub/h.tar.gz"],
            "without an ending": ["README"],
            "hidden": [".e.md", ".git/"],
            "that an office program made as locks": ["~$b.md"],
            "that are links out of the folder": ["away.txt", "by.txt"],
            "behind links to folders": ["else/", "sub/loop/"],
            "that are broken links, pipes or devices": ["gone.md", "pipe.txt"],
        }


def test_names_that_are_not_utf_8_stay_apart(tmp_path: Path) -> None:
    for name in (b"a\xff.txt", b"a\xfe.txt", "aö.txt".encode()):
        with open(os.path.join(os.fsencode(tmp_path), name), "w") as file:
            file.write("x")
    assert found(tmp_path) == ["a\\xfe.txt", "a\\xff.txt", "aö.txt"]


def test_a_snapshot_of_the_hugging_face_hub_is_read_through_its_links(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "datasets--us--ferries"
    snapshot = repository / "snapshots" / "0a1b"
    (repository / "blobs").mkdir(parents=True)
    (snapshot / "data").mkdir(parents=True)
    (repository / "blobs" / "c0ffee").write_text('{"text": "The ferry leaves at nine."}\n')
    (tmp_path / "secret.txt").write_text("x")
    (snapshot / "data" / "train.jsonl").symlink_to("../../../blobs/c0ffee")
    (snapshot / "away.txt").symlink_to(tmp_path / "secret.txt")
    assert found(snapshot) == ["data/train.jsonl"] == found(snapshot / ".." / "0a1b")
    assert found(snapshot / "data") == ["train.jsonl"]
    assert found(repository) == ["snapshots/0a1b/data/train.jsonl"]
    for source in (snapshot, snapshot / "data" / "train.jsonl"):  # whose target has no ending
        [hit] = SearchIndex(source, tmp_path / "index").find("ferry", 3)
        assert hit.passage.text == "The ferry leaves at nine."
    # Blobs that are themselves a link could lead anywhere.
    (repository / "blobs").rename(tmp_path / "elsewhere")
    (repository / "blobs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="1 file that are links out of the folder"):
        found(snapshot / "data")


def test_a_source_that_holds_nothing_to_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(DataError, match=r"holds no file .* \.jsonl, .*left out: 1 file ending in"):
        found(tmp_path)
    with pytest.raises(DataError, match="may end in"):
        found(tmp_path / "a.pdf")
    with pytest.raises(DataError, match="no file or folder"):
        found(tmp_path / "b")


# -- rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "passage"),
    [
        ("text", Passage("", "", "text")),
        ({"contents": "one line"}, Passage("", "", "one line")),
        ({"contents": '"T"\nx', "title": "U"}, Passage("", "U", '"T"\nx')),
        ({"docid": "D7", "contents": "T\n\nx"}, Passage("D7", "T", "x")),
        ({"doc_id": 3, "contents": "It is red.\nx"}, Passage("3", "", "It is red.\nx")),
        ({"contents": "y" * 201 + "\n\nx"}, Passage("", "", "y" * 201 + "\n\nx")),
        ({"id": None, "_id": "q", "title": "", "text": "T\n\nx"}, Passage("q", "", "T\n\nx")),
        ({"pid": "p", "docid": "d", "passage": "x"}, Passage("p", "", "x")),
        ({"text": None, "contents": "x"}, Passage("", "", "x")),
        ({"text": " ", "body": "x"}, Passage("", "", "x")),
        ({"id": 0, "title": "T", "content": "x"}, Passage("0", "T", "x")),
        ({"id": 1}, None),
        (None, None),
        ([], None),
    ],
)
def test_documents_come_in_several_shapes(row: object, passage: Passage | None) -> None:
    assert as_passage(row) == passage


ROWS = [("1", "Tea", 'Steep "it".'), ("2", "", "Two,\tthree.")]
TABLES = {
    "beir/corpus.jsonl": "".join(
        json.dumps({"_id": id, "title": title, "text": text, "metadata": {}}) + "\n"
        for id, title, text in ROWS
    ),
    "list.json": json.dumps(
        [{"id": int(id), "title": title, "text": text} for id, title, text in ROWS], indent=2
    ),
    "lines.json": "".join(
        json.dumps({"id": id, "title": title, "text": text}) + "\n" for id, title, text in ROWS
    ),
    "psgs.tsv": 'id\ttext\ttitle\n1\t"Steep ""it""."\tTea\n2\t"Two,\tthree."\t\n',
    "table.csv": 'id,title,text\n1,Tea,"Steep ""it""."\n2,,"Two,\tthree."\n',
}


@pytest.mark.parametrize("name", TABLES)
def test_rows_are_the_same_whatever_holds_them(tmp_path: Path, name: str) -> None:
    path = tmp_path / Path(name).name
    path.write_text(TABLES[name], encoding="utf-8")
    assert read(path) == [Passage(*row) for row in ROWS]


def test_parquet_holds_rows_too(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    columns = {
        "id": [1, 2],
        "title": ["Tea", ""],
        "text": [text for _, _, text in ROWS],
        "embedding": [[0.5], [0.25]],
    }
    parquet.write_table(pyarrow.table(columns), path)
    assert read(path) == [Passage(*row) for row in ROWS]
    parquet.write_table(pyarrow.table({"question": ["?"]}), path)
    with pytest.raises(DataError, match=r"a\.parquet has no column of texts"):
        read(path)
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"can't read a\.parquet"):
        read(path)


def test_ms_marco_s_tables_have_no_header_and_no_quotes(tmp_path: Path) -> None:
    path = tmp_path / "collection.tsv"
    path.write_text('0\tA "ferry\n1\tsails."\n')
    assert read(path) == [Passage("0", "", 'A "ferry'), Passage("1", "", 'sails."')]
    path.write_text("D15\thttp://a.b/\tFerries\tThey sail.\n")
    assert read(path) == [Passage("D15", "Ferries", "They sail.")]
    path.write_text("0\tA\n1\tB\tC\n")
    with pytest.raises(DataError, match="row 2, has 3 columns and not 2"):
        read(path)


def test_tables_and_json_without_texts_are_read_as_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("price,name\n3,ferry\n")
    (tmp_path / "a.tsv").write_text("price\tname\n3\tferry\n")
    (tmp_path / "a.json").write_text('{"fare": "f\\u00e4hre", "list": [1, {"b": 2.50}]}')
    (tmp_path / "c.json").write_text('{"text": "x", "more": "ferry"}')
    (tmp_path / "b.json").write_text('{"fare": ferry} // not JSON')
    remarks = Remarks()
    texts = {path.name: read(path, remarks=remarks)[0].text for path in tmp_path.iterdir()}
    assert texts["a.csv"] == "price,name\n3,ferry"
    assert texts["a.tsv"] == "price\tname\n3\tferry"
    assert '"fare": "fähre"' in texts["a.json"] and '"b": 2.5' in texts["a.json"]
    assert texts["b.json"] == '{"fare": ferry} // not JSON'
    assert '"more": "ferry"' in texts["c.json"]
    assert remarks.files == {"that are not JSON, read as text": ["b.json"]}


# -- headings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# A\n\n# B\n\n## C\n", [("A", ""), ("B > C", "")]),
        ("A\n===\nx\n\nB\n---\ny\n", [("A", "x"), ("A > B", "y")]),
        ("# C#\nx\n", [("C#", "x")]),
        ("# A ##\nx\n", [("A", "x")]),
        ("``` code ```\n\n# A\nx\n", [("a.md", "``` code ```"), ("A", "x")]),
        (
            "````\n```\n# no\n```\n````\n# A\nx\n",
            [("a.md", "````\n```\n# no\n```\n````"), ("A", "x")],
        ),
        (
            "```\n```python\n# no\n```\n# A\nx\n",
            [("a.md", "```\n```python\n# no\n```"), ("A", "x")],
        ),
        ("~~~\n```\n# no\n~~~\n", [("a.md", "~~~\n```\n# no\n~~~")]),
        (
            "- item\n\n  ```sh\n  # no\n  ```\n\n# A\nx\n",
            [("a.md", "- item\n\n  ```sh\n  # no\n  ```"), ("A", "x")],
        ),
        ("1. item\n   ```sh\n# A\nx\n", [("a.md", "1. item\n   ```sh"), ("A", "x")]),
        ("<!--\n# no\n-->\n\n# A\nx\n", [("a.md", "<!--\n# no\n-->"), ("A", "x")]),
        ("    # no\n#no\n", [("a.md", "    # no\n#no")]),
        (
            "---\ntitle: 'Ferry'\ntags: [x]\n---\n\nText.\n\n# A\nx\n",
            [("Ferry", "Text."), ("Ferry > A", "x")],
        ),
        ("---\ntags:\n- x\n# comment\n\nb: 1\n...\nText.\n", [("a.md", "Text.")]),
        ("---\ntitle: Ferry\n---\n", [("Ferry", "")]),
        ("---\nNot front matter.\n\n---\nx\n", [("a.md", "---\nNot front matter.\n\n---\nx")]),
    ],
)
def test_headings_of_markdown_are_commonmark_s(
    tmp_path: Path, text: str, expected: list[tuple[str, str]]
) -> None:
    assert shown(tmp_path / "a.md", text) == expected


def test_headings_of_rst(tmp_path: Path) -> None:
    text = (
        "=====\nFerry\n=====\n\nIntro.\n\nFares\n-----\n\nTwo::\n\n    A\n    -\n\nChild\n~~~~~\n\n"
        "One.\n\n-----\n\nTimes\n-----\n\n===  ===\nA    B\n===  ===\n"
    )
    assert shown(tmp_path / "a.rst", text) == [
        ("Ferry", "Intro."),
        ("Ferry > Fares", "Two::\n\n    A\n    -"),
        ("Ferry > Fares > Child", "One.\n\n-----"),
        ("Ferry > Times", "===  ===\nA    B\n===  ==="),
    ]


def test_a_page_is_read_as_it_is_shown(tmp_path: Path) -> None:
    page = """<!DOCTYPE html><html><head><title>Ferries &amp; more</title>
    <style>p { color: red }</style><script>if (a < b) { "<p>no</p>" }</script></head>
    <body><!-- no <p>no</p> --><p>It <b>le</b>aves
    at <a href="x?a>b">nine</a>.</p><ul><li>red<li>blue</ul>
    <h1>Fares</h1><table><tr><td>one<td>2 &lt; 3</table>
    <pre>a
      b</pre><h2 class="x">How <i>long</i>?</h2>5 < 6 &nbsp; minutes<br>or so</body></html>"""
    assert shown(tmp_path / "a.html", page) == [
        ("Ferries & more", 'It leaves at b">nine.\n\nred\nblue'),
        ("Ferries & more > Fares", "one\n2 < 3\n\na\n      b"),
        ("Ferries & more > Fares > How long?", "5 < 6 minutes\nor so"),
    ]


LINES = {
    "md": "# One|### Deep ##|#|Set|===|---|```|````|~~~ x|- item|  ||    code|> quote|<div>|<!--|"
    "-->|word|1. n|word.|- ```sh|  ```|#x|+++",
    "rst": "Title|=====|-----------|~~~~~~~~|::|    code|.. note:: |* item|word|===  ===| Framed||",
    "html": "<h1>One|</h1>|<p>para|</p>|<pre>|</pre>|word|<b>bold</b>|<td>cell|<br>|&lt;&amp;|<|>|"
    "a < b|<title>T|</title>|<li>item|<div class='x'>|<script>no</script>|<!-- no -->||</h2>",
    "txt": "word|  indented|\t||. |word.|-",
    "json": '{|}|[|]|word|,|"||:',
}


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([*LINES]), st.data())
def test_each_word_of_a_document_is_in_a_title_or_a_text(kind: str, data: st.DataObject) -> None:
    lines = data.draw(st.lists(st.sampled_from(LINES[kind].split("|")), max_size=30))
    text = "".join(
        f"{line} {n}\n" if line[-1:].isalnum() or line[-2:] == "b>" else f"{line}\n"
        for n, line in enumerate(lines)
    )
    pieces = cut(f"a.{kind}", text, 100)
    held = "\n".join(f"{piece.title}\n{piece.text}" for piece in pieces)
    assert set(re.findall(r" (\d+)\n", text)) <= set(re.findall(r"\d+", held))
    if kind != "md":
        return
    headings = {
        " ".join(inside.content.split())
        for token, inside in pairwise(MarkdownIt().parse(text))
        if token.type == "heading_open" and token.level == 0
    }
    titles = {part for piece in pieces for part in piece.title.split(" > ")}
    assert headings - {""} <= titles <= headings | {"a.md"}
