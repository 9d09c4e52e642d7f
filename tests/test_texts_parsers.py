"""Documents are read into paragraphs and chapters, whatever they are written in, and never more of them than fits."""

from __future__ import annotations

import gzip
import itertools
import json
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from fetcher.texts.parsers import Block, Changed, Flaw, Heading, Section, Title, Unreadable, html, parse
from fetcher.texts.parsers.blocks import MOST, lines


def blocks(name: str, content: str | bytes) -> list[Block]:
    """The blocks of a file of this name and content, in the current folder."""
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(parse(name))


def page(text: str) -> list[Block]:
    return list(html.blocks([text]))


# --- text and Markdown ------------------------------------------------------------------------------


def test_blank_lines_part_the_paragraphs_of_a_text() -> None:
    assert blocks("a.txt", "One\nmore \n\n \t\n\nTwo\r\nlines\r\n") == ["One\nmore", "Two\nlines"]


def test_a_line_alone_that_names_a_chapter_begins_one() -> None:
    text = "Chapter 1\n\nChapter 1 is a\n\nCHAPTER II. The Way\n\nEpilogue\n\nPart of it\n\nIntroduction to it all"
    assert blocks("a.txt", text) == [
        Heading("Chapter 1"),
        Heading("Chapter 1 is a"),
        Heading("CHAPTER II. The Way"),
        Heading("Epilogue"),
        "Part of it",
        "Introduction to it all",
    ]


def test_markdown_has_chapters_by_its_headings() -> None:
    text = """---
title: "A book"
---
# One #
text
text
## Two ##
Three
=====
#### deep
#no heading
```
# code

## more
```
| a |
|---|
"""
    assert blocks("a.md", text) == [
        Title("A book"),
        Heading("One"),
        "text\ntext",
        Heading("Two"),
        Heading("Three"),
        "deep",
        "#no heading",
        "```\n# code\n\n## more\n```",
        "| a |\n|---|",
    ]


def test_a_rule_that_begins_a_text_is_no_front_matter() -> None:
    assert blocks("a.md", "---\ntext\n\nmore") == ["---\ntext", "more"]


@given(st.text(alphabet="a\n ", max_size=200), st.lists(st.integers(0, 200), max_size=10))
def test_lines_are_the_same_however_the_text_is_cut(text: str, cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(text)]
    cut = [text[a:b] for a, b in itertools.pairwise(places)]
    assert list(lines(cut)) == text.removesuffix("\n").split("\n") or not text


def test_a_line_without_an_end_comes_in_parts() -> None:
    text = "word " * (MOST // 2)
    found = list(lines(text[at : at + 5000] for at in range(0, len(text), 5000)))
    assert "".join(found) == text
    assert all(len(each) <= MOST for each in found)
    assert all(each.endswith("word ") for each in found)


# --- encodings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_mark_tells_the_encoding(encoding: str) -> None:
    assert blocks("a.txt", "Käse – 日本".encode(encoding)) == ["Käse – 日本"]


def test_what_is_no_utf_8_is_refused_with_its_place() -> None:
    with pytest.raises(Unreadable, match=r"^byte 300,003 is no UTF-8: save it as UTF-8$"):
        blocks("a.txt", b"ab" * 150_000 + b"cd\xe4e")


def test_a_page_may_declare_its_encoding() -> None:
    text = "<html><meta charset='ISO-8859-1'><p>Käse – gut"
    assert blocks("a.html", text.encode("cp1252")) == ["Käse – gut"]
    assert blocks("b.html", "<?xml version='1.0' encoding='shift_jis'?><html><p>日本".encode("shift_jis")) == ["日本"]
    with pytest.raises(Unreadable, match="its encoding is klingon, which is not known here"):
        blocks("c.html", "<html><meta charset=klingon>")


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"%PDF-1.7\n", "it is a PDF, which is not read here"),
        (b"\x7fELF\0\0\0", "it is no text"),
        (b"PK\x03\x04rest", "the archive cannot be read"),
        (b"BZh91", "it is a bzip2 file, which is not read here"),
    ],
)
def test_what_is_no_text_is_refused(content: bytes, error: str) -> None:
    with pytest.raises(Unreadable, match=error):
        blocks("a.txt", content)


