"""Documents become finished rows, read by processes that wait for whoever takes them, and die alone."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fetcher import ConfigurationError
from fetcher.errors import RequestFailed, Stopped
from fetcher.model import Outcome
from fetcher.texts import reading
from fetcher.texts.chunk import Chunk, chunk_id, text_hash
from fetcher.texts.documents import Document, scan
from fetcher.texts.reader import Reader
from fetcher.texts.reading import ChunkRow, Parser, ReadingOptions
from fetcher.texts.settings import TextSettings
from tests import reading_parser
from tests.helpers import ROOT, eventually

pytestmark = pytest.mark.usefixtures("no_threads_left")


def pieces(path: str | Path, **options: Any) -> Iterator[list[ChunkRow]]:
    """What a file is read into, in this process."""
    how = ReadingOptions(**options)
    return reading.pieces(str(path), f"/{path}", how, how.function())


def rows(path: str | Path, **options: Any) -> list[ChunkRow]:
    return list(itertools.chain.from_iterable(pieces(path, **options)))


def written(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)
    return path


def why(found: Iterator[Any]) -> RequestFailed:
    """How reading ends."""
    with pytest.raises(RequestFailed) as caught:
        list(found)
    assert "\n" not in str(caught.value)
    return caught.value


# --- rows -------------------------------------------------------------------------------------------


def test_a_row_is_finished() -> None:
    path = written("history/rome.md", "before\n\n# Caesar\n\nCame.\n")
    assert rows(path) == [
        (
            chunk_id("/history/rome.md", 0),
            0,
            "before",
            text_hash("before"),
            "texts",
            "history",
            "rome",
            None,
        ),
        (
            chunk_id("/history/rome.md", 1),
            1,
            "Caesar\n\nCame.",
            text_hash("Caesar\n\nCame."),
            "texts",
            "history",
            "rome",
            "Caesar",
        ),
    ]
    assert UUID(rows(path)[0][0]).version == 5


def test_what_is_asked_for_comes_before_what_the_folder_says_and_after_what_a_record_says() -> None:
    path = written("f/a.ndjson", '{"text": "a", "domain": "own", "category": "mine", "title": "Book"}\n{"text": "b"}')
    asked = rows(path, domain="science", category="physics")
    assert [row[4:7] for row in asked] == [("own", "mine", "Book"), ("science", "physics", "a")]


def test_a_title_names_the_book_and_a_file_without_a_folder_is_general() -> None:
    assert rows(written("a.html", "<html><title>The Book</title><p>x"))[0][6] == "The Book"
    options = ReadingOptions()
    (piece,) = reading.pieces("/a.txt", "x", options, lambda path: [Chunk("x")])
    assert piece[0][4:7] == ("texts", "general", "a")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(st.lists(st.tuples(*[st.text("a \n\0\ud800é", max_size=6)] * 5), max_size=10))
def test_whatever_a_parser_gives_a_database_takes_and_positions_count(texts: list[tuple[str, ...]]) -> None:
    chunks = [Chunk(text, chapter, book, domain, category) for text, chapter, book, domain, category in texts]
    found = rows("a.txt", parser=lambda path: chunks)
    assert [row[1] for row in found] == list(range(len(found)))
    assert len(found) >= sum(any(not mark.isspace() and mark != "\0" for mark in text) for text, *_ in texts)
    assert all(row[2] and row[4] and row[5] and row[6] for row in found)
    assert not any("\0" in value for row in found for value in row if isinstance(value, str))
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE c (id TEXT, p INTEGER, a TEXT, b TEXT, c TEXT, d TEXT, e TEXT, f TEXT) STRICT")
        db.executemany("INSERT INTO c VALUES (?, ?, ?, ?, ?, ?, ?, ?)", found)
        assert db.execute("SELECT a FROM c ORDER BY p").fetchall() == [(row[2],) for row in found]


def test_reading_twice_gives_the_same_rows_and_a_longer_text_the_same_first_ones() -> None:
    path = written("a.txt", "A sentence is here. " * 500)
    before = rows(path)
    assert rows(path) == before
    with path.open("a") as file:
        file.write("And more. " * 300)
    after = rows(path)
    assert after[: len(before) - 1] == before[:-1]


def test_pieces_are_bounded_in_rows_and_bytes() -> None:
    path = written("a.ndjson", '{"text": "x"}\n' * 450)
    assert [len(piece) for piece in pieces(path)] == [200, 200, 50]
    path = written("b.txt", "ö" * 2_000_000)
    sizes = [sum(len(row[2].encode()) for row in piece) for piece in pieces(path, chunk_size=50_000)]
    assert len(sizes) == 4
    assert max(sizes) < 1_200_000


def test_records_that_cannot_be_used_are_named_after_the_others_were_given() -> None:
    path = written("a.ndjson", '{"text": "a"}\n' + "{}\n" * 30 + '{"text": "b"}\n')
    found = pieces(path)
    assert [row[2] for row in next(found)] == ["a", "b"]
    error = why(found)
    assert str(error).startswith("a.ndjson: line 2: it has no text, ")
    assert str(error).endswith("; and 10 more; 2 chunks of the rest are kept")
    assert error.lasting


def test_a_file_that_breaks_off_gives_what_came_before() -> None:
    path = Path("a.txt")
    path.write_bytes(b"good text\n\n" * 40_000 + b"\xff")
    found: list[ChunkRow] = []

    def read() -> None:
        for piece in pieces(path):
            found.extend(piece)

    with pytest.raises(RequestFailed, match=r"^a.txt: byte 440,001 is no UTF-8: save it as UTF-8$"):
        read()
    assert len(found) > 350


def test_what_cannot_be_read_is_a_lasting_failure_and_what_is_not_there_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert why(pieces("none.txt")).outcome is Outcome.GONE
    written("a.txt", "x")
    assert why(pieces("a.txt/b.txt")).outcome is Outcome.GONE
    for path, message in ((tmp_path, "Is a directory"), (Path("/dev/null"), "no regular file")):
        error = why(pieces(path))
        assert (error.outcome, error.lasting, str(error)) == (Outcome.MALFORMED, True, f"{path}: {message}")
    Path("a.gz").write_bytes(b"\x1f\x8b\x08\x00broken")
    assert "what is packed is damaged or cut off" in str(why(pieces("a.gz")))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_a_lasting_failure() -> None:
    written("a.txt", "x").chmod(0)
    error = why(pieces("a.txt"))
    assert (error.outcome, error.lasting) == (Outcome.MALFORMED, True)


# --- a parser of the user's -------------------------------------------------------------------------


def test_the_chunks_of_a_parser_are_taken_as_they_are() -> None:
    chunks = [
        Chunk(" long " * 1000, "One", "Book", "d", "c", 3, "mine"),
        Chunk(" \0 "),
        Chunk("x"),
        Chunk("y", position=9),
    ]
    found = rows("f/a.txt", parser=lambda path: chunks)
    assert found[0] == ("mine", 3, " long " * 1000, text_hash(" long " * 1000), "d", "c", "Book", "One")
    assert [row[:3] for row in found[1:]] == [(chunk_id("/f/a.txt", n), n, text) for n, text in ((4, "x"), (9, "y"))]
    assert found[1][4:] == ("texts", "f", "a", None)


def _raises(path: Path) -> Iterator[Chunk]:
    yield Chunk("good")
    raise ValueError("no\nsuch luck")


def _leaves(path: Path) -> Any:
    raise SystemExit(3)


def _is_cancelled(path: Path) -> Any:
    raise asyncio.CancelledError


def _is_closed(path: Path) -> Iterator[Chunk]:
    yield Chunk("good")
    raise GeneratorExit


@pytest.mark.parametrize(
    ("parser", "message"),
    [
        (_raises, f"{__name__}:_raises failed on a.txt: ValueError: no such luck"),
        (_leaves, f"{__name__}:_leaves failed on a.txt: SystemExit: 3"),
        (_is_cancelled, f"{__name__}:_is_cancelled failed on a.txt: CancelledError"),
        (_is_closed, f"{__name__}:_is_closed failed on a.txt: GeneratorExit"),
        (lambda path: 5, "it gave an int, and nothing that holds Chunks"),
        (lambda path: ["x"], "it gave a str, and no Chunk, as number 1"),
        (lambda path: [Chunk("a"), Chunk(b"x")], "chunk 2: text is a bytes, and no str"),  # type: ignore[arg-type]
        (lambda path: [Chunk("a", position=-1)], "chunk 1: position is -1, and no whole number from 0 on"),
        (lambda path: [Chunk("a", position=True)], "chunk 1: position is True, and no whole number from 0 on"),
        (
            lambda path: [Chunk("a"), Chunk("b", position=0)],
            "chunk 2: position 0 comes after 0: each has to be greater",
        ),
        (lambda path: [Chunk("a", domain=5)], "chunk 1: domain is an int, and neither a str nor None"),  # type: ignore[arg-type]
        (lambda: None, "failed on a.txt: TypeError"),
    ],
)
def test_what_a_parser_does_wrong_is_told_in_a_line(parser: Parser, message: str) -> None:
    error = why(pieces("a.txt", parser=parser))
    assert message in str(error)
    assert (error.outcome, error.lasting) == (Outcome.MALFORMED, True)


def test_what_a_parser_gave_before_it_failed_is_given() -> None:
    assert [row[2] for row in next(pieces("a.txt", parser=_raises))] == ["good"]


async def _async(path: Path) -> Any: ...


@pytest.mark.parametrize(
    ("parser", "message"),
    [
        ("mine", r"PARSER \(--parser\): expected module:function"),
        ("no_such_module:f", r"PARSER \(--parser\): there is no module no_such_module"),
        ("json:nothing", r"PARSER \(--parser\): the module json has no nothing"),
        (_async, "_async is async: a plain function is needed"),
    ],
)
def test_a_parser_that_is_none_is_said_at_once(parser: str | Parser, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Reader(1, ReadingOptions(parser=parser))


# --- options ----------------------------------------------------------------------------------------


def test_options_are_those_of_the_settings() -> None:
    settings = TextSettings(_env_file=None, chunk_size=500, domain="d")  # type: ignore[call-arg]
    assert ReadingOptions.of(settings) == ReadingOptions(None, "d", None, 500, 100)
    assert ReadingOptions.of(TextSettings(_env_file=None)) == ReadingOptions()  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match="CHUNK_OVERLAP"):
        ReadingOptions(chunk_size=100, chunk_overlap=51)


def test_a_version_changes_with_the_file_and_with_all_that_shapes_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    document = Document("/a", "/a", 1, 2)
    version = ReadingOptions().version(document)
    assert version == ReadingOptions().version(document)
    others = [
        ReadingOptions().version(Document("/a", "/a", 2, 2)),
        ReadingOptions().version(Document("/a", "/a", 1, 3)),
        *(
            ReadingOptions(**each).version(document)
            for each in (
                {"parser": "a:b"},
                {"parser": _raises},
                {"domain": "d"},
                {"category": "d"},
                {"chunk_size": 999},
                {"chunk_overlap": 99},
            )
        ),
    ]
    monkeypatch.setattr(reading, "READER_VERSION", 0)
    others.append(ReadingOptions().version(document))
    assert len({version, *others}) == len(others) + 1


# --- documents --------------------------------------------------------------------------------------


def names(*paths: str | Path) -> list[str]:
    return [os.path.relpath(each.path) for each in scan(paths)]


def test_documents_are_found_in_order_and_what_is_hidden_or_unknown_is_not() -> None:
    for name in ("b.txt", "a.MD", "c.png", ".hidden.txt", ".git/x.txt", "sub/z.epub", "sub/a.jsonl.gz"):
        written(f"top/{name}", "x")
    assert names("top") == ["top/a.MD", "top/b.txt", "top/sub/a.jsonl.gz", "top/sub/z.epub"]
    assert names("top/c.png", "top/.hidden.txt") == ["top/c.png", "top/.hidden.txt"]
    assert names("top/sub", "top", "top/b.txt", "top") == [
        "top/sub/a.jsonl.gz",
        "top/sub/z.epub",
        "top/a.MD",
        "top/b.txt",
    ]


def test_a_document_tells_its_size_and_time() -> None:
    path = written("a.txt", "1234").resolve()
    os.utime(path, ns=(5, 7))
    assert list(scan(["a.txt"])) == [Document(str(path), str(path), 4, 7)]


def test_links_in_a_circle_end() -> None:
    written("top/a.txt", "x")
    written("top/sub/b.txt", "x")
    written("other/c.txt", "x")
    Path("top/0loop").symlink_to("..", target_is_directory=True)
    Path("top/0sub").symlink_to("sub", target_is_directory=True)
    Path("top/file.txt").symlink_to("a.txt")
    Path("top/gone.txt").symlink_to("nothing")
    Path("top/self.txt").symlink_to("self.txt")
    found = names("top")
    assert found[:3] == ["top/a.txt", "top/file.txt", "top/self.txt"]
    assert sorted(found) == sorted(
        ["top/a.txt", "top/file.txt", "top/self.txt", "top/sub/b.txt", "top/0loop/other/c.txt"]
    )


def test_a_name_that_is_no_utf_8_is_a_text_all_the_same() -> None:
    path = os.fsdecode(b"top/caf\xe9.txt")
    written(path, "x")
    (found,) = scan(["top"])
    assert found.name.startswith("file:///")
    assert found.name.endswith("caf%E9.txt")
    (piece,) = reading.pieces(found.path, found.name, ReadingOptions(), None)
    assert piece[0][6].encode()


def test_a_path_that_is_not_there_is_said_before_anything_is_read() -> None:
    written("a.txt", "x")
    with pytest.raises(ConfigurationError, match="none: No such file or directory"):
        scan(["a.txt", "none"])
    with pytest.raises(ConfigurationError, match="/dev/null: no regular file and no folder"):
        scan(["/dev/null"])


# --- processes --------------------------------------------------------------------------------------


PARSER = "tests.reading_parser:parse"


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    """One reader for all tests that do it no harm."""
    with Reader(1, ReadingOptions(parser=PARSER)) as reader:
        # Its threads are none of a test's.
        pid(reader)
        yield reader


def taken(reader: Reader, path: str | Path) -> list[ChunkRow]:
    return list(itertools.chain.from_iterable(reader.pieces(str(path), str(path))))


def pid(reader: Reader) -> int:
    return int(taken(reader, "/x/pid")[0][2])


def stuck_process(folder: Path) -> int:
    """The number of the process that is stuck with a document of this folder, once it is."""
    path = folder / "pid"
    eventually(lambda: path.exists() and path.read_text(), 20, "it never began")
    return int(path.read_text())


def lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_process_of_its_own_reads_and_is_used_again() -> None:
    path = written("f/a.md", "# One\n\n" + "A sentence. " * 10_000)
    with Reader(1, ReadingOptions()) as reader:
        assert taken(reader, path) == list(
            itertools.chain.from_iterable(reading.pieces(str(path), str(path), ReadingOptions(), None))
        )
        error = why(reader.pieces("none", "none"))
        assert (error.outcome, error.lasting) == (Outcome.GONE, True)
        assert taken(reader, path)


def test_it_is_another_process_and_the_same_again(reader: Reader) -> None:
    assert pid(reader) == pid(reader) != os.getpid()


def test_a_failure_comes_over_as_it_is(reader: Reader) -> None:
    error = why(reader.pieces("/x/what", "/x/what"))
    assert str(error) == "tests.reading_parser:parse failed on /x/what: ValueError: no"
    assert (error.outcome, error.lasting) == (Outcome.MALFORMED, True)


def test_nobody_waits_for_a_document_whose_parser_was_cancelled(reader: Reader) -> None:
    error = why(reader.pieces("/x/cancelled", "/x/cancelled"))
    assert str(error) == "tests.reading_parser:parse failed on /x/cancelled: CancelledError"
    assert pid(reader)


def test_a_process_waits_until_somebody_takes_what_it_has_read(tmp_path: Path) -> None:
    with Reader(1, ReadingOptions(parser=PARSER)) as reader:
        process = pid(reader)
        found = reader.pieces(str(tmp_path / "endless"), "endless")
        for number in range(1, 40):
            # A piece is full with 105 of its chunks.
            assert len(next(found)) == 105
            assert int((tmp_path / "count").read_text() or 0) <= (number + 2) * 105
        found.close()
        assert not lives(process)
        assert pid(reader) != process


def test_a_process_that_dies_takes_only_its_document_with_it(tmp_path: Path) -> None:
    with Reader(2, ReadingOptions(parser=PARSER)) as reader:
        other = reader.pieces(str(tmp_path / "endless"), "endless")
        next(other)
        found = reader.pieces("/x/dies", "/x/dies")
        assert len(next(found)) == 200
        error = why(found)
        assert str(error) == "/x/dies: the process that read it died; it was killed, or had too little memory"
        assert (error.outcome, error.lasting) == (Outcome.MALFORMED, True)
        assert next(other)
        assert pid(reader)
        other.close()


def test_a_process_that_gives_nothing_any_more_is_ended_and_its_document_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Reader(1, ReadingOptions(parser=PARSER)) as reader:
        process = pid(reader)
        with monkeypatch.context() as patch:
            patch.setattr(reader, "_patience", 0.5)
            error = why(reader.pieces(str(tmp_path / "stuck"), "stuck"))
        assert str(error) == f"{tmp_path}/stuck: nothing came of it for 0.5 s, and reading it was given up"
        assert (error.outcome, error.lasting) == (Outcome.MALFORMED, True)
        assert not lives(process)
        assert pid(reader) != process


def test_what_is_read_slowly_is_given_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count(step=2)
    monkeypatch.setattr("fetcher.texts.reading.time.monotonic", lambda: next(seconds))
    found = pieces("a.txt", parser=lambda path: [Chunk(each) for each in "abcdefg"])
    assert [[row[2] for row in rows] for rows in found] == [["a", "b", "c"], ["d", "e", "f"], ["g"]]


def test_a_process_that_died_while_it_had_nothing_to_do_is_replaced() -> None:
    with Reader(1, ReadingOptions(parser=PARSER)) as reader:
        first = pid(reader)
        os.kill(first, signal.SIGKILL)
        eventually(lambda: not lives(first), 5, lambda: "it lives")
        assert pid(reader) != first


def test_no_more_documents_are_read_at_once_than_there_are_processes() -> None:
    with Reader(1, ReadingOptions(parser=PARSER)) as reader:
        with ThreadPoolExecutor(4) as threads:
            found = set(threads.map(lambda _: pid(reader), range(8)))
    assert len(found) == 1


def test_a_reader_that_is_closed_ends_what_its_threads_wait_for(tmp_path: Path) -> None:
    reader = Reader(1, ReadingOptions(parser=PARSER))
    with ThreadPoolExecutor(2) as threads:
        try:
            stuck = threads.submit(taken, reader, tmp_path / "stuck")
            child = stuck_process(tmp_path)
            waiting = threads.submit(taken, reader, "/x/pid")
        finally:
            reader.close()
        for each in (stuck, waiting):
            with pytest.raises(Stopped):
                each.result(timeout=5)
    assert not lives(child)
    with pytest.raises(Stopped):
        taken(reader, "/x/pid")


def test_a_parser_that_no_other_process_can_have_is_run_here() -> None:
    with Reader(1, ReadingOptions(parser=lambda path: [Chunk(str(os.getpid()))])) as reader:
        assert pid(reader) == os.getpid()


def test_a_parser_given_as_a_function_is_run_by_a_process() -> None:
    with Reader(1, ReadingOptions(parser=reading_parser.parse)) as reader:
        assert pid(reader) != os.getpid()


def script(code: str, *arguments: str) -> subprocess.Popen[str]:
    """A script of the user's, in a group of processes of its own, as a terminal makes one."""
    Path("script.py").write_text(textwrap.dedent(code))
    return subprocess.Popen(
        [sys.executable, "script.py", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_script_needs_no_guard_and_its_own_functions_are_run_in_it() -> None:
    written("a.txt", "text")
    code = """
        import os
        from fetcher.texts.chunk import Chunk
        from fetcher.texts.reader import Reader
        from fetcher.texts.reading import ReadingOptions

        print("begun")
        def mine(path):
            yield Chunk(str(os.getpid() == parent))
        parent = os.getpid()
        for how in (ReadingOptions(), ReadingOptions(parser=mine)):
            with Reader(1, how) as reader:
                print([row[2] for piece in reader.pieces("a.txt", "a.txt") for row in piece])
    """
    with script(code) as process:
        out, err = process.communicate(timeout=30)
    assert (out, err) == ("begun\n['text']\n['True']\n", "")


STUCK = """
    import signal, sys
    from fetcher.texts.reader import Reader
    from fetcher.texts.reading import ReadingOptions

    with Reader(1, ReadingOptions(parser="tests.reading_parser:parse")) as reader:
        try:
            for piece in reader.pieces(sys.argv[1], "stuck"):
                pass
        except KeyboardInterrupt:
            print("interrupted")
"""


def test_the_keys_that_stop_the_program_do_not_reach_its_processes(tmp_path: Path) -> None:
    with script(STUCK, str(tmp_path / "stuck")) as process:
        child = stuck_process(tmp_path)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (out, err) == ("interrupted\n", "")
    assert not lives(child)


def test_a_process_goes_on_whatever_its_group_is_told(tmp_path: Path) -> None:
    with Reader(1, ReadingOptions(parser=PARSER)) as reader:
        process = pid(reader)
        found = reader.pieces(str(tmp_path / "endless"), "endless")
        for told in (signal.SIGINT, signal.SIGTERM):
            os.kill(process, told)
            for _ in range(3):
                assert next(found)
        found.close()


def test_a_process_ends_when_the_program_is_killed(tmp_path: Path) -> None:
    with script(STUCK, str(tmp_path / "stuck")) as process:
        child = stuck_process(tmp_path)
        process.kill()
        _, err = process.communicate(timeout=20)
        eventually(lambda: not lives(child), 5, "it lives on")
    assert err == ""
