"""A database may be a mirror, texts alone, or both: status, verify, failures, retry and doctor know which."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher import ConfigurationError, Summary, failures, fetch, retry, verify
from fetcher.doctor import diagnose, exit_code
from fetcher.errors import RequestFailed
from fetcher.mirror import kind_of
from fetcher.model import Outcome
from fetcher.simulator import Answer, Simulator, World
from fetcher.stores.overview import overview
from fetcher.stores.texts import open_texts, unpark
from fetcher.stores.texts_overview import TextsOverview, texts_overview
from fetcher.stores.worklist import Worklist
from fetcher.texts.ingest import TextSummary, embed, ingest
from tests.helpers import FAST, column, mirror, one, query, run_fetcher

pytestmark = pytest.mark.usefixtures("no_threads_left")

Simulate = Callable[..., Simulator]
Embedder = Callable[[Sequence[str]], Sequence[Sequence[float]]]

SLIM: dict[str, Any] = {"reader_processes": 1, "max_retries": 0, "embed_batch_size": 4}
BAD = "cursed"
"""A word in texts that cannot be embedded."""


def good(texts: Sequence[str]) -> list[list[float]]:
    """A vector for each text."""
    return [[1.0, len(text), sum(map(ord, text)) % 97] for text in texts]


def picky(texts: Sequence[str]) -> list[list[float]]:
    """Embeds no text that has the bad word."""
    if any(BAD in text for text in texts):
        raise RequestFailed(Outcome.MALFORMED, "a curse", status=400, body=b"<cursed>")
    return good(texts)


good.__qualname__ = picky.__qualname__ = "embedder"  # One model: what it is called is what is recorded.


def books(folder: Path, *, bad: int = 0, unreadable: bool = False) -> Path:
    """A folder of three books of two chapters each; `bad` of them have a text that cannot be embedded."""
    library = folder / "library"
    library.mkdir()
    for number in range(3):
        words = f"A {BAD} word {number}." if number < bad else f"Words {number}."
        library.joinpath(f"{number}.md").write_text(
            f"# Book {number}\n\nIt begins {number}.\n\n## Middle\n\n{words}\n", encoding="utf-8"
        )
    if unreadable:
        library.joinpath("broken.epub").write_bytes(bytes(range(256)))
    return library


def read_books(db: Path, library: Path, embedder: Embedder = good) -> TextSummary:
    return ingest(library, db, embedder=embedder, **SLIM)


def change(db: Path, *statements: str) -> None:
    with closing(sqlite3.connect(db)) as conn, conn:
        for sql in statements:
            conn.execute(sql)


def found_in(db: Path) -> TextsOverview:
    found = texts_overview(db)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def complete_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts alone, all read and embedded; to be copied."""
    folder = tmp_path_factory.mktemp("texts")
    assert read_books(folder / "texts.db", books(folder)).exit_code == 0
    return folder / "texts.db"


