"""The commands that make texts into vectors, as a person meets them: what they refuse, and what they say at the end."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fetcher.cli
from fetcher.cli import main
from fetcher.simulator import EmbeddingsWorld, Simulator
from tests.helpers import _environment, one, query
from tests.texts import embed_here

pytestmark = pytest.mark.usefixtures("no_threads_left")

EMBEDDER = ("--embedder", f"{embed_here.__module__}:{embed_here.__qualname__}", "--readers", "1")


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    # A process of its own may leave threads behind that hang in a name resolution.
    monkeypatch.setattr(fetcher.cli, "_leave", sys.exit)
    return Run(capfd)


class Run:
    """Runs a command in the folder of the test: its exit code, and all that it said."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *arguments: str | Path) -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            main([str(each) for each in arguments])
        out, err = self._capture.readouterr()
        assert "Traceback" not in out + err
        return int(left.value.code or 0), out + err


def text(name: str, words: str = "one two") -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(words)
    return path


# --- what is refused, before there is a database -------------------------------------------------------


def test_an_empty_path_is_not_the_working_folder(say: Run) -> None:
    text("a.txt")
    code, said = say("ingest", "", "t.db")
    assert (code, "a path is empty" in said, Path("t.db").exists()) == (2, True, False)
    code, said = say("ingest", "a.txt", "")
    assert (code, "the database last" in said) == (2, True)


def test_what_is_to_be_read_is_not_the_database(say: Run) -> None:
    text("in/a.txt")
    assert say("ingest", "in", "t.db", *EMBEDDER)[0] == 0
    code, said = say("ingest", "in", "t.db", "./t.db")
    assert (code, "t.db is to be read and the database too" in said) == (2, True)


def test_files_are_not_written_where_they_would_be_read(say: Run) -> None:
    text("in/a.txt")
    for out in ("in", "in/out"):
        code, said = say("ingest", "in", "t.db", "--aggregate", out)
        assert (code, "would be read the next time" in said) == (2, True)
    assert (Path("t.db").exists(), sorted(each.name for each in Path("in").iterdir())) == (False, ["a.txt"])
    assert say("ingest", "in", "t.db", "--aggregate", "out", *EMBEDDER)[0] == 0


@pytest.mark.parametrize("option", ["--aggregate", "--report"])
def test_where_figures_and_files_cannot_be_written_is_said_before_a_long_run(say: Run, option: str) -> None:
    text("in/a.txt"), text("file")
    code, said = say("ingest", "in", "t.db", option, "file/out")
    assert (code, "file" in said, Path("t.db").exists()) == (2, True, False)


def test_a_report_is_no_folder(say: Run) -> None:
    code, said = say("ingest", text("in/a.txt"), "t.db", "--report", "in")
    assert (code, "--report in: Is a directory" in said, Path("t.db").exists()) == (2, True, False)


def test_a_configuration_that_is_not_there_is_named_as_such(say: Run) -> None:
    assert say("ingest", text("a.txt"), "t.db", "--config", "c.json") == (
        2,
        "fetcher: c.json (--config) cannot be read: No such file or directory\n",
    )


def test_an_embedder_that_there_is_not_is_told_what_there_is(say: Run) -> None:
    code, said = say("ingest", text("a.txt"), "t.db", "--embedder", "wordlama")
    assert (code, "wordllama, openai or module:function, not 'wordlama'" in said) == (2, True)


def test_a_file_that_is_no_database_is_left_alone_and_nothing_is_left_beside_it(say: Run) -> None:
    text("in/a.txt"), text("notes/mine.txt", "mine")
    code, said = say("ingest", "in", "notes/mine.txt")
    assert (code, "no SQLite database: name another file" in said) == (6, True)
    assert ([each.name for each in Path("notes").iterdir()], Path("notes/mine.txt").read_text()) == (
        ["mine.txt"],
        "mine",
    )


def test_a_database_that_is_not_there_is_made_by_ingest_too(say: Run) -> None:
    code, said = say("search", "t.db", "words")
    assert (code, "`fetcher ingest` makes one" in said) == (6, True)
    text("in/a.txt")
    assert "in is a folder" in say("status", "in")[1]


def test_the_items_of_what_mirrors_nothing_cannot_be_read(say: Run) -> None:
    assert say("ingest", text("a.txt"), "t.db", *EMBEDDER)[0] == 0
    code, said = say("embed", "t.db", "--from", "items")
    assert (code, "t.db holds texts alone" in said) == (2, True)