def test_an_empty_file_is_a_document_without_text() -> None:
    assert blocks("a.txt", "") == blocks("a.md", "") == blocks("a.html", "") == blocks("a.json", "") == []


def test_packed_files_are_unpacked() -> None:
    assert blocks("a.md.gz", gzip.compress(b"# One")) == [Heading("One")]
    assert blocks("a.md.zst", zstandard.compress(b"# One")) == [Heading("One")]
    assert blocks("a.jsonl.gz", gzip.compress(b'"one"\n"two"\n')) == [Section(), "one", Section(), "two"]


def test_what_a_file_is_shows_in_its_content_before_its_name() -> None:
    assert blocks("a.txt", "<!-- x --><!DOCTYPE HTML><p>a<p>b") == ["a", "b"]
    assert blocks("b.txt", '{"text": "a"}\n{"text": "b"}\n') == [Section(), "a", Section(), "b"]
    assert blocks("c.txt", "[link](there)\n\n{curly}") == ["[link](there)", "{curly}"]
    assert blocks("noname", "text") == ["text"]


def test_a_file_that_is_written_while_it_is_read_is_not_taken_for_whole() -> None:
    Path("a.txt").write_text("a\n\nb\n\n" * 10)
    found = parse("a.txt")
    next(found)
    with Path("a.txt").open("a") as file:
        file.write("more")
    with pytest.raises(Changed, match="it changed while it was read"):
        list(found)


# --- HTML -------------------------------------------------------------------------------------------


def test_a_page_is_read_as_a_person_sees_it() -> None:
    text = """<html><head><title>A &amp; B</title><style>p {}</style><script>if (a < b) "</p>"</script></head><body>
    <h1>One <em>and</em>
    only</h1><p>Text with <b>bold</b>
    and&nbsp;more.<br>next&shy;line</p><div>bare<p>two<h4>deep</h4><template><p>hidden<template></template></template>
    <ul><li>a<li>b</ul><table><tr><td>1<td>2</tr></table><pre>
  code
    more</pre><svg/>end"""
    assert page(text) == [
        Title("A & B"),
        Heading("One and only"),
        "Text with bold and more.\nnextline",
        "bare",
        "two",
        "deep",
        "a",
        "b",
        "1 2",
        "  code\n    more",
        "end",
    ]


@given(st.lists(st.integers(0, 330), max_size=20))
def test_a_page_is_the_same_however_it_is_cut(cuts: list[int]) -> None:
    text = (
        "<title>T &lt;</title><h2>A&amp;B</h2><!-- no --><p class='x > y'>one &eacute; two"
        "<script>var a = '<p>';</script><br/>three<pre> a\n b </pre><h3>C</h3>end &#8211; of it &notanentity;"
        " <![if !IE]>x<![endif]> a < b"
    )
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert list(html.blocks([text[a:b] for a, b in itertools.pairwise(places)])) == page(text)


def test_a_tag_that_never_ends_is_refused_before_it_fills_the_memory() -> None:
    def endless() -> Iterator[str]:
        yield "<p>text<script>"
        yield from itertools.repeat("var a = 1; " * 10_000)

    with pytest.raises(Unreadable, match="a tag or script of more than 16 MB"):
        list(html.blocks(endless()))


def test_a_heading_that_never_ends_is_text() -> None:
    (found,) = page("<h1>" + "word " * 1000)
    assert isinstance(found, str)


# --- EPUB -------------------------------------------------------------------------------------------

