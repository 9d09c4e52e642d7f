"""Chunks are of the right size, lose nothing, and keep within their chapter."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fetcher.texts.chunking import Piece, chunked
from fetcher.texts.parsers import Block, Flaw, Heading, Section, Title

# Few characters, so that ends of sentences, blanks and long words come together often.
TEXTS = st.text(alphabet="ab. !\n\t。”)é", max_size=400)
BLOCKS = st.lists(
    st.one_of(TEXTS, TEXTS.map(Heading), st.sampled_from([Section("c"), Section(book="b"), Title("t"), Flaw("f")])),
    max_size=20,
)
SIZES = st.tuples(st.integers(50, 120), st.integers(0, 50)).filter(lambda each: each[1] * 2 <= each[0])


def pieces(blocks: list[Block], size: int = 100, overlap: int = 20) -> list[Piece]:
    return [each for each in chunked(blocks, size, overlap) if isinstance(each, Piece)]


def texts(*blocks: Block, size: int = 100, overlap: int = 20) -> list[str]:
    return [each.text for each in pieces(list(blocks), size, overlap)]


def letters(text: str) -> str:
    return "".join(text.split())


@given(BLOCKS, SIZES)
@example(["a" * 1000], (50, 25))
@example([("a " * 20 + ". ") * 20, Heading("h"), "b" * 49], (50, 25))
def test_no_text_is_lost_and_no_piece_is_too_long(blocks: list[Block], sizes: tuple[int, int]) -> None:
    size, overlap = sizes
    found = pieces(blocks, size, overlap)

    given_texts = (each if isinstance(each, str) else each.text for each in blocks if isinstance(each, str | Heading))
    assert "".join(letters(each.text[each.repeated :]) for each in found) == letters("".join(given_texts))
    assert all(0 < len(each.text) <= size for each in found)
    assert all(each.text == each.text.strip() for each in found)


@given(BLOCKS, SIZES)
def test_a_piece_repeats_at_most_the_overlap_and_only_what_ends_the_one_before_in_its_chapter(
    blocks: list[Block], sizes: tuple[int, int]
) -> None:
    size, overlap = sizes
    before = None
    for each in pieces(blocks, size, overlap):
        assert each.repeated <= overlap
        if each.repeated:
            assert before is not None
            assert before.section == each.section
            assert before.text.endswith(each.text[: each.repeated])
            # From the beginning of a word, or behind a mark that ends a sentence without a blank.
            assert before.text[-each.repeated - 1] in " \n\t。”)"
        before = each


@given(BLOCKS, SIZES)
def test_a_piece_is_of_one_chapter(blocks: list[Block], sizes: tuple[int, int]) -> None:
    numbered: list[Block] = []
    for number, each in enumerate(blocks):
        if isinstance(each, Heading | Section):
            numbered.append(Section(str(number)))
        elif isinstance(each, str):
            # Every letter says which chapter it is of.
            numbered.append("".join(chr(0x4E00 + len(numbered)) if mark.isalpha() else mark for mark in each))
    chapter, allowed = "", dict[str, set[str]]()
    for one in numbered:
        if isinstance(one, Section):
            chapter = str(one.chapter)
        elif isinstance(one, str):
            allowed.setdefault(chapter, set()).update(one)
    for piece in pieces(numbered, *sizes):
        assert {mark for mark in piece.text if mark.isalpha()} <= allowed[piece.section.chapter or ""]


@given(BLOCKS, SIZES)
def test_streaming_gives_what_the_whole_gives_and_takes_only_what_it_needs(
    blocks: list[Block], sizes: tuple[int, int]
) -> None:
    taken = 0

    def one_by_one() -> Iterator[Block]:
        nonlocal taken
        for taken, each in enumerate(blocks, 1):  # noqa: B007
            yield each

    whole = list(chunked(blocks, *sizes))
    stream = chunked(one_by_one(), *sizes)
    for number, each in enumerate(whole):
        assert next(stream) == each
        # What came so far depends on nothing that was not read yet.
        assert list(chunked(blocks[:taken], *sizes))[: number + 1] == whole[: number + 1]
    assert next(stream, None) is None


def test_paragraphs_are_packed_into_a_piece_until_it_is_full() -> None:
    assert texts("a" * 40, "b" * 40, "c" * 40, overlap=0) == ["a" * 40 + "\n\n" + "b" * 40, "c" * 40]


def test_a_long_paragraph_is_cut_after_a_sentence() -> None:
    first, second = (
        "The first one is as long as this, and it says no more than it has to.",
        "The second one follows it.",
    )
    assert texts(f"{first} {second} {second}", overlap=0) == [f"{first} {second}", second]


def test_a_long_sentence_is_cut_after_a_word_and_a_long_word_anywhere() -> None:
    assert texts("word " * 30, overlap=0) == [("word " * 20).strip(), ("word " * 10).strip()]
    assert texts("x" * 250, overlap=0) == ["x" * 100, "x" * 100, "x" * 50]


def test_a_piece_begins_with_the_last_sentence_of_the_one_before() -> None:
    text = "Here is a sentence of some length, made to fill. Now a second one that is as long. Short one. " + "w " * 40
    first, second, *_ = pieces([text], 100, 20)
    assert first.text.endswith("Short one.")
    assert second.text.startswith("Short one. w w")
    assert second.repeated == len("Short one.")


def test_nothing_is_repeated_in_the_next_chapter() -> None:
    found = pieces([Heading("One"), "a " * 90, Heading("Two"), "b " * 20])
    assert [each.section.chapter for each in found] == ["One", "One", "Two"]
    assert found[-1] == Piece("Two\n\n" + ("b " * 20).strip(), Section("Two"))


def test_headings_without_a_text_stand_before_the_next_one() -> None:
    found = pieces([Heading("Part I"), Heading("Chapter 1"), "Text.", Heading("The end")])
    assert [(each.section.chapter, each.text) for each in found] == [
        ("Chapter 1", "Part I\n\nChapter 1\n\nText."),
        ("The end", "The end"),
    ]


def test_a_heading_keeps_the_book_of_its_section() -> None:
    (found,) = pieces([Section("x", "Book", "d", "c"), Heading("One"), "Text."])
    assert found.section == Section("One", "Book", "d", "c")


@pytest.mark.parametrize("text", ["." * 300_000, " " * 300_000 + "x", ".\n" * 100_000, "。" * 100_000, ". " * 100_000])
def test_no_text_takes_long(text: str) -> None:
    assert texts(text, size=100_000, overlap=50_000)
