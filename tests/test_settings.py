"""What can be set, by which name, and which of four places wins."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from pydantic_settings import BaseSettings

from fetcher import __version__
from fetcher.errors import ConfigurationError
from fetcher.service.settings import ServiceSettings
from fetcher.settings import Settings, load, options_of, unknown_keys
from fetcher.sources.files import Files
from fetcher.sources.pr0gramm import Pr0gramm
from fetcher.sources.stac import Stac
from fetcher.texts.settings import TextSettings

MODELS: tuple[type[BaseSettings], ...] = (Settings, Pr0gramm.Options)
TEMPLATE = Path(__file__).parent.parent / "template.env"

CONTRACT: dict[str, tuple[str | None, Any]] = {
    "API_BASE_URL": ("--base-url", None),
    "DB_PATH": (None, Path("pr0gramm.db")),
    "MAX_PARALLEL_REQUESTS": ("--workers", 10),
    "MIN_PARALLEL_REQUESTS": (None, 1),
    "RATE_LIMIT_ADJUSTMENT_THRESHOLD": (None, 3),
    "LATENCY_LOWER_THRESHOLD": (None, None),
    "LATENCY_UPPER_THRESHOLD": (None, None),
    "REQUEST_DELAY": ("--delay", 1.0),
    "MAX_REQUESTS_PER_SECOND": ("--max-rate", 10),
    "DB_BATCH_SIZE": ("--batch-size", 200),
    "DB_BATCH_SECONDS": (None, 10),
    "CONTENT_FLAGS": ("--flags", 1),
    "REQUEST_TIMEOUT": (None, 30),
    "MAX_RETRIES": (None, 8),
    "MAX_BACKOFF_SECONDS": (None, 300),
    "START_FROM": ("--start-from", None),
    "FULL_UPDATE": ("--full", False),
    "PP": (None, None),
    "ME": (None, None),
}
"""The names that users rely on: each setting's option and default."""


def env_file(text: str) -> None:
    Path(".env").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", CONTRACT)
def test_every_setting_has_its_option_and_default(name: str) -> None:
    option, default = CONTRACT[name]
    (model,) = [model for model in MODELS if name.lower() in model.model_fields]
    found = {each.upper(): given for each, _, given in options_of(model)}
    assert found.get(name) == option
    assert getattr(load(model, {}), name.lower()) == default


def test_the_source_knows_its_own_address() -> None:
    assert Pr0gramm.base_url == "https://pr0gramm.com/api"


def test_the_user_agent_names_the_program_its_version_and_a_page() -> None:
    assert re.fullmatch(rf"fetcher/{re.escape(__version__)} \(\+https?://\S+\)", load(Settings, {}).user_agent)


def test_every_setting_says_what_it_is() -> None:
    for model in MODELS:
        for name, field in model.model_fields.items():
            assert field.description, name


def test_no_two_settings_share_an_option() -> None:
    options = [option for model in MODELS for _, _, option in options_of(model)]
    assert len(options) == len(set(options))


# Where a value comes from


def test_an_option_beats_the_environment_beats_the_file_beats_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    env_file("MAX_RETRIES=3\nDB_BATCH_SIZE=3\nMAX_PARALLEL_REQUESTS=3\n")
    monkeypatch.setenv("DB_BATCH_SIZE", "2")
    monkeypatch.setenv("MAX_PARALLEL_REQUESTS", "2")
    found = load(Settings, {"max_parallel_requests": "1", "max_retries": None})
    assert (found.max_parallel_requests, found.db_batch_size, found.max_retries) == (1, 2, 3)
    assert found.request_delay == 1.0


def test_an_empty_value_is_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    env_file("START_FROM=\nMAX_RETRIES=\n")
    monkeypatch.setenv("DB_BATCH_SIZE", "")
    found = load(Settings, {})
    assert (found.start_from, found.max_retries, found.db_batch_size) == (None, 8, 200)


def test_names_may_be_in_lower_case_and_values_quoted() -> None:
    env_file("db_path='my mirror.db'  # a comment\nexport FULL_UPDATE=yes\n")
    found = load(Settings, {})
    assert (found.db_path, found.full_update) == (Path("my mirror.db"), True)


def test_no_file_is_needed() -> None:
    assert load(Settings, {}) == load(Settings, {}, env_file=None)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(Settings, {}).max_retries = 1  # type: ignore[misc]


def test_a_name_in_the_file_that_no_setting_has_is_listed() -> None:
    env_file("MAX_RETRYS=3\nMAX_RETRIES=3\npp=secret\nContent_Flags=9\nALPHA=1\n")
    assert unknown_keys(MODELS) == ["ALPHA", "MAX_RETRYS"]
    assert load(Settings, {}).max_retries == 3


def test_without_a_file_no_name_is_unknown() -> None:
    assert unknown_keys(MODELS) == []