CONTAINER = '<container><rootfiles><rootfile full-path="OPS/book.opf"/></rootfiles></container>'
OPF = """<?xml version="1.0"?>
<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">
<metadata><dc:title>The  Book</dc:title></metadata>
<manifest><item id="nav" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>
<item id="ncx" href="toc.ncx" media-type="application/x-dtbncx+xml"/>
<item id="b" href="text/b%20b.xhtml" media-type="application/xhtml+xml"/>
<item id="a" href="text/a.xhtml" media-type="application/xhtml+xml"/>
<item id="pic" href="pic.svg" media-type="image/svg+xml"/></manifest>
<spine toc="ncx"><itemref idref="nav"/><itemref idref="b"/><itemref idref="pic"/><itemref idref="a"/></spine>
</package>"""
NAV = """<html xmlns:epub="http://www.idpf.org/2007/ops"><body><nav epub:type="toc"><ol>
<li><a href="text/b%20b.xhtml#top">The <i>first</i></a></li></ol></nav>
<nav epub:type="landmarks"><a href="text/a.xhtml">Start</a></nav></body></html>"""
NCX = """<!DOCTYPE ncx PUBLIC "-//NISO//DTD ncx 2005-1//EN" "http://127.0.0.1:1/ncx-2005-1.dtd">
<ncx><navMap><navPoint>
<navLabel><text>From ncx</text></navLabel><content src="text/b b.xhtml"/></navPoint></navMap></ncx>
"""


def epub(**changes: str | None) -> list[Block]:
    """The blocks of a book with these files changed or left out."""
    files: dict[str, str | None] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": CONTAINER,
        "OPS/book.opf": OPF,
        "OPS/nav.xhtml": NAV,
        "OPS/toc.ncx": NCX,
        "OPS/text/b b.xhtml": "<html><head><title>b</title></head><body><h2>I</h2><p>Ä one</p><h2>More</h2><p>two</p>",
        "OPS/text/a.xhtml": "<html><body><p>three</p></body></html>",
        "OPS/pic.svg": "<svg/>",
        **changes,
    }
    with zipfile.ZipFile("book.epub", "w", zipfile.ZIP_DEFLATED) as book:
        for name, content in files.items():
            if content is not None:
                book.writestr(name, content)
    return list(parse("book.epub"))


PAGES = ["I", "Ä one", Heading("More"), "two", "three"]


def test_a_book_is_read_in_its_order_under_the_names_of_its_contents() -> None:
    assert epub() == [Title("The Book"), Section("The first"), *PAGES]


def test_an_older_book_has_its_contents_in_another_file() -> None:
    opf = OPF.replace('properties="nav" ', "").replace('<itemref idref="nav"/>', "")
    assert epub(**{"OPS/book.opf": opf}) == [Title("The Book"), Section("From ncx"), *PAGES]


def test_a_book_without_contents_has_the_chapters_of_its_headings() -> None:
    assert epub(**{"OPS/nav.xhtml": "<broken", "OPS/toc.ncx": None}) == [Title("The Book"), Heading("I"), *PAGES[1:]]


def test_a_page_that_is_missing_is_a_flaw_and_the_others_are_read() -> None:
    assert epub(**{"OPS/text/b b.xhtml": None}) == [
        Title("The Book"),
        Flaw("a page is missing: OPS/text/b b.xhtml"),
        "three",
    ]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"META-INF/container.xml": None}, "it is a zip archive, and no EPUB"),
        ({"OPS/book.opf": None}, "an EPUB without a package document"),
        ({"OPS/book.opf": "<package>"}, "OPS/book.opf: no XML"),
        (
            {"OPS/book.opf": "<!DOCTYPE p [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><package>&a;</package>"},
            "OPS/book.opf: it declares entities, which are not read here",
        ),
        ({"OPS/text/b b.xhtml": "<p>" + "a" * 40_000_000}, "b b.xhtml: it unpacks to more than 100 times its size"),
        ({"OPS/book.opf": " " * 17_000_000}, "OPS/book.opf: more than 16 MB"),
        (
            {"META-INF/encryption.xml": "<e><CipherReference URI='OPS/text/b%20b.xhtml'/></e>"},
            r"it is locked \(DRM\)",
        ),
    ],
)
def test_a_book_that_cannot_be_read_says_why(changes: dict[str, str | None], error: str) -> None:
    with pytest.raises(Unreadable, match=error):
        epub(**changes)


