"""A source of another package: the guide's example is installed, mirrors, is interrupted and goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

import fetcher
from fetcher import ConfigurationError, SourceError, Summary, sources
from fetcher.sources.flaws import LIFE, OURS
from fetcher.sources.pr0gramm import Pr0gramm
from fetcher.stores.sqlite import SqliteStore
from tests.helpers import FAST, ROOT, column, dump, eventually, one, query

GUIDE = (ROOT / "docs/how-to/write-a-source.md").read_text(encoding="utf-8")
LIBRARY, REVIEWS = re.findall(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
((PROJECT),) = re.findall(r"^```toml\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


# --- an API on loopback -----------------------------------------------------------------------------


@dataclass
class Api:
    """The imaginary API of the guide: `books` by id, each on its shelf."""

    books: dict[int, dict[str, Any]]
    gone: frozenset[int] = frozenset()
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str, params: dict[str, str]) -> tuple[int, Any]:
        self.asked.append(path)
        if path == "/books":
            before, limit = int(params.get("before", 10**9)), int(params["limit"])
            ids = [id for id in sorted(self.books, reverse=True) if id < before]
            ids = [id for id in ids if self.books[id].get("shelf") == params["shelf"]]
            return 200, {"books": [self.books[id] for id in ids[:limit]], "more": len(ids) > limit}
        id = int(path.split("/")[2])
        if id in self.gone:
            return 404, {"error": "no such book"}
        return 200, {"reviews": [{"id": number, "text": f"{id} is good", "stars": 3} for number in range(id % 4)]}


@pytest.fixture
def api() -> Iterator[Api]:
    """350 novels and 20 atlases, on a server."""
    books = {
        id: {"id": id, "title": f"Book {id}", "shelf": "atlases" if id % 18 == 0 else "novels", "subjects": ["x"]}
        for id in range(1, 371)
    }
    books[7]["pages"] = 300
    yield from serve(Api(books, gone=frozenset({12})))


def serve(api: Api) -> Iterator[Api]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            params = {name: values[0] for name, values in parse_qs(parts.query).items()}
            status, data = api.answer(parts.path, params)
            body = json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# --- a package --------------------------------------------------------------------------------------


def install(site: Path, modules: dict[str, str], project: str = PROJECT, **sources: str) -> Path:
    """Put modules and the entry points of their project where an installer would; `sources` are more of them."""
    facts = tomllib.loads(project)
    points = {**facts["project"]["entry-points"]["fetcher.sources"], **sources}
    about = site / f"{facts['project']['name'].replace('-', '_')}-{facts['project']['version']}.dist-info"
    about.mkdir(parents=True)
    for name, code in modules.items():
        (site / f"{name}.py").write_text(code, encoding="utf-8")
    name, version = facts["project"]["name"], facts["project"]["version"]
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    lines = ["[fetcher.sources]", *(f"{name} = {value}" for name, value in points.items())]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return site


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Installs modules, for this process too: `use(library=…, reviewed=…)`; returns where they are."""

    def use(**modules: str) -> Path:
        reviewed = {"library-reviews": "reviewed:ReviewedLibrary"} if "reviewed" in modules else {}
        monkeypatch.syspath_prepend(install(tmp_path / "site", modules, **reviewed))
        sources._installed.cache_clear()
        return tmp_path / "site"

    yield use
    for name in ("library", "reviewed"):
        sys.modules.pop(name, None)
    monkeypatch.undo()
    sources._installed.cache_clear()


@pytest.fixture
def site(use: Callable[..., Path]) -> Path:
    """The guide's package, installed, with its variant that has details."""
    return use(library=LIBRARY, reviewed=REVIEWS)


def mirror(api: Api, source: str, db: Path, **more: Any) -> Summary:
    return fetcher.fetch(source, db, api_base_url=api.url, **FAST, **more)


