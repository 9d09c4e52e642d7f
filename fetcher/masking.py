"""Secrets that an answer gives back, kept out of what is logged and stored of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote

from pydantic import SecretStr

MASK = "…"
"""What is shown in place of a secret."""

SHORTEST = 8
"""A part of a header or cookie that has fewer characters is none of its secrets: `Bearer`, `Basic`, `v1`."""

_BETWEEN = re.compile(r"[\s=:;,]+")


class Mask:
    """Takes secrets, as a whole and in parts, out of texts and bodies, also as JSON and addresses write them."""

    __slots__ = ("_known",)

    def __init__(self, secrets: Iterable[SecretStr]) -> None:
        known: set[str] = set()
        for each in secrets:
            value = each.get_secret_value()
            for part in (value, *_BETWEEN.split(value)):
                if len(part) >= SHORTEST:
                    as_json = json.dumps(part)[1:-1]
                    known |= {part, as_json, as_json.replace("/", "\\/"), quote(part, safe="")}
        # The longest first: what is left of it would be told otherwise.
        self._known = sorted(known, key=len, reverse=True)

    def text(self, text: str) -> str:
        """A text without them."""
        for each in self._known:
            text = text.replace(each, MASK)
        return text

    def body(self, body: bytes) -> bytes:
        """A body without them."""
        for each in self._known:
            body = body.replace(each.encode(), MASK.encode())
        return body


NO_SECRETS = Mask(())
"""Takes nothing out."""