def test_a_database_in_a_folder_that_is_read_only_can_be_read(say: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert say("ingest", text("in/a.txt", "one two"), "in/t.db", *EMBEDDER)[0] == 0
    asked: list[str] = []
    connect = sqlite3.connect

    def noted(name: str, **options: Any) -> Any:
        asked.append(name)
        return connect(name, **options)

    monkeypatch.setattr(sqlite3, "connect", noted)
    monkeypatch.setattr(os, "access", lambda path, mode: not (Path(path).name == "in" and mode & os.W_OK))
    assert say("search", "in/t.db", "two", "--mode", "text")[0] == 0
    assert all("immutable" in each for each in asked)
    asked.clear()
    # Whoever has it open is seen by the file that they share.
    Path("in/t.db-shm").touch()
    say("search", "in/t.db", "two", "--mode", "text")
    assert not any("immutable" in each for each in asked)


# --- what is said at the end ---------------------------------------------------------------------------


def test_a_folder_without_any_document_says_what_counts_as_one(say: Run) -> None:
    text("in/scan.pdf")
    code, said = say("ingest", "in", "t.db")
    assert (code, "there is no document in in: in folders those files count whose names end in .txt" in said) == (
        0,
        True,
    )


def test_a_run_that_failed_does_not_call_its_database_complete(say: Run) -> None:
    text("in/a.txt")
    code, said = say("ingest", "in", "t.db", "--embedder", "json:dumps", "--readers", "1")
    assert (code, "is complete" in said) == (5, False)
    assert "is EMBEDDER (--embedder) right" in said
    code, said = say("ingest", "in", "t.db", *EMBEDDER)
    assert (code, "t.db is complete" in said) == (0, True)


def test_what_is_left_to_embed_is_counted_with_the_command_that_does_it(say: Run) -> None:
    with Simulator(EmbeddingsWorld(dimension=16)) as simulator:
        api = ("--embedder", "openai", "--embed-url", simulator.url)
        assert say("ingest", text("a.txt", "two\n"), "t.db", *api, "--readers", "1")[0] == 0
        text("b.txt", "another")
        code, said = say("ingest", "b.txt", "t.db", *api, "--embed-url", f"{simulator.url}/wrong", "--readers", "1")
    assert (code, "EMBED_BASE_URL (--embed-url)" in said, "EMBED_API_KEY" in said) == (2, True, False)
    assert "is complete" not in said
    if one(Path("t.db"), "SELECT count(*) FROM work WHERE stage = 'embed'"):
        assert "1 text still to be embedded: `fetcher embed t.db` does" in said
    else:
        assert "1 document still to be read" in said


def test_what_failed_is_forgotten_once_its_file_is_gone(say: Run) -> None:
    text("in/a.txt")
    Path("in/b.txt").write_bytes(b"\xff\x00\xfe")
    code, said = say("ingest", "in", "t.db", *EMBEDDER)
    assert (code, "`fetcher retry t.db` tries again" in said) == (3, True)
    Path("in/b.txt").unlink()
    code, said = say("ingest", "in", "t.db", *EMBEDDER)
    assert (code, "no more there: 1" in said) == (0, True)
    assert query(Path("t.db"), "SELECT * FROM failures") == []
    assert one(Path("t.db"), "SELECT parked + work FROM stages WHERE stage = 'read'") == 0


def test_a_folder_that_can_be_looked_into_again_is_no_failure_any_more(
    say: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    text("in/closed/a.txt")
    look = os.scandir

    def closed(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return look(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", closed)
        code, _ = say("ingest", "in", "t.db", *EMBEDDER)
        assert code == 3
    code, _ = say("ingest", "in", "t.db", *EMBEDDER)
    assert (code, one(Path("t.db"), "SELECT count(*) FROM chunks")) == (0, 1)


def test_a_report_is_written_and_the_end_is_told_even_if_it_cannot_be(say: Run) -> None:
    assert say("ingest", text("a.txt"), "t.db", *EMBEDDER, "--report", "r.json")[0] == 0
    assert json.loads(Path("r.json").read_text())["documents"] == 1


def test_the_end_says_which_share_of_the_calls_went_wrong(say: Run) -> None:
    with Simulator(EmbeddingsWorld(dimension=16)) as simulator:
        words = ["--embedder", "openai", "--embed-url", simulator.url, "--report", "r.json"]
        _, said = say("ingest", text("a.txt", "unembeddable"), "t.db", *words)
    # Of the two calls the first only asks whether the API works.
    embed = json.loads(Path("r.json").read_text())["stages"]["embed"]
    assert (embed["calls"], embed["errors"], embed["error_rate"]) == (2, 1, 0.5)
    heads, _, row, *_ = said[said.index("stage ") :].splitlines()
    assert dict(zip(heads.split()[-4:], row.split()[-4:], strict=True)) == {
        "refused": "0",
        "failed": "1",
        "errors": "50.0%",
        "busy": row.split()[-1],
    }


# --- what is loaded ------------------------------------------------------------------------------------


def test_no_run_loads_pandas(tmp_path: Path) -> None:
    (tmp_path / "pandas.py").write_text("raise SystemExit('pandas was loaded')")
    (tmp_path / "a.txt").write_text("one")
    done = subprocess.run(
        [sys.executable, "-m", "fetcher", "ingest", "a.txt", "t.db", *EMBEDDER],
        cwd=tmp_path,
        env={**_environment(), "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "pandas" in done.stderr) == (0, False), done.stderr