@pytest.fixture(scope="module")
def complete_both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror with its items and three books as texts, all complete; to be copied."""
    folder = tmp_path_factory.mktemp("both")
    with Simulator(World(seed=1, items=40)) as simulator:
        mirror(folder / "both.db", simulator)
    embed(folder / "both.db", items=True, embedder=good, **SLIM)
    assert read_books(folder / "both.db", books(folder)).exit_code == 0
    return folder / "both.db"


@pytest.fixture
def texts(complete_texts: Path, db: Path) -> Path:
    shutil.copy(complete_texts, db)
    return db


@pytest.fixture
def both(complete_both: Path, db: Path) -> Path:
    shutil.copy(complete_both, db)
    return db


# --- status -----------------------------------------------------------------------------------------


def test_the_status_of_texts_alone(texts: Path) -> None:
    done = run_fetcher("status", str(texts))
    assert (done.returncode, done.stderr) == (0, "")
    assert ": texts, " in done.stdout
    assert "Documents: 3 listed, 3 read\n" in done.stdout
    assert "Chunks:    6 in 1 category\n" in done.stdout
    assert "Vectors:   6, of " in done.stdout
    assert "(3 dimensions)" in done.stdout
    assert "embed:     0 left\n" in done.stdout
    assert "Items:" not in done.stdout
    told = json.loads(run_fetcher("status", str(texts), "--json").stdout)
    assert told["source"] == "texts"
    assert (told["texts"]["documents"], told["texts"]["chunks"], told["texts"]["vectors"]) == (3, 6, 6)
    assert [(each["name"], each["work"], each["done"]) for each in told["texts"]["stages"]] == [
        ("read", 0, 3),
        ("embed", 0, 6),
    ]


def test_what_has_changed_and_waits_and_what_is_there_no_more(texts: Path) -> None:
    names = column(texts, "SELECT name FROM documents ORDER BY name")
    change(
        texts,
        f"INSERT INTO work (source, stage, key, due_at) VALUES ('texts', 'read', '{names[0]}', 0)",
        "UPDATE stages SET work = 1 WHERE stage = 'read'",
        f"UPDATE documents SET unlisted_at = 1 WHERE name = '{names[1]}'",
    )
    found = found_in(texts)
    assert (found.documents, found.read, found.changed, found.unlisted, found.unread) == (2, 2, 1, 1, 1)
    shown = run_fetcher("status", str(texts)).stdout
    assert "Documents: 2 listed, 2 read, 1 of them changed since, 1 no longer there\n" in shown
    assert "read:      1 left\n" in shown


def test_what_failed_is_counted_with_its_stage_and_outcome(db: Path, tmp_path: Path) -> None:
    assert read_books(db, books(tmp_path, bad=2, unreadable=True), picky).exit_code == 3
    shown = run_fetcher("status", str(db)).stdout
    assert "Documents: 4 listed, 3 read\n" in shown
    assert "read:      0 left, 1 failed for good (1 malformed)\n" in shown
    assert "embed:     0 left, 2 failed for good (2 malformed)\n" in shown


def test_a_mirror_with_texts_shows_both_and_neither_hides_the_runs_of_the_other(both: Path) -> None:
    tables = kind_of(both).tables
    for _ in range(7):
        change(
            both,
            "INSERT INTO runs (source, stage, pid, plan, started_at, updated_at, ended)"
            " VALUES ('pr0gramm', 'embed', 1, '{}', 1, 1, 'complete')",
        )
    assert [run.stage for run in overview(both, tables).runs] == ["detail"]
    for _ in range(12):
        change(
            both,
            "INSERT INTO runs (source, stage, pid, plan, started_at, updated_at, ended)"
            " VALUES ('pr0gramm', 'detail', 1, '{}', 1, 1, 'complete')",
        )
    assert "detail" not in {run.stage for run in found_in(both).runs}
    shown = run_fetcher("status", str(both)).stdout
    assert "Items:    40 listed, 40 with their details\n" in shown
    assert "Documents: 43 listed, 43 read\n" in shown
    assert "read-items:" in shown
    told = json.loads(run_fetcher("status", str(both), "--json").stdout)
    assert (told["items"], told["texts"]["documents"]) == (40, 43)


def test_a_mirror_alone_has_no_part_of_texts(db: Path, shared_simulator: Simulator) -> None:
    mirror(db, shared_simulator)
    assert texts_overview(db) is None
    assert "Documents" not in run_fetcher("status", str(db)).stdout
    assert json.loads(run_fetcher("status", str(db), "--json").stdout)["texts"] is None
    assert verify(db).texts is None


def test_the_stages_that_go_on_are_shown_and_the_mirror_does_not_seem_to_run(both: Path, tmp_path: Path) -> None:
    seen: list[tuple[list[str], bool]] = []

    def looking(texts: Sequence[str]) -> list[list[float]]:
        if any("new" in text for text in texts):
            going = [run.stage for run in found_in(both).running]
            seen.append((going, overview(both, kind_of(both).tables).running is not None))
        return good(texts)

    looking.__qualname__ = good.__qualname__
    tmp_path.joinpath("new.txt").write_text("A new text.", encoding="utf-8")
    read_books(both, tmp_path / "new.txt", looking)
    assert seen
    assert all("embed" in going and not mirroring for going, mirroring in seen)
    assert found_in(both).running == ()


def test_a_stage_that_died_is_not_shown_as_running(texts: Path) -> None:
    change(texts, "UPDATE runs SET ended = NULL, ended_at = NULL, pid = 4194304 WHERE stage = 'embed'")
    assert found_in(texts).running == ()
    assert "embed, " in run_fetcher("status", str(texts)).stdout
    assert ", died: " in run_fetcher("status", str(texts)).stdout


def test_a_mirror_of_an_older_release_has_its_status_and_its_verdict(db: Path, shared_simulator: Simulator) -> None:
    mirror(db, shared_simulator)
    change(db, "ALTER TABLE runs DROP COLUMN stage")
    assert [run.ended for run in overview(db, kind_of(db).tables).runs] == ["complete"]
    assert verify(db).complete


# --- verify -----------------------------------------------------------------------------------------


def test_complete_texts_are_complete_as_of_when_they_were_listed(texts: Path) -> None:
    verdict = verify(texts)
    assert verdict.complete, verdict
    assert verdict.as_of == one(texts, "SELECT min(listed_at) FROM documents")
    done = run_fetcher("verify", str(texts))
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 documents, 6 chunks, 6 vectors; complete as of 20" in done.stdout
    assert done.stdout.count("\n") == 1


def test_a_mirror_with_texts_is_complete_when_both_are(both: Path) -> None:
    done = run_fetcher("verify", str(both))
    assert done.returncode == 0, done.stdout
    assert "40 items; complete as of 20" in done.stdout
    assert "43 documents, " in done.stdout


def test_work_of_texts_does_not_disturb_the_counts_of_the_mirror(both: Path) -> None:
    change(
        both,
        "INSERT INTO work (source, stage, key, due_at, outcome) SELECT 'pr0gramm', 'embed', hash, NULL, 'malformed'"
        " FROM chunks LIMIT 1",
        "INSERT INTO work (source, stage, key, due_at) SELECT 'pr0gramm', 'read-items', name, 0 FROM documents"
        " WHERE item IS NOT NULL LIMIT 5",
        "UPDATE stages SET parked = 1 WHERE stage = 'embed'",
        "UPDATE stages SET work = 5 WHERE stage = 'read-items'",
    )
    verdict = verify(both)
    assert (verdict.wrong, verdict.unfinished_count, verdict.unfinished) == ((), 0, ())
    assert verdict.texts is not None
    assert (verdict.texts.wrong, verdict.texts.unfinished_count) == ((), 6)
    assert not verdict.complete
    found = overview(both, kind_of(both).tables)
    assert (found.work, found.parked, found.failed, found.waiting) == (0, 0, {}, {})
    done = run_fetcher("verify", str(both))
    assert done.returncode == 3
    assert "40 items; complete as of" in done.stdout
    assert "Work left: 6 things: " in done.stdout
    assert "(malformed for good)" in done.stdout
    told = json.loads(run_fetcher("verify", str(both), "--json").stdout)
    assert (told["complete"], told["texts"]["complete"]) == (False, False)


def test_a_flaw_of_the_mirror_is_none_of_the_texts(both: Path) -> None:
    change(both, "UPDATE sources SET fetched = fetched - 1")
    verdict = verify(both)
    assert not verdict.complete
    assert verdict.texts is not None
    assert verdict.texts.complete


DAMAGE = {
    "a chunk is lost": (
        "DELETE FROM chunks WHERE number = 1",
        "1 chunks are there, 2 were read",
    ),
    "a document was never read": (
        "UPDATE documents SET version = NULL WHERE number = 1",
        "was never read, and is not to be",
    ),
    "a document is lost": (
        "DELETE FROM documents WHERE number = 1",
        "chunks: some are of document 1, which is not there",
    ),
    "a vector is lost": (
        "DELETE FROM vectors WHERE hash = (SELECT hash FROM chunks WHERE number = 2)",
        ", position 1: its text has no vector, and is not to be embedded",
    ),
    "a vector is short": (
        "UPDATE vectors SET vector = substr(vector, 1, 8) WHERE hash = (SELECT hash FROM chunks WHERE number = 2)",
        "has 2 dimensions, not 3",
    ),
    "a vector is none": (
        "UPDATE vectors SET vector = x'0000c07f0000803f0000803f' WHERE rowid = 1",
        "has a number that is infinite or none",
    ),
    "a vector is infinite": (
        "UPDATE vectors SET vector = x'0000803f0000803f000080ff' WHERE rowid = 6",
        "has a number that is infinite or none",
    ),
    "the model is lost": ("DELETE FROM models", "vectors: there are some, and no model is recorded"),
    "there are two models": ("INSERT INTO models VALUES ('other', 3, 0)", "they are of 2 models"),
    "work was counted that is not there": (
        "UPDATE stages SET work = 2 WHERE stage = 'embed'",
        "stage embed, work left: 0 are there, 2 were counted",
    ),
    "a failure was counted that is not there": (
        "UPDATE stages SET parked = 1 WHERE stage = 'read'",
        "stage read, failed for good: 0 are there, 1 were counted",
    ),
    "the totals are lost": (
        "INSERT INTO work (source, stage, key) VALUES ('texts', 'aggregate', '[]')",
        "stage aggregate, failed for good: 1 are there, 0 were counted",
    ),
    "a chunk cannot be found": ("DELETE FROM chunks_search_docsize WHERE id < 3", "the search lacks 2 of the chunks"),
    "a chunk is found that is not there": (
        "INSERT INTO chunks_search_docsize SELECT 99, sz FROM chunks_search_docsize LIMIT 1",
        "the search has 1 chunks that are not there, the first is number 99",
    ),
    "a category is lost": ("DELETE FROM categories", "has chunks and is not there"),
    "a file is ahead": ("UPDATE categories SET written = changes + 1", "is newer than its chunks"),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGE.values(), ids=DAMAGE)
def test_texts_that_contradict_themselves_are_said(damage: str, words: str, texts: Path) -> None:
    change(texts, damage)
    verdict = verify(texts)
    assert verdict.texts is not None
    assert not verdict.complete
    assert any(words in each for each in verdict.texts.wrong), verdict.texts.wrong


def test_what_contradicts_itself_is_exit_3_and_the_command_says_so(texts: Path) -> None:
    change(texts, "DELETE FROM vectors")
    done = run_fetcher("verify", str(texts))
    assert done.returncode == 3
    assert done.stdout.count("Does not agree: ") == 6
    assert "contradicts itself" in done.stdout


def test_of_many_flaws_some_are_told_and_all_counted(texts: Path) -> None:
    change(
        texts,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50)"
        " INSERT INTO vectors SELECT 'h' || i, x'00' FROM n",
        "WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 129)"
        " INSERT INTO documents (number, name, first_seen_at, listed_at) SELECT i, 'f' || i, 1, 1 FROM n",
    )
    verdict = verify(texts)
    assert verdict.texts is not None
    assert "vectors: 30 more are wrong" in verdict.texts.wrong
    assert "10 more like these" in verdict.texts.wrong


def test_what_is_still_to_be_read_or_embedded_is_left_and_not_wrong(db: Path, tmp_path: Path) -> None:
    read_books(db, books(tmp_path, bad=1, unreadable=True), picky)
    verdict = verify(db)
    assert verdict.texts is not None
    assert verdict.texts.wrong == ()
    library = str(tmp_path / "library")
    assert [(each.stage, each.parked, each.where) for each in verdict.texts.unfinished] == [
        ("embed", True, f"{library}/0.md, position 1"),
        ("read", True, None),
    ]
    # As it is between two pieces of a document: more chunks are there than it had.
    name = f"{library}/1.md"
    change(
        db,
        f"INSERT INTO work (source, stage, key, due_at) VALUES ('texts', 'read', '{name}', 0)",
        "UPDATE stages SET work = 1 WHERE stage = 'read'",
        f"UPDATE documents SET chunks = 1 WHERE name = '{name}'",
    )
    verdict = verify(db)
    assert verdict.texts is not None
    assert verdict.texts.wrong == ()


def test_a_document_that_is_there_no_more_keeps_its_chunks_and_all_is_complete(db: Path, tmp_path: Path) -> None:
    library = books(tmp_path)
    read_books(db, library)
    library.joinpath("1.md").unlink()
    assert read_books(db, library).vanished == 1
    assert verify(db).complete
    assert found_in(db).unlisted == 1
    # It may have vanished before it was read, or between two pieces.
    change(db, "UPDATE documents SET version = NULL, chunks = 1 WHERE unlisted_at IS NOT NULL")
    assert verify(db).complete


def test_texts_of_which_none_was_listed_are_not_complete_but_a_mirror_without_any_is(
    db: Path, tmp_path: Path, shared_simulator: Simulator
) -> None:
    open_texts(tmp_path / "empty.db", clock=lambda: 1.0)[0].close()
    assert not verify(tmp_path / "empty.db").complete
    assert "no document was listed yet" in run_fetcher("verify", str(tmp_path / "empty.db")).stdout
    mirror(db, shared_simulator)
    open_texts(db, clock=lambda: 1.0)[0].close()
    assert verify(db).complete
    assert run_fetcher("verify", str(db)).returncode == 0


def test_verify_of_texts_writes_nothing(texts: Path) -> None:
    before = texts.read_bytes()
    texts.chmod(0o444)
    assert verify(texts).complete
    assert texts.read_bytes() == before


# --- failures and retry -----------------------------------------------------------------------------


def test_a_text_that_failed_is_shown_with_a_place_where_it_stands(db: Path, tmp_path: Path) -> None:
    library = books(tmp_path, bad=1, unreadable=True)
    read_books(db, library, picky)
    found = {each.stage: each for each in failures(db)}
    assert set(found) == {"read", "embed"}
    assert found["embed"].where == f"{library}/0.md, position 1"
    assert found["embed"].key == one(db, "SELECT hash FROM chunks WHERE text LIKE '%cursed%'")
    assert found["embed"].body == b"<cursed>"
    assert found["read"].where is None
    assert str(found["read"].key) == f"{library}/broken.epub"
    shown = run_fetcher("failures", str(db)).stdout
    assert f"{library}/0.md, position 1: " in shown
    told = [json.loads(line) for line in run_fetcher("failures", str(db), "--json").stdout.splitlines()]
    assert {each["stage"]: each["where"] for each in told} == {"read": None, "embed": found["embed"].where}


def test_a_retry_embeds_what_failed_and_forgets_the_failure(db: Path, tmp_path: Path) -> None:
    read_books(db, books(tmp_path, bad=2), picky)
    asked: list[str] = []

    def mended(texts: Sequence[str]) -> list[list[float]]:
        asked.extend(texts)
        return good(texts)

    mended.__qualname__ = good.__qualname__
    summary = retry(db, embedder=mended, **SLIM)
    assert isinstance(summary, TextSummary)
    assert (summary.exit_code, summary.vectors, summary.parked) == (0, 2, 0)
    assert sum(BAD in text for text in asked) == 2
    assert failures(db) == []
    assert verify(db).complete, "the totals of the stages too"
    asked.clear()
    assert retry(db, embedder=mended, **SLIM) is None
    assert asked == []


def test_what_fails_again_is_parked_again(db: Path, tmp_path: Path) -> None:
    read_books(db, books(tmp_path, bad=2), picky)
    before = query(db, "SELECT * FROM stages")
    summary = retry(db, embedder=picky, **SLIM)
    assert summary is not None
    assert summary.exit_code == 3
    assert query(db, "SELECT * FROM stages") == before
    assert len(failures(db)) == 2


def test_a_retry_can_be_of_some_texts(db: Path, tmp_path: Path) -> None:
    read_books(db, books(tmp_path, bad=2), picky)
    first, second = sorted(str(each.key) for each in failures(db))
    assert retry(db, embedder=good, outcomes=["denied"], **SLIM) is None
    assert retry(db, embedder=good, keys=["none"], **SLIM) is None
    summary = retry(db, embedder=good, keys=[first], outcomes=[Outcome.MALFORMED], **SLIM)
    assert summary is not None
    assert summary.exit_code == 3
    assert [each.key for each in failures(db)] == [second]
    assert found_in(db).parked == 1


def test_a_file_that_could_not_be_read_is_left_to_ingest(db: Path, tmp_path: Path) -> None:
    library = books(tmp_path, unreadable=True)
    read_books(db, library)
    summary = retry(db, embedder=good, **SLIM)
    assert isinstance(summary, TextSummary)
    assert (summary.unread, summary.parked, summary.exit_code) == (1, 0, 3)
    assert found_in(db).unread == 1
    assert not verify(db).complete
    library.joinpath("broken.epub").write_text("It is a text after all.", encoding="utf-8")
    summary = read_books(db, library)
    assert (summary.exit_code, summary.unread, summary.documents) == (0, 0, 1)
    assert verify(db).complete
    assert failures(db) == []


@pytest.fixture
def failed_both(db: Path, tmp_path: Path, simulate: Simulate) -> tuple[Path, Simulator, list[bool]]:
    """A mirror with an item that failed for good and texts of which one did; the item's fault can be mended."""
    world = World(seed=1, items=30)
    bad, mended = world.ids()[3], list[bool]()

    def faults(kind: str, key: int, attempt: int) -> Answer | None:
        return Answer(200, {}, b"{}") if (kind, key) == ("info", bad) and not mended else None

    simulator = simulate(world, faults=faults)
    assert mirror(db, simulator, max_retries=0).exit_code == 3
    assert read_books(db, books(tmp_path, bad=1), picky).exit_code == 3
    mended.append(True)
    return db, simulator, mended


