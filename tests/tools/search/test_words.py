# ruff: noqa: RUF001  (letters that look alike are the subject)
"""Spellings that a reader takes for one find each other; others stay apart."""

import json
from pathlib import Path

import pytest

from interlace.tools.search import SearchIndex

ALIKE = [
    ("Die Brücke in Köln", "Die Bru\u0308cke in Ko\u0308ln"),
    ("café crème", "CAFE CREME"),
    ("Αθήνα Νοέμβριος", "αθηνα νοεμβριος"),
    ("ΟΔΟΣ", "οδος"),
    ("ёлка", "елка"),
    ("ве\u0301ра", "вера"),
    ("שָׁלוֹם", "שלום"),
    ("مُحَمَّد", "محمد"),
    ("كتـــاب", "كتاب"),
    ("ｶﾞﾗｽ", "ガラス"),
    ("か\u3099くせい", "がくせい"),
    ("ＡＢＣ１２３", "abc123"),
    ("1,234,567", "1234567"),
    ("1.234.567", "1'234'567"),
    ("1\u202f234\u202f567", "1_234_567"),
    ("12,34,567", "1234567"),
    ("٢٠٢٦", "2026"),
    ("४२", "42"),
    ("İSTANBUL", "istanbul"),
    ("Straße", "STRASSE"),
    ("ﬁnanciële", "financiele"),
    ("H₂O", "h2o"),
    ("light\u00adhouse", "lighthouse"),
    ("light\u200bhouse", "lighthouse"),
    ("light\u2060house\ufeff", "lighthouse"),
    ("light-\nhouse keeper", "lighthouse keeper"),
    ("light\u00ad\n  house", "lighthouse"),
    ("e-mail", "email"),
    ("e\u2011mail", "e-mail"),
    ("light-\nhouse", "light house"),
    ("ประภาคารอยู่ที่ท่าเรือ", "ประภาคาร"),
    ("ຫໍສະໝຸດແຫ່ງຊາດ", "ຫໍສະໝຸດ"),
    ("បណ្ណាល័យជាតិ", "បណ្ណាល័យ"),
    ("စာကြည့်တိုက်ကြီး", "စာကြည့်တိုက်"),
    ("東京タワー", "東京"),
    ("\U00020000\U00020001", "\U00020001"),
    ("한국어를", "한국어"),
    ("क़लम", "क\u093cलम"),
    ("SearchIndex", "search index"),
    ("parseHTTPResponse", "parse http response"),
    ("utf8Decoder", "decoder"),
    ("search_index", "SearchIndex"),
    ("用SearchIndex吧", "search index"),
    ("O\u2019Brien", "O'Brien"),
    ("C♯", "c#"),
]

APART = [
    ("C# guide", "C++ guide"),
    ("F# guide", "F guide"),
    ("C++17", "C 17"),
    ("がく", "かく"),
    ("мой", "мои"),
    ("їжак", "іжак"),
    ("ขาว", "ข้าว"),
    ("साल", "सील"),
    ("1.25", "125"),
    ("1,23,4", "1234"),
    ("12 345", "12345"),
    ("東京", "京都"),
    ("體育", "体育"),
    ("gpus", "GPU us"),
]


SPELLINGS = sorted({spelling for pair in ALIKE + APART for spelling in pair})


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> SearchIndex:
    """Every spelling three times: in a row's text, in its title and in a heading."""
    folder = tmp_path_factory.mktemp("words")
    docs = folder / "docs"
    docs.mkdir()
    rows = []
    for number, spelling in enumerate(SPELLINGS):
        rows.append({"id": f"{number} text", "text": f"{spelling} ."})
        rows.append({"id": f"{number} title", "title": f"{spelling} .", "text": "x"})
        if "\n" in spelling:  # which is a space in HTML
            continue
        page = docs / f"{number} heading.html"
        page.write_text(f"<h2>{spelling} .</h2>\n", encoding="utf-8")
    (docs / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return SearchIndex(docs, folder / "index")


def places(index: SearchIndex, query: str, spelling: str) -> dict[str, float]:
    """The places where a query finds a spelling, with the scores."""
    number = SPELLINGS.index(spelling)
    return {
        hit.passage.id.split()[1].partition(".")[0]: hit.score or 0.0
        for hit in index.find(query, 1_000)
        if hit.passage.id.split()[0] == str(number)
    }


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_each_spelling_finds_the_other_wherever_it_is(
    index: SearchIndex, one: str, other: str
) -> None:
    everywhere = {"text", "title"} if "\n" in one + other else {"text", "title", "heading"}
    assert places(index, one, other).keys() >= everywhere
    assert places(index, other, one).keys() >= everywhere
    assert places(index, f" {one} ", one).keys() >= everywhere


@pytest.mark.parametrize(("one", "other"), APART)
def test_what_is_not_the_same_word_is_found_after_it_or_not_at_all(
    index: SearchIndex, one: str, other: str
) -> None:
    for asked, not_asked in ((one, other), (other, one)):
        mine, others = places(index, asked, asked), places(index, asked, not_asked)
        assert all(mine[place] > score for place, score in others.items()), (mine, others)


def test_the_text_is_shown_as_it_stands(tmp_path: Path) -> None:
    text = "Die Bru\u0308cke, light-\nhouse, １２ C#"
    path = tmp_path / "a.txt"
    path.write_text(text, encoding="utf-8")
    index = SearchIndex(path, tmp_path / "index")
    assert index.find("lighthouse", 1)[0].passage.text == text