def test_a_book_that_names_a_page_again_and_again_has_an_end() -> None:
    page = "<p>" + "word " * 1_000_000
    spine = OPF.replace('<itemref idref="a"/>', '<itemref idref="a"/>' * 1000)
    with pytest.raises(Unreadable, match=r"a\.xhtml: it unpacks to more than 100 times its size"):
        epub(**{"OPS/book.opf": spine, "OPS/text/a.xhtml": page})


def test_a_damaged_book_is_refused() -> None:
    epub()
    data = bytearray(Path("book.epub").read_bytes())
    place = data.index(b"b b.xhtml") + 20
    data[place : place + 40] = bytes(40)
    with pytest.raises(Unreadable, match=r"the archive cannot be read|b b.xhtml"):
        blocks("broken.epub", bytes(data))


# --- records ----------------------------------------------------------------------------------------

RECORDS = [
    {"text": "a\n\nb", "domain": "d", "category": "c", "source_book": "B", "source_chapter": "C", "id": 1},
    {"content": "x", "title": "T", "chapter": 3},
    {"body": "y", "text": None},
    "alone",
]
AS_BLOCKS = [
    Section("C", "B", "d", "c"),
    "a",
    "b",
    Section("3", "T"),
    "x",
    Section(),
    "y",
    Section(),
    "alone",
]


def test_every_object_with_a_text_is_a_record() -> None:
    assert blocks("a.json", json.dumps(RECORDS)) == AS_BLOCKS
    assert blocks("b.json", json.dumps(RECORDS, indent=2)) == AS_BLOCKS
    assert blocks("a.ndjson", "\n\n".join(map(json.dumps, RECORDS))) == AS_BLOCKS
    assert blocks("c.json", json.dumps(RECORDS[0], indent=1)) == AS_BLOCKS[:3]


def test_a_record_that_cannot_be_used_is_a_flaw_and_the_others_are_read() -> None:
    found = blocks("a.ndjson", '{"text": "a"}\n{"text": 5}\n{broken\n[1]\nnull\n{}\n{"text": "\\ud800"}\n"z"')
    assert [each for each in found if not isinstance(each, Section)] == [
        "a",
        Flaw("line 2: it has no text, neither as text nor as content nor as body"),
        Flaw("line 3: no JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        Flaw("line 4: neither an object nor a text"),
        Flaw("line 5: neither an object nor a text"),
        Flaw("line 6: it has no text, neither as text nor as content nor as body"),
        "\ud800",
        "z",
    ]
    assert blocks("b.json", '[{"text": "a"}, 7]')[2:] == [Flaw("record 2: neither an object nor a text")]


def test_a_json_file_that_breaks_off_gives_what_came_before() -> None:
    Path("a.json").write_text('[{"text": "a"}, {"text": ')
    found = parse("a.json")
    assert [next(found), next(found)] == [Section(), "a"]
    with pytest.raises(Unreadable, match=r"^:1: no JSON: it ends too early$"):
        next(found)


# --- memory -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("a.txt", "A line of text that goes on.\n"),
        ("b.txt", "A word "),
        ("c.md", "# Chapter\n\nA line of text that goes on.\n\n"),
        ("d.html", "<p>A line of text that <b>goes</b> on."),
        ("e.html", "A line and one more "),
        ("f.ndjson", '{"text": "A line of text that goes on."}\n'),
        ("g.json", ',{"text": "A line of text that goes on."}'),
    ],
)
def test_a_large_file_is_never_in_memory_as_a_whole(name: str, unit: str) -> None:
    size = 12 << 20
    with Path(name).open("w") as file:
        file.write("[0" if name.endswith(".json") else "<html>" if name.endswith("html") else "")
        for _ in range(size // (len(unit) * 1000) + 1):
            file.write(unit * 1000)
        file.write("]" if name.endswith(".json") else "")
    # A part of it is enough, and what is left of it is not read.
    found = itertools.islice(parse(name), 2000)
    tracemalloc.start()
    try:
        for each in found:
            del each
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20
