"""Any API that speaks OpenAI's language: `POST /embeddings`, as most that make vectors do."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

import msgspec
from pydantic import SecretStr

from fetcher.client import NO_JSON, Answer, Client
from fetcher.embedders.vectors import Unusable, checked, packed
from fetcher.errors import ConfigurationError, RequestFailed
from fetcher.governor import Governor
from fetcher.model import Outcome
from fetcher.rows import decode
from fetcher.settings import Settings
from fetcher.stop import Stop
from fetcher.texts.settings import TextSettings
from fetcher.words import said

log = logging.getLogger("fetcher")

_WRONG_SETTINGS: Mapping[int, str] = {
    401: "set EMBED_API_KEY to a key that the API knows",
    402: "it wants to be paid first",
    403: "EMBED_API_KEY may not use this",
    404: "set EMBED_BASE_URL (--embed-url) and EMBED_MODEL (--embed-model) to what there is",
    405: "set EMBED_BASE_URL (--embed-url) to where /embeddings is",
    410: "set EMBED_BASE_URL (--embed-url) and EMBED_MODEL (--embed-model) to what there is",
    429: "the account has no quota left; it has to be raised first",
}
"""What to do where no text will fare better."""

_NO_QUOTA = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
_PASSING = (409, 424, 425)
"""Further answers that OpenAI's own client and others ask again after; each is no fault of the texts."""

_PART_OF_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|h|m|s)")
_MOST_SECONDS = 30 * 86_400.0
"""A number of seconds above this is a moment, not a wait."""
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


class _Vector(msgspec.Struct, gc=False):
    # Given as base64, msgspec decodes it; an API that knows only lists sends those, whatever it is asked for.
    embedding: bytes | list[float]
    index: int | None = None


class _Vectors(msgspec.Struct, gc=False):
    data: list[_Vector]


class OpenAI:
    """Asks `{EMBED_BASE_URL}/embeddings` through the governor; the key goes to that host alone."""

    def __init__(self, texts: TextSettings, settings: Settings, governor: Governor, stop: Stop) -> None:
        self.name = texts.embed_model
        self._encoding = texts.embed_encoding
        self._key = texts.embed_api_key.get_secret_value() if texts.embed_api_key is not None else ""
        self._dimension: int | None = None
        try:
            self._client = Client(
                texts.embed_base_url,
                governor,
                stop,
                user_agent=settings.user_agent,
                timeout=settings.request_timeout,
                headers={"Authorization": SecretStr(f"Bearer {self._key}")} if self._key else {},
                judge_answer=_judged,
            )
        except ConfigurationError as error:
            raise ConfigurationError(str(error).replace("API_BASE_URL", "EMBED_BASE_URL (--embed-url)")) from None
        self._url = f"{self._client.base_url}/embeddings"

    def embed(self, texts: Sequence[str]) -> list[bytes]:
        """A vector for each text. Raises RequestFailed."""
        try:
            body = _encode({"model": self.name, "input": texts, "encoding_format": self._encoding})
        except UnicodeEncodeError:
            raise RequestFailed(Outcome.MALFORMED, "a text that is no Unicode has no vector", lasting=True) from None
        try:
            answer = self._client.ask(self._url, _parse, body=body)
        except RequestFailed as error:
            raise self._explained(error) from None
        if (allowance := _allowance(answer.headers)) is not None:
            self._client.governor.told(*allowance)
        try:
            vectors = checked(_in_order(answer), len(texts), self._dimension)
        except Unusable as error:
            raise self._explained(answer.malformed(f"the API gave {error}")) from None
        if vectors:
            self._dimension = len(vectors[0]) // 4
        return vectors

    def going_first(self) -> Self:
        """This embedder, its requests going ahead of all that wait or are held back."""
        other = copy.copy(self)
        other._client = self._client.going_first()
        return other

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _explained(self, error: RequestFailed) -> RequestFailed:
        """The error in the API's own words, and what to do about it; without the key, which may be echoed."""
        message, body, denied = str(error), error.body, error.outcome is Outcome.DENIED
        if self._key and body is not None:
            body = body.replace(self._key.encode(), b"...")
        if error.status is not None and not 200 <= error.status < 300:
            named = _error_named(_decoded(body))
            message = f"answered {error.status}: {named}" if named else message
            todo = _WRONG_SETTINGS.get(error.status, "the API knows no such model: set EMBED_MODEL (--embed-model)")
            message = f"{message}; {todo}" if denied else message
        if error.status == 401:
            body = None  # It may hold as much of the key as the API likes to show.
        return RequestFailed(
            error.outcome,
            message.replace(self._key, "...") if self._key else message,
            status=error.status,
            body=body,
            retry_after=error.retry_after,
            lasting=error.lasting or denied,
        )


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Vectors).decode


