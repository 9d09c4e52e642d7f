"""Whether the settings can be read, are known and valid, and say who asks."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from dotenv.parser import Binding, parse_stream
from pydantic_settings import BaseSettings

from fetcher import embedders
from fetcher.doctor.finding import Finding, bad, note, ok
from fetcher.errors import ConfigurationError
from fetcher.governor import Governor
from fetcher.settings import PLACEHOLDER_PAGE, Settings, load_valid, secrets_of
from fetcher.sources import Source
from fetcher.stop import Stop
from fetcher.texts.settings import TextSettings
from fetcher.transform import Transform

WHAT = "settings"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,40}\Z")


def examine_file(env_file: Path, models: Sequence[type[BaseSettings]]) -> Iterator[Finding]:
    """What is wrong with the `.env` file itself; names lines, never what stands in them."""
    try:
        mode = env_file.stat().st_mode
        if not stat.S_ISREG(mode):
            yield note(WHAT, f"{env_file} is no file and is ignored", "move it away, or make it a file")
            return
        text = env_file.read_text(encoding="utf-8")
    except FileNotFoundError:
        yield ok(WHAT, f"there is no {env_file} here: options, the environment and the defaults hold")
        return
    except UnicodeDecodeError:
        yield bad(WHAT, f"{env_file} is not UTF-8 text", "save it as UTF-8 in your editor")
        return
    except OSError as error:
        yield bad(
            WHAT, f"{env_file} cannot be read: {error.strerror or error}", "make it readable to you (chmod, chown)"
        )
        return
    known = {name for model in models for name in model.model_fields}
    secrets = {name for model in models for name in secrets_of(model)}
    has_secrets = False
    for each in parse_stream(StringIO(text)):
        if each.key is not None and each.key.lower() in known and each.value is not None:
            has_secrets = has_secrets or (each.key.lower() in secrets and bool(each.value))
        elif each.key is not None and each.value is not None and _NAME.match(each.key):
            yield note(WHAT, f"{each.key} in {env_file} is no setting and is ignored", "check how it is spelled")
        elif each.error or each.key is not None:
            yield note(
                WHAT,
                f"line {_line_of(each)} of {env_file} is ignored: it is no NAME=VALUE",
                'write NAME=VALUE, with "…" around values that hold spaces, or put a # before it',
            )
    if has_secrets and mode & 0o077:
        yield note(WHAT, f"other users may read the login in {env_file}", f"chmod 600 {env_file}")


def examine_values(
    models: Sequence[type[BaseSettings]], given: Mapping[str, Any], env_file: Path
) -> tuple[list[BaseSettings], list[Finding]]:
    """The settings of each model, defaults in place of what is wrong, and what is wrong with them.

    A file that cannot be read is passed over: `examine_file` has told of it.
    """
    loaded: list[BaseSettings] = []
    found: list[Finding] = []
    for model in models:
        own = {name: value for name, value in given.items() if name in model.model_fields}
        try:
            settings, wrong = load_valid(model, own, env_file)
        except (OSError, UnicodeDecodeError):
            settings, wrong = load_valid(model, own, None)
        loaded.append(settings)
        found += [bad(WHAT, each, "correct it where it is set: option, environment or .env") for each in wrong]
    return loaded, found


def examine_user_agent(settings: Settings) -> Iterator[Finding]:
    """Whether a site that is asked could reach who asks."""
    if PLACEHOLDER_PAGE in settings.user_agent:
        yield note(
            WHAT,
            f"USER_AGENT is still the placeholder ({settings.user_agent})",
            'name a way to reach you, such as USER_AGENT="my-mirror/1 (+mailto:me@mail.example)"',
        )


def examine_transform(given: str | Callable[..., Any], kind: type[Source]) -> Iterator[Finding]:
    """Whether the function that rows are to go through is there."""
    try:
        Transform.of(given, kind.tables)
    except ConfigurationError as error:
        yield bad(WHAT, str(error), "correct it, and call this where runs are called: its module is looked for there")


def examine_embedder(texts: TextSettings, settings: Settings, recorded: str | None, stop: Stop) -> Iterator[Finding]:
    """Whether there is what makes vectors, and it makes those that are `recorded`; asks it for none."""
    try:
        embedder = embedders.make(texts, settings, Governor(stop, parallel=1), stop)
    except ConfigurationError as error:
        yield bad(WHAT, str(error), "correct it, or install what is missing; until then nothing can be embedded")
        return
    name = embedder.name
    embedder.close()
    if recorded not in (None, name):
        yield note(
            WHAT,
            f"the vectors are of {recorded}, and EMBEDDER and EMBED_MODEL would make some of {name}",
            "set them to those before you embed, or name another database",
        )
    else:
        yield ok(WHAT, f"texts are embedded by {name}")


def _line_of(binding: Binding) -> int:
    """The line that a binding is on; its text begins with the empty lines before it."""
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