def test_a_retry_in_a_mirror_with_texts_is_of_both(failed_both: tuple[Path, Simulator, list[bool]]) -> None:
    db, _, _ = failed_both
    summary = retry(db, embedder=good, **SLIM, **FAST)
    assert isinstance(summary, Summary)
    assert (summary.exit_code, summary.counts.stored) == (0, 1)
    assert (summary.texts.exit_code, summary.texts.vectors) == (0, 1)
    assert failures(db) == []
    assert verify(db).complete


def test_texts_that_failed_alone_are_retried_without_asking_the_api(
    failed_both: tuple[Path, Simulator, list[bool]],
) -> None:
    db, simulator, _ = failed_both
    asked = simulator.requests.total()
    text = next(each for each in failures(db) if each.stage == "embed")
    item = next(each for each in failures(db) if each.stage == "detail")
    summary = retry(db, embedder=good, keys=[text.key], **SLIM, **FAST)
    assert isinstance(summary, TextSummary)
    assert simulator.requests.total() == asked
    assert [each.key for each in failures(db)] == [item.key]
    # And the other way round: the totals of the mirror are its own.
    summary = retry(db, embedder=picky, keys=[item.key], **SLIM, **FAST)
    assert isinstance(summary, Summary)
    assert (summary.exit_code, summary.texts) == (0, None)
    assert query(db, "SELECT work, parked FROM sources") == [(0, 0)]
    assert verify(db).complete