def _parse(body: bytes) -> _Vectors | None:
    try:
        return _decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def _in_order(answer: Answer) -> list[bytes]:
    """The vectors of an answer in the order of what was asked. Raises Unusable."""
    if answer.parsed is None:
        named = _error_named(answer.data)
        raise Unusable(f"no list of vectors{named and ': ' + named}")
    found: list[_Vector] = answer.parsed.data
    indexes = [each.index or 0 for each in found]
    if any(each.index is not None for each in found):
        # Where numbers are left out at all it is 0, as some languages leave out zeros.
        if indexes != list(range(len(found))):
            found = [each for _, each in sorted(zip(indexes, found, strict=True), key=lambda pair: pair[0])]
        if sorted(indexes) != list(range(len(found))):
            raise Unusable("vectors whose indexes are not those of the texts")
    return [each.embedding if type(each.embedding) is bytes else packed(each.embedding) for each in found]


# --- what an answer means ---------------------------------------------------------------------------


def _judged(status: int, headers: Mapping[str, str], data: Any) -> Outcome | tuple[Outcome, float] | None:
    """What OpenAI means by an answer; what is left to HTTP's rules is None."""
    code = _code_of(data)
    if status < 400 or status >= 500:
        return None
    if status == 429 and code not in _NO_QUOTA:
        seconds = _seconds_left(headers)
        return Outcome.LIMITED if seconds is None else (Outcome.LIMITED, seconds)
    if status in (402, 404, 405, 410, 429) or code == "model_not_found":
        return Outcome.DENIED
    return Outcome.UNAVAILABLE if status in _PASSING else None


def _allowance(headers: Mapping[str, str]) -> tuple[int, int, float] | None:
    """How many requests the API allows, how many are left, and seconds until all are; None where it does not say."""
    try:
        most, left = (int(headers[f"x-ratelimit-{what}-requests"]) for what in ("limit", "remaining"))
        reset = _duration(headers["x-ratelimit-reset-requests"])
    except (KeyError, ValueError):
        return None
    return (most, left, reset) if reset is not None and 0 <= left <= most else None


def _seconds_left(headers: Mapping[str, str]) -> float | None:
    """Seconds until the API answers again, None where it does not say; a Retry-After has been read already."""
    try:
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    except (KeyError, ValueError):
        pass
    left = [
        duration
        for what in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{what}", "0").strip() in ("0", "")
        and (duration := _duration(headers.get(f"x-ratelimit-reset-{what}", ""))) is not None
    ]
    return max(left, default=None)


def _duration(text: str) -> float | None:
    """Seconds of a duration as Go writes it (6m0s, 20ms), or of a plain number; None of anything else."""
    text = text.strip()
    text = f"{text}s" if text[-1:].isdigit() else text
    if not text or _PART_OF_DURATION.sub("", text):
        return None
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART_OF_DURATION.findall(text))
    return seconds if seconds < _MOST_SECONDS else None


def _decoded(body: bytes | None) -> Any:
    try:
        return decode(body or b"")
    except ValueError:
        return NO_JSON


def _code_of(data: Any) -> str:
    error = data.get("error") if isinstance(data, dict) else None
    found = error if isinstance(error, dict) else data if isinstance(data, dict) else {}
    return next((found[name] for name in ("code", "type") if isinstance(found.get(name), str)), "")


def _error_named(data: Any) -> str:
    """What an error's body says, in one line: OpenAI has it in an object, others plainly."""
    while isinstance(data, dict):
        data = next((data[name] for name in ("error", "message", "detail") if data.get(name)), None)
    if isinstance(data, list) and data:
        return _error_named(data[0].get("msg")) if isinstance(data[0], dict) else ""
    return said(data)[:200] if isinstance(data, str) else ""