# What is refused


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_PARALLEL_REQUESTS", "0"),
        ("MAX_PARALLEL_REQUESTS", "many"),
        ("MAX_PARALLEL_REQUESTS", "1.5"),
        ("MIN_PARALLEL_REQUESTS", "0"),
        ("RATE_LIMIT_ADJUSTMENT_THRESHOLD", "0"),
        ("LATENCY_LOWER_THRESHOLD", "0"),
        ("LATENCY_UPPER_THRESHOLD", "-1"),
        ("REQUEST_DELAY", "-1"),
        ("REQUEST_DELAY", "nan"),
        ("MAX_REQUESTS_PER_SECOND", "-0.1"),
        ("MAX_REQUESTS_PER_SECOND", "inf"),
        ("DB_BATCH_SIZE", "0"),
        ("DB_BATCH_SECONDS", "0"),
        ("REQUEST_TIMEOUT", "0"),
        ("MAX_RETRIES", "-1"),
        ("MAX_BACKOFF_SECONDS", "0"),
        ("START_FROM", "0"),
        ("START_FROM", "newest"),
        ("FULL_UPDATE", "maybe"),
        ("LOG_LEVEL", "LOUD"),
        ("CONTENT_FLAGS", "0"),
        ("CONTENT_FLAGS", "32"),
        ("CONTENT_FLAGS", "sfw"),
    ],
)
@pytest.mark.parametrize("place", ["given", "environment", "file"])
def test_a_bad_value_is_refused_by_name_option_and_value_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, place: str
) -> None:
    (model,) = [model for model in MODELS if name.lower() in model.model_fields]
    given = {name.lower(): value} if place == "given" else {}
    if place == "environment":
        monkeypatch.setenv(name, value)
    if place == "file":
        env_file(f"{name}={value}\n")
    with pytest.raises(ConfigurationError) as refused:
        load(model, given)
    message = str(refused.value)
    option = {each.upper(): option for each, _, option in options_of(model)}.get(name)
    assert message.startswith(f"{name} ({option}): " if option else f"{name}: ")
    assert value in message
    assert "\n" not in message
    assert "validation error" not in message
    assert refused.value.__cause__ is None


def test_several_bad_values_are_all_named() -> None:
    with pytest.raises(ConfigurationError, match=r"MAX_RETRIES: .*; START_FROM \(--start-from\): "):
        load(Settings, {"max_retries": "x", "start_from": "y"})


def test_a_long_bad_value_is_cut() -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(Settings, {"max_retries": "x" * 10_000})
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("text", [b"PP=\xff\n", b"MAX_RETRIES=\xe4\n"])
def test_a_file_that_is_no_text_is_refused_in_one_line(text: bytes) -> None:
    Path(".env").write_bytes(text)
    with pytest.raises(ConfigurationError, match=r"\.env is not UTF-8"):
        load(Settings, {})


# Secrets


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PP", "secret-pp")
    env_file("ME=secret-me\n")
    found = load(Pr0gramm.Options, {})
    assert found.pp == SecretStr("secret-pp")
    assert found.me == SecretStr("secret-me")
    assert "secret-" not in f"{found!r} {found} {found.model_dump()} {found.model_dump_json()}"


@pytest.mark.parametrize("name", ["pp", "me"])
def test_not_even_a_bad_secret_is_shown(name: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(Pr0gramm.Options, {name: ["secret"]})
    assert name.upper() in str(refused.value)
    assert "secret" not in f"{refused.value!r}"


def test_a_bad_neighbour_does_not_show_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ME", "secret")
    with pytest.raises(ConfigurationError) as refused:
        load(Pr0gramm.Options, {"content_flags": 0})
    assert "secret" not in f"{refused.value!r} {refused.value.__cause__!r}"


# The template


@pytest.mark.skipif(not TEMPLATE.is_file(), reason="there is no template.env yet")
def test_the_template_names_every_setting_with_its_default() -> None:
    models = (*MODELS, TextSettings, ServiceSettings, Files.Options, Stac.Options)
    lines = TEMPLATE.read_text(encoding="utf-8").splitlines()
    named = dict(match.groups() for line in lines if (match := re.fullmatch(r"#?\s?([A-Z][A-Z_]+)=(.*)", line)))
    defaults = {name.upper(): field.default for model in models for name, field in model.model_fields.items()}
    assert sorted(named) == sorted(defaults)
    for name, text in named.items():
        model = next(model for model in models if name.lower() in model.model_fields)
        value = text.strip().strip("\"'")
        if value:
            found = getattr(load(model, {name.lower(): value}, env_file=None), name.lower())
            assert found == defaults[name], name
        else:
            assert defaults[name] in (None, ()), name


@pytest.mark.parametrize(
    ("low", "high"),
    [("MIN_PARALLEL_REQUESTS", "MAX_PARALLEL_REQUESTS"), ("LATENCY_LOWER_THRESHOLD", "LATENCY_UPPER_THRESHOLD")],
)
def test_bounds_in_the_wrong_order_are_refused_in_one_line(low: str, high: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{low} \(7\) is more than {high} \(3\)$"):
        load(Settings, {low.lower(): 7, high.lower(): 3})
    assert load(Settings, {low.lower(): 3, high.lower(): 3})
