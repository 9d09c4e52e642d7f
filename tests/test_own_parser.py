"""A parser of the user's: the guide's example reads, fails in a line, and its table says what is filled in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT, column, one, query

GUIDE = (ROOT / "docs/how-to/write-a-parser.md").read_text(encoding="utf-8")
PARSER, LINES = re.findall(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
((SUBTITLES),) = re.findall(r"^```text\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the example."""
    monkeypatch.chdir(tmp_path)
    Path("subtitles.py").write_text(PARSER)
    Path("talk.srt").write_text(SUBTITLES)
    return tmp_path


def fetcher(*words: str) -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own; vectors are made by a function of the tests."""
    return subprocess.run(
        [sys.executable, "-m", "fetcher", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "EMBEDDER": "tests.texts:embed_here"},
    )


def test_the_parser_of_the_guide_reads_subtitles() -> None:
    done = fetcher("ingest", "talk.srt", "texts.db", "--parser", "subtitles:parse")
    assert done.returncode == 0, done.stderr
    rows = query(Path("texts.db"), "SELECT text, source_book, source_chapter, domain, category, position FROM chunks")
    assert rows == [
        ("The queen leaves the hive in May.", "talk", "from minute 0", "texts", "films", 0),
        ("Half of the colony goes with her.", "talk", "from minute 10", "texts", "films", 1),
    ]
    assert one(Path("texts.db"), "SELECT count(*) FROM vectors") == 2
    assert "[queen]" in fetcher("search", "texts.db", "queen", "--mode", "text").stdout


def test_what_the_parser_raises_is_a_failure_in_the_words_of_the_guide() -> None:
    Path("talk.srt").write_text("nothing of the kind\n")
    Path("good.srt").write_text(SUBTITLES)
    done = fetcher("ingest", "talk.srt", "good.srt", "texts.db", "--parser", "subtitles:parse")
    assert done.returncode == 3, done.stderr
    (said,) = column(Path("texts.db"), "SELECT message FROM failures")
    where = re.search(r"`(subtitles:parse failed on\s+talk.srt: [^`]*)`", GUIDE)
    assert where is not None
    assert said.replace(f"{Path.cwd()}/", "") == " ".join(where[1].split())
    assert one(Path("texts.db"), "SELECT count(*) FROM chunks") == 2


def test_the_parser_in_python_reads_lines() -> None:
    Path("notes.txt").write_text("one\ntwo\n")
    Path("own.py").write_text(LINES)
    done = subprocess.run(
        [sys.executable, "own.py"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "EMBEDDER": "tests.texts:embed_here"},
    )
    assert done.returncode == 0, done.stderr
    assert column(Path("notes.db"), "SELECT text FROM chunks ORDER BY position") == ["one", "two"]
