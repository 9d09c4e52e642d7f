"""What the docs say is true: examples and queries of the README run, the reference is what the code says."""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlite_utils.cli import cli as sqlite_utils

from fetcher.service.settings import ServiceSettings
from fetcher.settings import Settings, SourceOptions, load, unknown_keys
from fetcher.simulator import Simulator, World
from fetcher.texts.settings import TextSettings
from tests.helpers import FAST, ROOT, column, mirror, one, query

sys.path.insert(0, str(ROOT / "scripts"))

import check_docs
import reference

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror in a folder of its own, under the name that the README gives it."""
    db = tmp_path_factory.mktemp("demo") / "demo.db"
    with Simulator(World(items=200)) as simulator:
        mirror(db, simulator)
    return db


def fences(page: str, language: str) -> list[str]:
    """The fenced blocks of that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def examples_of(*pages: str) -> list[str]:
    return [code for page in pages for code in fences((ROOT / page).read_text(encoding="utf-8"), "python")]


# --- the README -------------------------------------------------------------------------------------

QUERIES = [code for code in fences(README, "sh") if code.startswith("sqlite-utils query")]


def test_the_readme_has_five_queries() -> None:
    assert len(QUERIES) == 5


@pytest.mark.parametrize("command", QUERIES)
def test_a_query_of_the_readme_finds_something(
    command: str, demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(demo.parent)
    sqlite_utils.main(shlex.split(command)[1:], prog_name="sqlite-utils", standalone_mode=False)
    _, line, *rows = capsys.readouterr().out.splitlines()
    assert set(line) == {"-", " "}
    assert len(rows) >= 5


GUIDE = (ROOT / "docs/how-to/query-and-export.md").read_text(encoding="utf-8")
_COMMAND = r"""^(?:sqlite-utils query|fetcher search) (?:[^"'\n]|"(?:\\.|[^"\\])*"|'[^']*')*$"""
COMMANDS_OF_THE_GUIDE = [code for fence in fences(GUIDE, "sh") for code in re.findall(_COMMAND, fence, re.MULTILINE)]


@pytest.mark.parametrize("command", COMMANDS_OF_THE_GUIDE)
def test_a_command_of_the_guide_to_queries_finds_something(command: str, demo: Path) -> None:
    (demo.parent / "pr0gramm.db").write_bytes(demo.read_bytes())
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=demo.parent,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    rows = done.stdout.splitlines()
    assert ">" in command or "rebuild" in command or len(rows) >= (3 if "--table" in command else 1), rows


def test_the_guide_to_queries_has_many_commands() -> None:
    assert len(COMMANDS_OF_THE_GUIDE) >= 11


def test_the_recipe_for_a_tag_finds_what_looking_it_up_finds_and_asks_the_search_first(demo: Path) -> None:
    (recipe,) = [code for code in COMMANDS_OF_THE_GUIDE if "cross join" in code]
    sql = shlex.split(recipe)[-1].replace("limit 10", "")
    for (tag,) in query(demo, "SELECT DISTINCT tag FROM tags WHERE tag GLOB '*[A-Za-z0-9]*'"):
        expected = column(demo, "SELECT item_id FROM tags WHERE tag = ? ORDER BY 1 DESC", tag)
        with closing(sqlite3.connect(demo)) as conn:
            assert [id for (id,) in conn.execute(sql, {"tag": tag})] == expected
    with closing(sqlite3.connect(demo)) as conn:
        first, *_ = conn.execute(f"EXPLAIN QUERY PLAN {sql}", {"tag": "x"}).fetchall()
    assert first[3].startswith("SCAN search VIRTUAL TABLE")


@pytest.mark.parametrize("code", examples_of("docs/how-to/query-and-export.md"))
def test_a_library_example_of_the_guide_to_queries_runs(
    code: str, demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(demo.parent)
    Path("pr0gramm.db").write_bytes(demo.read_bytes())
    exec(compile(code, "guide", "exec"), {})
    assert "[wrong" in capsys.readouterr().out


MIRROR, TEXTS = examples_of("README.md")


def test_the_library_example_of_the_readme_runs(
    simulate: Callable[..., Simulator], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("API_BASE_URL", simulate(World(items=200)).url)
    for name, value in FAST.items():
        monkeypatch.setenv(name.upper(), str(value))
    exec(compile(MIRROR, "README.md", "exec"), {})
    assert "complete Counts(" in capsys.readouterr().out
    assert one(Path("some.db"), "SELECT count(*) FROM items WHERE fetched_at IS NOT NULL") == 200


@pytest.mark.parametrize("code", [TEXTS, *examples_of("docs/how-to/embed-texts.md")])
def test_a_library_example_of_texts_runs(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMBEDDER", "tests.texts:embed_here")
    book = Path("books/bees.md")
    book.parent.mkdir()
    book.write_text("# Bees\n\nThis is how bees find their way: by the light of the sky.\n")
    exec(compile(code, "texts", "exec"), {})
    assert "[bees] [find] [their] [way]" in capsys.readouterr().out
    assert one(Path("texts.db"), "SELECT count(*) FROM vectors") == 1


@pytest.mark.parametrize("code", examples_of("docs/how-to/use-as-a-library.md"))
def test_a_library_example_of_the_guide_runs(
    code: str, simulate: Callable[..., Simulator], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_BASE_URL", simulate(World(items=200, login=True)).url)
    for name, value in {**FAST, "pp": "x", "me": "y"}.items():
        monkeypatch.setenv(name.upper(), str(value))
    # The waiting of the examples is not what is tried here.
    code = code.replace("Timer(60,", "Timer(0.2,").replace("max_requests_per_second=5", "max_requests_per_second=0")
    exec(compile("from fetcher import fetch\n" + code, "guide", "exec"), {})


@pytest.mark.parametrize("code", examples_of("docs/how-to/rehearse.md"))
def test_the_rehearsal_in_python_runs(
    code: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAX_BACKOFF_SECONDS", "0.05")
    exec(compile(code.replace("items=200", "items=60"), "guide", "exec"), {})
    assert ("2019-05-06T07:08:09Z" if "StacWorld" in code else "'503': ") in capsys.readouterr().out


# --- the reference ----------------------------------------------------------------------------------


def test_docs_and_code_agree(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_docs.main() == 0, capsys.readouterr().out


def test_template_env_holds_every_setting_with_its_default(tmp_path: Path) -> None:
    text = (ROOT / "template.env").read_text(encoding="utf-8")
    settings = re.findall(r"^#([A-Z_]+)=(.*)$", text, re.MULTILINE)
    models: list[type[Settings] | type[SourceOptions]] = [
        Settings,
        TextSettings,
        ServiceSettings,
        *(kind.Options for kind in reference.sources().values()),
    ]
    assert [name.lower() for name, _ in settings] == [name for model in models for name in model.model_fields]

    env = tmp_path / "all.env"
    env.write_text(re.sub(r"^#([A-Z_]+=)", r"\1", text, flags=re.MULTILINE), encoding="utf-8")
    assert unknown_keys(models, env) == []
    for model in models:
        assert load(model, {}, env) == load(model, {}, None)


def test_template_env_holds_no_secret() -> None:
    text = (ROOT / "template.env").read_text(encoding="utf-8")
    for model in (TextSettings, ServiceSettings, *(kind.Options for kind in reference.sources().values())):
        for name, field in model.model_fields.items():
            if SecretStr in getattr(field.annotation, "__args__", ()):
                assert f"#{name.upper()}=\n" in text


def test_a_column_without_a_meaning_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        reference, "COLUMNS", {**reference.COLUMNS, "tags": {"item_id": "the item", "colour": "not there"}}
    )
    with pytest.raises(
        SystemExit, match=r"column tags\.confidence has no meaning(?s:.*)column tags\.colour is no more"
    ):
        reference.database_page()


# --- the checks themselves --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("See [this](nowhere.md).", "page.md: link to nowhere.md: there is no such file"),
        ("See [this](README.md#nothing).", "page.md: link to README.md#nothing: there is no such heading"),
        ("Call `fetcher mirror`.", "page.md: there is no command fetcher mirror (in: fetcher mirror)"),
        (
            "```sh\n$ fetcher fetch --fast\n```",
            "page.md: fetcher fetch has no option --fast (in: $ fetcher fetch --fast)",
        ),
        (
            "```sh\npython -m fetcher status x.db \\\n  --jsn\n```",
            "page.md: fetcher status has no option --jsn (in: python -m fetcher status x.db  --jsn)",
        ),
        ("With `--frob` it is quicker.", "page.md: there is no option --frob"),
    ],
)
def test_what_is_wrong_in_a_page_is_said(text: str, said: str) -> None:
    pages = {"page.md": text}
    assert [*check_docs.dead_links(ROOT, pages), *check_docs.unknown_words(pages)] == [said]


@pytest.mark.parametrize(
    "text",
    [
        "See [this](README.md#exit-codes), [that](https://pr0gramm.com/nothing) and `[no](link.md)`.",
        "```sh\nfetcher fetch x.db --limit 5 && fetcher status --json\n```",
        "`fetcher --version`, `fetcher fetch SOURCE DB`, `--dry-run`, `sqlite-utils query --csv`",
        "`journalctl -u fetcher -f`",
        "```python\nfrom fetcher import fetch\n```",
        "The fetcher works.",
    ],
)
def test_what_is_right_in_a_page_is_not_complained_of(text: str) -> None:
    pages = {"page.md": text}
    assert [*check_docs.dead_links(ROOT, pages), *check_docs.unknown_words(pages)] == []


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("fetcher simulate", "command fetcher simulate: is mentioned in the code of no page written by hand"),
        ("StoreError", "error StoreError: is mentioned in the code of no page written by hand"),
        ("coverage", "table coverage: is mentioned in the code of no page written by hand"),
        ("DB_BATCH_SECONDS", "setting DB_BATCH_SECONDS: is mentioned in the code of no page"),
        ("| 130 |", "README.md: exit code 130 is not in its table"),
    ],
)
def test_what_no_page_mentions_is_said(word: str, said: str) -> None:
    pages = {name: text.replace(word, "…") for name, text in check_docs.markdown(ROOT).items()}
    assert said in list(check_docs.unmentioned(pages))


def test_a_reference_that_is_out_of_date_is_said(tmp_path: Path) -> None:
    for name, text in reference.files().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert list(check_docs.stale_files(tmp_path)) == []
    (tmp_path / "template.env").write_text("DB_PATH=x\n", encoding="utf-8")
    assert list(check_docs.stale_files(tmp_path)) == [
        "template.env: is not what the code says now: run scripts/reference.py"
    ]