def test_a_retry_whose_texts_fail_again_is_exit_3(failed_both: tuple[Path, Simulator, list[bool]]) -> None:
    db, _, _ = failed_both
    summary = retry(db, embedder=picky, **SLIM, **FAST)
    assert isinstance(summary, Summary)
    assert (summary.counts.stored, summary.exit_code) == (1, 3)


def test_a_setting_of_nobody_is_refused(texts: Path) -> None:
    with pytest.raises(ConfigurationError, match="colour"):
        retry(texts, colour="red")


def test_the_command_retries_both(
    failed_both: tuple[Path, Simulator, list[bool]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, _, _ = failed_both
    change(db, "UPDATE models SET name = 'wordllama-256', dimension = 256", "DELETE FROM vectors")
    change(
        db,
        "INSERT OR IGNORE INTO work (source, stage, key, due_at) SELECT DISTINCT 'pr0gramm', 'embed', hash, 0"
        " FROM chunks",
        "UPDATE stages SET work = 5 WHERE stage = 'embed'",
    )
    done = run_fetcher("retry", str(db), "--delay", "0", "--embedder", "wordllama")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Stored 1 item" in done.stdout
    assert "Embedded 6 texts" in done.stdout
    assert verify(db).complete
    done = run_fetcher("retry", str(db))
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.count("Nothing to retry") == 1


def test_the_command_says_who_reads_what_could_not_be_read(db: Path, tmp_path: Path) -> None:
    ingest(books(tmp_path, unreadable=True), db, embedder="tests.texts:embed_here", **SLIM)
    done = run_fetcher("retry", str(db), "--embedder", "tests.texts:embed_here")
    assert done.returncode == 3
    assert "1 document still to be read: `fetcher ingest`" in done.stdout
    assert "complete" not in done.stdout


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["read", "read-items", "embed", "aggregate", "detail", "list"]),
            st.integers(0, 9).map(str),
            st.sampled_from([*Outcome]),
            st.booleans(),
        ),
        max_size=20,
        unique_by=lambda each: each[:2],
    ),
    st.sets(st.sampled_from([*Outcome]), max_size=2),
    st.sets(st.integers(0, 9).map(str), max_size=3),
)
def test_whatever_is_made_due_again_the_totals_are_those_of_the_work(
    work: list[tuple[str, str, Outcome, bool]], outcomes: set[Outcome], keys: set[str]
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "texts.db"
        db, source = open_texts(path, clock=lambda: 1.0)
        with closing(db):
            with db.transaction():
                db.conn.executemany(
                    "INSERT INTO work (source, stage, key, outcome, due_at) VALUES (?, ?, ?, ?, ?)",
                    [(source, stage, key, outcome, None if parked else 0) for stage, key, outcome, parked in work],
                )
                db.conn.execute(
                    "INSERT INTO stages (source, stage, work, parked) SELECT source, stage, count(due_at),"
                    " count(*) - count(due_at) FROM work WHERE stage NOT IN ('detail', 'list') GROUP BY 1, 2"
                )
            done = unpark(db, source, outcomes, keys)
            fits = [
                stage
                for stage, key, outcome, parked in work
                if parked and (not outcomes or outcome in outcomes) and (not keys or key in keys)
            ]
            assert sum(done.values()) == len([stage for stage in fits if stage not in ("detail", "list")])
            with db.transaction():
                chosen, _ = Worklist(db.sql, source).unpark(list(outcomes), keys)
            assert sorted(stage for stage, _ in chosen) == sorted(each for each in fits if each in ("detail", "list"))
        verdict = verify(path)
        assert verdict.texts is not None
        assert [each for each in verdict.texts.wrong if "stage" in each] == []


# --- doctor, and one database for both --------------------------------------------------------------


def messages(db: Path, **given: Any) -> list[tuple[str, str]]:
    return [(each.level, each.message) for each in diagnose(db, offline=True, **given)]


def test_the_doctor_finds_texts_alone_in_good_order(texts: Path) -> None:
    change(texts, "UPDATE models SET name = 'wordllama-256'")
    found = diagnose(texts)
    assert exit_code(found) == 0
    assert {each.level for each in found} == {"ok"}, found
    said = [each.message for each in found]
    assert any("3 documents, 6 chunks, 6 vectors" in each for each in said)
    assert any("the last run of the stage embed" in each and "ended: complete" in each for each in said)
    assert "texts are embedded by wordllama-256" in said
    assert "network" not in {each.what for each in found}


def test_the_doctor_says_what_is_left_what_failed_and_what_does_not_fit(db: Path, tmp_path: Path) -> None:
    read_books(db, books(tmp_path, bad=1, unreadable=True), picky)
    change(
        db,
        "INSERT INTO work (source, stage, key, due_at) VALUES ('texts', 'embed', 'x', 0)",
        "UPDATE stages SET work = 1 WHERE stage = 'embed'",
        "UPDATE runs SET ended = 'failed', message = 'no power' WHERE stage = 'embed'",
        "DROP INDEX chunks_hash",
    )
    found = messages(db)
    assert ("note", "stage read: 1 failed for good (1 malformed)") in found
    assert ("note", "stage embed: 1 left") in found
    assert any(level == "note" and "stage embed" in text and "failed: no power" in text for level, text in found)
    assert any("lacks an index" in text for _, text in found)
    assert any(level == "note" and "would make some of wordllama-256" in text for level, text in found)


def test_the_doctor_looks_at_both(both: Path) -> None:
    found = messages(both)
    assert ("ok", "40 items listed, nothing left to fetch of them") in found
    assert any("43 documents, " in text for _, text in found)
    assert any("chunks_search, search" in text for _, text in found)


def test_the_doctor_finds_wrong_settings_of_texts(texts: Path, tmp_path: Path) -> None:
    tmp_path.joinpath(".env").write_text("EMBEDDER=no_such:thing\nCHUNK_SIZE=1000\n", encoding="utf-8")
    found = messages(texts)
    assert any(level == "bad" and "no_such" in text for level, text in found), found
    assert not any("is no setting" in text for _, text in found)
    tmp_path.joinpath(".env").write_text("CHUNK_SIZE=7\n", encoding="utf-8")
    found = messages(texts)
    assert any(level == "bad" and "CHUNK_SIZE" in text for level, text in found), found


def test_settings_of_texts_are_known_to_a_fetch(db: Path, tmp_path: Path, shared_simulator: Simulator) -> None:
    tmp_path.joinpath(".env").write_text("EMBEDDER=openai\nCHUNK_SIZES=3\n", encoding="utf-8")
    done = run_fetcher("fetch", str(db), "--base-url", shared_simulator.url, "--delay", "0", "--limit", "1")
    assert "CHUNK_SIZES is no setting" in done.stdout + done.stderr
    assert "EMBEDDER" not in done.stdout + done.stderr


def test_nothing_is_fetched_into_texts_alone(texts: Path, shared_simulator: Simulator) -> None:
    before = texts.read_bytes()
    with pytest.raises(ConfigurationError, match="mirrors texts, not pr0gramm: one database mirrors one source"):
        mirror(texts, shared_simulator)
    done = run_fetcher("fetch", str(texts), "--base-url", shared_simulator.url)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert texts.read_bytes() == before


def test_texts_can_be_read_into_a_mirror_of_files_and_it_goes_on(db: Path, tmp_path: Path) -> None:
    library = books(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    data.joinpath("a.json").write_text('[{"id": "x", "text": "One."}]', encoding="utf-8")
    fetch("files", db, file_paths=(str(data),))
    assert read_books(db, library).exit_code == 0
    # A file may be both, under the same name.
    assert read_books(db, data).exit_code == 0
    data.joinpath("b.json").write_text('[{"id": "y", "text": "Two."}]', encoding="utf-8")
    assert fetch("files", db).counts.stored == 1
    verdict = verify(db)
    assert verdict.complete, verdict
    assert (verdict.items, found_in(db).documents) == (2, 4)
    assert "mirror of files" in run_fetcher("status", str(db)).stdout


def test_a_mirror_with_texts_goes_on_as_a_mirror(both: Path, simulate: Simulate) -> None:
    assert mirror(both, simulate(World(seed=1, items=60))).exit_code == 0
    verdict = verify(both)
    assert verdict.complete, verdict
    assert verdict.items == 60
