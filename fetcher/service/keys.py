"""Keys that may ask the service: known by their hashes alone, compared in constant time."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress

from pydantic import SecretStr

from fetcher.errors import ConfigurationError

SHORTEST = 16
"""A key of fewer characters could be guessed."""

_HASH = re.compile(r"sha256:[0-9a-f]{64}")


def new_key() -> tuple[str, str]:
    """A new key, and the hash of it that API_KEYS takes."""
    key = secrets.token_urlsafe(32)
    return key, hashed(key)


def hashed(key: str | bytes) -> str:
    """What stands for a key where it is kept. Keys have to be random: then a plain hash tells nothing of them."""
    return f"sha256:{hashlib.sha256(key.encode() if isinstance(key, str) else key).hexdigest()}"


class Keys:
    """The keys that give access; with none there is nothing to be known."""

    def __init__(self, given: Iterable[SecretStr]) -> None:
        """Each is a key or the hash of one. Raises ConfigurationError where one is too short, and names none."""
        self._hashes: list[str] = []
        self.plain = 0
        """How many were given as they are, and not by their hashes."""
        for secret in given:
            value = secret.get_secret_value()
            if value.startswith("sha256:"):
                if not _HASH.fullmatch(value):
                    raise ConfigurationError("API_KEYS: a hash is sha256: and 64 hexadecimal digits")
                self._hashes.append(value)
                continue
            if len(value) < SHORTEST:
                raise ConfigurationError(
                    f"API_KEYS: a key needs {SHORTEST} characters at least; `fetcher serve --new-key` makes one"
                )
            self.plain += 1
            self._hashes.append(hashed(value))

    def __bool__(self) -> bool:
        """Whether a key is needed at all."""
        return bool(self._hashes)

    def admit(self, headers: Mapping[str, str]) -> bool:
        """Whether a request with these headers (names in lower case, read as latin-1) has one of the keys."""
        return any(self._is_known(key) for key in _keys_in(headers))

    def _is_known(self, key: bytes) -> bool:
        asked = hashed(key)
        # All are compared, so that the time it takes does not tell which one it is.
        return sum([hmac.compare_digest(asked, each) for each in self._hashes]) > 0


def _keys_in(headers: Mapping[str, str]) -> Iterable[bytes]:
    """The keys that a request brings: as bearer, as X-API-Key, or as the password that a browser asks for.

    As bytes: headers have no encoding of their own.
    """
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        yield value.strip().encode("latin-1")
    elif kind.lower() == "basic":
        with suppress(ValueError):
            yield base64.b64decode(value.strip(), validate=True).partition(b":")[2]
    if "x-api-key" in headers:
        yield headers["x-api-key"].strip().encode("latin-1")