def command(site: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    paths = os.pathsep.join([str(ROOT), str(site)])
    return [sys.executable, "-m", "fetcher", *arguments], {**kept, "PYTHONPATH": paths}


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    line, environment = command(site, *arguments)
    return subprocess.run(
        line, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50, check=False
    )


@contextmanager
def running(site: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    line, environment = command(site, *arguments)
    with subprocess.Popen(
        line, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def fetch(site: Path, api: Api, source: str, db: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return run(site, "fetch", source, str(db), "--base-url", api.url, "--delay", "0", "--max-rate", "0", *more)


def said(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error."""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.removeprefix("fetcher: ").rstrip("\n")


def novels(api: Api) -> list[int]:
    return [id for id, book in sorted(api.books.items()) if book["shelf"] == "novels"]


# --- the example of the guide -----------------------------------------------------------------------


def test_the_example_is_some_thirty_lines() -> None:
    code = [line for line in LIBRARY.splitlines() if line.strip() and not line.strip().startswith(('"""', "#"))]
    assert len(code) <= 32


def test_the_example_mirrors_verifies_and_tells_its_status(db: Path, site: Path, api: Api) -> None:
    done = fetch(site, api, "library", db)
    assert done.returncode == 0
    assert done.stderr[8:] == " books.pages: a field not known yet; kept in extra\n"
    assert "Stored 350 items" in done.stdout
    assert column(db, "SELECT id FROM books ORDER BY id") == novels(api)
    assert query(db, "SELECT title, subjects, extra FROM books WHERE id = 7") == [("Book 7", '["x"]', '{"pages":300}')]
    assert query(db, "SELECT scope, lo, hi, items FROM coverage") == [("novels", 1, 370, 350)]
    assert len(api.asked) == 1 + 4
    verified = run(site, "verify", str(db))
    assert (verified.returncode, verified.stderr) == (0, "")
    assert "350 items; complete as of " in verified.stdout
    status = run(site, "status", str(db)).stdout
    assert f"mirror of library ({api.url})" in status
    assert "Items:    350 listed, 350 with their details" in status
    assert "Work:     0 left" in status
    assert "Coverage: scope novels: 1 to 370, 350 items" in status


def test_what_is_new_and_another_shelf_are_found_by_the_next_run(db: Path, site: Path, api: Api) -> None:
    mirror(api, "library", db)
    api.books[400] = {"id": 400, "title": "New", "shelf": "novels"}
    before = len(api.asked)
    assert mirror(api, "library", db).counts.stored == 1
    assert len(api.asked) == before + 2
    assert mirror(api, "library", db, shelf="atlases").counts.stored == 20
    assert column(db, "SELECT id FROM books ORDER BY id") == sorted(api.books)
    assert fetcher.verify(db).complete


@pytest.mark.parametrize(
    ("source", "number"),
    [("library", signal.SIGKILL), ("library-reviews", signal.SIGINT), ("library-reviews", signal.SIGKILL)],
)
def test_the_example_is_interrupted_and_goes_on(
    source: str, number: signal.Signals, db: Path, tmp_path: Path, site: Path, api: Api
) -> None:
    whole = tmp_path / "whole.db"
    mirror(api, source, whole)
    slow = ["--delay", "1", "--max-rate", "50", "--batch-size", "20"]
    with running(site, "fetch", source, str(db), "--base-url", api.url, *slow) as process:
        eventually(lambda: stored(db) > 0, 40)
        process.send_signal(number)
        process.wait()
    assert process.returncode == (130 if number is signal.SIGINT else -signal.SIGKILL)
    assert 0 < stored(db) < 350
    before = api.asked.count("/books")
    assert mirror(api, source, db).exit_code == 0
    assert api.asked.count("/books") - before < 1 + 4
    assert fetcher.verify(db).complete
    assert dump(db) == dump(whole)


def stored(db: Path) -> int:
    try:
        return int(one(db, "SELECT count(*) FROM books WHERE fetched_at IS NOT NULL"))
    except sqlite3.Error:
        return 0  # It is being made.


def test_the_variant_has_details(db: Path, site: Path, api: Api) -> None:
    summary = mirror(api, "library-reviews", db)
    assert (summary.exit_code, summary.counts.stored, summary.counts.gone) == (0, 349, 1)
    expected = [(id, number, f"{id} is good") for id in novels(api) if id != 12 for number in range(id % 4)]
    assert query(db, "SELECT book_id, id, text FROM reviews ORDER BY 1, 2") == expected
    assert one(db, "SELECT count(*) FROM reviews WHERE extra ->> 'stars' = 3") == len(expected)
    assert one(db, "SELECT id FROM books WHERE gone_at IS NOT NULL") == 12
    assert fetcher.verify(db).complete


def test_its_option_is_in_the_help_and_its_settings_in_the_environment(db: Path, site: Path, api: Api) -> None:
    assert "--shelf VALUE" in run(site, "fetch", "--help").stdout
    Path(".env").write_text("SHELF=atlases\n", encoding="utf-8")
    assert mirror(api, "library", db).counts.stored == 20


def test_a_bad_book_is_set_aside_and_the_rest_goes_on(db: Path, site: Path, api: Api) -> None:
    del api.books[31]["title"]
    summary = mirror(api, "library", db)
    assert (summary.exit_code, summary.counts.stored) == (3, 349)
    assert [(each.stage, each.key) for each in fetcher.failures(db)] == [("item", 31)]
    api.books[31]["title"] = "There"
    again = fetcher.retry(db, **FAST)
    assert again is not None
    assert again.exit_code == 0
    assert fetcher.verify(db).complete


def test_a_transform_works_on_it(db: Path, site: Path, api: Api) -> None:
    summary = mirror(api, "library", db, transform=lambda row: row if row["id"] % 2 else None)
    assert summary.counts.stored == 185
    assert fetcher.verify(db).complete


# --- what authors get wrong -------------------------------------------------------------------------

BROKEN: list[tuple[str, str, str]] = [
    ("    def page(self", "    def paige(self", "its class Library lacks page"),
    ('    name = "library"\n', "", "its class Library lacks name"),
    ("tables = (BOOKS,)", "tables = BOOKS", "its tables are no tuple of at least one Table"),
    (
        '    name = "library"',
        '    name = "books"',
        "its class Library has the name 'books' and its entry point 'library'",
    ),
    ('    "books",\n', '    "runs",\n', "its table runs has a name that fetcher itself uses"),
    ('"shelf", "text"', '"listed_at", "text"', "its table books has a column listed_at, which fetcher adds itself"),
    ('"shelf", "text"', '"title", "text"', "its table books has two columns title"),
    ('("id", "integer"', '("id", "real"', "the key of its items, id, is of type real, not integer or text"),
    ("in_scope=", "parent='id', in_scope=", "its first table books has a parent: the items come first"),
    ("(SourceOptions)", "", "its Options are no subclass of SourceOptions"),
    ("        shelf: str", "        db_path: str", "its Options have db_path, which fetcher itself has"),
    ("    def page(self", "    page = 1\n\n    def paige(self", "page is no method"),
    ("from fetcher.sources", "from fetcher.source", "ModuleNotFoundError: No module named 'fetcher.source'"),
    ("class Library", "Library = 5\n\nclass Lib", "what its entry point names is no class"),
]


@pytest.mark.parametrize(("right", "wrong", "expected"), BROKEN)
def test_what_keeps_a_class_from_being_a_source_is_said(
    right: str, wrong: str, expected: str, use: Callable[..., Path]
) -> None:
    assert right in LIBRARY
    use(library=LIBRARY.replace(right, wrong, 1))
    with pytest.raises(ConfigurationError) as error:
        sources.find("library")
    assert str(error.value) == f"the source library cannot be used: {expected}"
    assert "library" not in sources.registry()


def test_the_names_that_are_taken_are_those_of_a_database(tmp_path: Path) -> None:
    with closing(SqliteStore.open(tmp_path / "x.db", "x", Pr0gramm.tables, "http://x.test")):
        names = set(column(tmp_path / "x.db", "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')"))
        life = set(column(tmp_path / "x.db", "SELECT name FROM pragma_table_info('items')"))
    names = {name for name in names if not name.startswith(("search_", "sqlite_", "_sqlite"))}
    assert names - {table.name for table in Pr0gramm.tables} <= set(OURS)
    assert life - {each.name for each in Pr0gramm.tables[0].columns} == {*LIFE, "extra"}


def test_a_source_that_cannot_be_used_is_one_line_and_no_trouble_to_another(tmp_path: Path) -> None:
    site = install(tmp_path / "site", {"library": "1 / 0"})
    done = run(site, "fetch", "library")
    assert done.returncode == 2
    assert said(done) == "the source library cannot be used: ZeroDivisionError: division by zero"
    assert not Path("library").exists()
    done = run(site, "fetch", "--help")
    assert (done.returncode, done.stderr) == (0, "")


MISTAKEN: list[tuple[str, str, str]] = [
    ("self.scopes = ", "scopes = ", "the source library has no scopes: a tuple that names what a run covers"),
    ("self.scopes = ", "1 / 0, ", "the source library failed to begin: ZeroDivisionError: division by zero "),
    ("return Interval(1, max", "return (1, max", "the source library gave (1, 370) for universe, not an Interval"),
    ("return newest_first(", "return len(", "the source library failed in page: TypeError: len() takes "),
    ("        return newest_first", "        newest_first", "the source library gave None for page, not a Page"),
    ('field("more", bool)', 'data["less"]', "the source library failed in page: KeyError: 'less' (LOG_LEVEL=DEBUG"),
]


@pytest.mark.parametrize(("right", "wrong", "expected"), MISTAKEN)
def test_a_mistake_of_a_source_is_an_error_of_its_own(
    right: str, wrong: str, expected: str, use: Callable[..., Path], db: Path, api: Api
) -> None:
    assert right in LIBRARY
    use(library=LIBRARY.replace(right, wrong, 1))
    with pytest.raises(SourceError) as error:
        mirror(api, "library", db)
    assert str(error.value).startswith(expected)
    assert "\n" not in str(error.value)


def test_a_mistake_is_one_line_of_the_command_unless_more_is_asked_for(tmp_path: Path, db: Path, api: Api) -> None:
    site = install(tmp_path / "site", {"library": LIBRARY.replace("return newest_first(", "return len(")})
    done = fetch(site, api, "library", db)
    assert done.returncode == 1
    assert said(done).startswith("the source library failed in page: TypeError")
    assert "Traceback" in fetch(site, api, "library", db, "-vv").stderr


def test_a_page_that_comes_again_and_again_is_noticed(use: Callable[..., Path], db: Path, api: Api) -> None:
    stuck = "        from fetcher.sources import Page\n        return Page((), walk.scopes, None, walk.after())\n"
    use(library=LIBRARY.replace("        return newest_first(", f"{stuck}        return newest_first("))
    with pytest.raises(SourceError, match="the source library would list the same page again and again: 370"):
        mirror(api, "library", db)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("1 / (key - 5)", "the source library-reviews failed in detail: ZeroDivisionError: division by zero"),
        ("if key == 5: return None", "the source library-reviews gave None for detail, not a Detail or GONE"),
    ],
)
def test_a_mistake_in_the_details_of_an_item_is_a_failure_of_that_item(
    wrong: str, expected: str, use: Callable[..., Path], db: Path, api: Api
) -> None:
    use(library=LIBRARY, reviewed=REVIEWS.replace("        answer, notes", f"        {wrong}\n        answer, notes"))
    summary = mirror(api, "library-reviews", db)
    assert (summary.exit_code, summary.counts.stored, summary.counts.gone) == (3, 348, 1)
    ((key, message),) = query(db, "SELECT key, message FROM failures")
    assert (key, message[: len(expected)]) == (5, expected)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("return {}", "gave None for details, not a Detail or GONE"),
        ("return 5", "gave 5 for details, not a dict"),
        ("1 / 0", "failed in details: ZeroDivisionError: division by zero"),
        ("raise malformed('no good')", "no good"),
    ],
)
def test_details_of_many_that_do_not_come_are_failures_of_theirs(
    wrong: str, expected: str, use: Callable[..., Path], db: Path, api: Api
) -> None:
    method = f"def details(self, client, keys):\n        from fetcher.sources import malformed\n        {wrong}"
    details = f"    batch = 100\n\n    {method}\n\n"
    use(library=LIBRARY, reviewed=REVIEWS.replace("    def detail(", f"{details}    def detail("))
    assert mirror(api, "library-reviews", db, max_retries=0).counts.failed == 350
    assert all(expected in message for message in column(db, "SELECT DISTINCT message FROM failures"))


def test_an_answer_without_its_list_is_tried_again(
    use: Callable[..., Path], db: Path, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(library=LIBRARY)
    right = api.answer

    def answer(path: str, params: dict[str, str]) -> tuple[int, Any]:
        status, data = right(path, params)
        return status, {"oops": 1} if len(api.asked) == 3 else data

    monkeypatch.setattr(api, "answer", answer)
    summary = mirror(api, "library", db)
    assert (summary.exit_code, summary.counts.stored, summary.counts.retries) == (0, 350, 1)
