"""`.env` is changed in place: the values asked for, and nothing else."""

from __future__ import annotations

import os
import stat
from io import StringIO
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st

from fetcher.envfile import Change, changed, refuse_unwritable, set_values
from fetcher.errors import ConfigurationError
from tests.test_sqlite import somebody

VALUES = {"MAX_PARALLEL_REQUESTS": "12", "MAX_REQUESTS_PER_SECOND": "73"}
BOTH = "MAX_PARALLEL_REQUESTS=12\nMAX_REQUESTS_PER_SECOND=73\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", BOTH),
        ("# mine\n\nPP=x\n", f"# mine\n\nPP=x\n{BOTH}"),
        ("PP=x", f"PP=x\n{BOTH}"),
        ("PP=x\r\n", "PP=x\r\n" + BOTH.replace("\n", "\r\n")),
        ("PP=x\n\n\n", f"PP=x\n\n\n{BOTH}"),
        (
            "MAX_PARALLEL_REQUESTS=5 # why\nMAX_REQUESTS_PER_SECOND = '3'\nA=1\n",
            "MAX_PARALLEL_REQUESTS=12 # why\nMAX_REQUESTS_PER_SECOND = 73\nA=1\n",
        ),
        (
            '  export MAX_PARALLEL_REQUESTS=5\r\nmax_requests_per_second="3"  # mine\r\n',
            "  export MAX_PARALLEL_REQUESTS=12\r\nmax_requests_per_second=73  # mine\r\n",
        ),
        (
            "# one\n#MAX_PARALLEL_REQUESTS=10\n\n# other\n# MAX_REQUESTS_PER_SECOND=10\nA=1",
            "# one\n#MAX_PARALLEL_REQUESTS=10\nMAX_PARALLEL_REQUESTS=12\n\n# other\n# MAX_REQUESTS_PER_SECOND=10\n"
            "MAX_REQUESTS_PER_SECOND=73\nA=1",
        ),
        (
            "#MAX_PARALLEL_REQUESTS=10\nA=1\nMAX_PARALLEL_REQUESTS=\nMAX_REQUESTS_PER_SECOND",
            "#MAX_PARALLEL_REQUESTS=10\nA=1\nMAX_PARALLEL_REQUESTS=12\nMAX_REQUESTS_PER_SECOND=73",
        ),
        (
            "MAX_PARALLEL_REQUESTS=1\nMAX_PARALLEL_REQUESTS=2\nMAX_REQUESTS_PER_SECOND=73\n",
            "MAX_PARALLEL_REQUESTS=1\nMAX_PARALLEL_REQUESTS=12\nMAX_REQUESTS_PER_SECOND=73\n",
        ),
        (
            "A='one\nMAX_PARALLEL_REQUESTS=3\n'\nMAX_REQUESTS_PER_SECOND=73\n",
            "A='one\nMAX_PARALLEL_REQUESTS=3\n'\nMAX_REQUESTS_PER_SECOND=73\nMAX_PARALLEL_REQUESTS=12\n",
        ),
        ("\ufeffA=1\n", f"\ufeffA=1\n{BOTH}"),
    ],
)
def test_what_is_asked_for_is_set_and_all_else_stays(before: str, after: str) -> None:
    assert changed(before, VALUES)[0] == after
    assert changed(after, VALUES) == (after, [])


_lines = st.lists(
    st.one_of(
        st.sampled_from(
            ["#MAX_PARALLEL_REQUESTS=10", "MAX_PARALLEL_REQUESTS=3 # x", "export A=1", "", "PP='x y'", "nonsense"]
        ),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    ),
    max_size=8,
)


@given(_lines, st.sampled_from(["\n", "\r\n"]))
def test_whatever_the_file_holds_the_other_values_are_read_as_before(lines: list[str], end: str) -> None:
    text = end.join(lines)
    before, after = (
        {**dotenv_values(stream=StringIO(each, newline=""), interpolate=False)}
        for each in (text, changed(text, VALUES)[0])
    )
    assert {**before, **VALUES} == after or "'" in text or '"' in text


def test_a_missing_file_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    assert set_values(path, VALUES) == [Change(name, None, value) for name, value in VALUES.items()]
    assert path.read_bytes() == BOTH.encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == [".env"]


def test_the_mode_stays_and_so_does_a_link(tmp_path: Path) -> None:
    path, link = tmp_path / "real.env", tmp_path / ".env"
    path.write_bytes(b"MAX_PARALLEL_REQUESTS=3\r\n")
    path.chmod(0o640)
    link.symlink_to(path)
    assert set_values(link, VALUES)[0] == Change("MAX_PARALLEL_REQUESTS", "3", "12")
    assert link.is_symlink()
    assert path.read_bytes() == b"MAX_PARALLEL_REQUESTS=12\r\nMAX_REQUESTS_PER_SECOND=73\r\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_file_that_says_so_already_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(BOTH)
    before = path.stat()
    assert set_values(path, VALUES) == []
    assert path.stat() == before


def test_what_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with somebody() as folder:
        folder.chmod(0o555)
        with pytest.raises(ConfigurationError, match=r"\.env cannot be written: Permission denied"):
            set_values(folder / ".env", VALUES)
        with pytest.raises(ConfigurationError, match=r"\.env cannot be written: its folder is read-only"):
            refuse_unwritable(folder / ".env")
    with pytest.raises(ConfigurationError, match="its folder is not there"):
        refuse_unwritable(tmp_path / "nowhere" / ".env")
    (tmp_path / ".env").mkdir()
    with pytest.raises(ConfigurationError, match="no file"):
        refuse_unwritable(tmp_path / ".env")


def test_what_is_no_text_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes(b"A=\xff\n")
    with pytest.raises(ConfigurationError, match="is not UTF-8 text"):
        set_values(path, VALUES)
    assert path.read_bytes() == b"A=\xff\n"


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\n")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigurationError, match="cannot be written: No space left on device"):
        set_values(path, VALUES)
    assert path.read_text() == "A=1\n"
    assert [each.name for each in tmp_path.iterdir()] == [".env"]
