"""Reads JSON: a list, a collection of features, one object, or one object a line; of large ones a part at a time."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import msgspec

from fetcher.rows import decode, storable_text
from fetcher.sources.files.kinds import Reader, Unreadable, bare

DEEPEST = 900
"""Brackets in brackets: SQLite looks into JSON of up to 1,000, Python often into fewer."""

_CHUNK = 1 << 20
_BLANK = re.compile(r"[ \t\r\n]*")
_NO_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[^\[\]{}]+', re.DOTALL)


class _Head(msgspec.Struct, gc=False):
    """What of an object is looked at; the rest is only checked to be JSON."""

    id: Any = None
    type: Any = None
    features: msgspec.Raw | None = None


class _Id(msgspec.Struct, gc=False):
    id: Any = None


_head = msgspec.json.Decoder(_Head).decode
_id = msgspec.json.Decoder(_Id).decode
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


@dataclass(frozen=True, slots=True)
class Wrong:
    """Something in a file that cannot be used, and the line where it is."""

    line: int
    message: str


Found = tuple[int, str | None, str] | Wrong
"""An item: where it is in its file, its id, its JSON text; or what is no item."""


def id_text(value: Any) -> str | None:
    """An id as text; None where there is none, or none that can be stored."""
    if type(value) is str:
        return value if storable_text(value) else None
    if value is None or isinstance(value, dict | list):
        return None
    return json.dumps(value)


def small_document(data: bytes) -> list[Found] | None:
    """The items of a whole JSON document of the usual kind; None where it has to be looked at more closely."""
    text = bare(data)
    try:
        # msgspec does not look whether what it skips is UTF-8.
        whole = str(text, "utf-8")
        if text[:1] == b"{":
            head = _head(text)
            if head.features is None or head.type != "FeatureCollection":
                return [(1, id_text(head.id), _checked(whole.rstrip()))]
            elements = _list(head.features)
        elif text[:1] == b"[":
            elements = _list(text)
        else:
            return None
        return [
            (number, id_text(_id(each).id), _checked(str(each, "utf-8"))) for number, each in enumerate(elements, 1)
        ]
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def lines(reader: Reader, start: bytes) -> Iterator[Found]:
    """One object a line; a line that is none is wrong, and the others are not."""
    number = 0
    for line in split_lines(reader, start):
        number += 1
        text = bare(line) if number == 1 else line.strip(b" \t\r\n\x1e")
        if not text:
            continue
        try:
            yield number, id_text(_id(text).id), _checked(str(text, "utf-8").rstrip())
        except (msgspec.DecodeError, ValueError, RecursionError):
            yield _line(number, text)


def _line(number: int, text: bytes) -> Found:
    """A line that is not of the usual kind: what strict readers refuse may be JSON all the same."""
    try:
        plain = _checked(str(text, "utf-8").rstrip())
        value = decode(text)
    except UnicodeDecodeError as error:
        return Wrong(number, f"no UTF-8 (byte {error.start + 1})")
    except ValueError as error:
        return Wrong(number, f"no JSON: {error}")
    if type(value) is not dict:
        return Wrong(number, "no JSON object")
    return number, id_text(value.get("id")), plain


def split_lines(reader: Reader, start: bytes) -> Iterator[bytes]:
    """The lines of what is read, without their ends."""
    kept: list[bytes] = []
    chunk = start or reader.read(_CHUNK)
    while chunk:
        *whole, rest = chunk.split(b"\n")
        if whole:
            whole[0] = b"".join([*kept, whole[0]])
            kept = []
            yield from whole
        kept.append(rest)
        chunk = reader.read(_CHUNK)
    if last := b"".join(kept):
        yield last


def _checked(text: str) -> str:
    """The text if it is not nested too deeply. Raises ValueError."""
    if text.count("[") + text.count("{") > DEEPEST:
        brackets = _NO_BRACKETS.sub("", text)
        if max(accumulate(1 if each in "[{" else -1 for each in brackets)) > DEEPEST:
            raise ValueError(f"nested more deeply than {DEEPEST} times")
    return text


def document(reader: Reader, start: bytes) -> Iterator[Found]:
    """The items of one JSON document, read a part at a time. Raises Unreadable where it is no JSON from there on."""
    text = _Text(reader, start)
    first = text.peek()
    if first == "[":
        text.skip("[")
        yield from _elements(text)
    elif first == "{":
        yield from _object(text)
    else:
        raise text.wrong("no JSON object or list" if first else "it is empty")
    if text.peek():
        raise text.wrong("something follows after the end of the document")


def values(reader: Reader, start: bytes) -> Iterator[Any]:
    """The elements of one JSON list, of whatever type, or the one value. Raises Unreadable."""
    text = _Text(reader, start)
    if text.peek() == "[":
        text.skip("[")
        yield from (value for value, _ in _values(text))
    else:
        yield text.value()[0]
    if text.peek():
        raise text.wrong("something follows after the end of the document")


def _elements(text: _Text) -> Iterator[Found]:
    """The elements of a list behind its bracket, up to and with the bracket that closes it."""
    for number, (value, raw) in enumerate(_values(text), 1):
        if type(value) is dict:
            yield number, id_text(value.get("id")), raw
        else:
            yield Wrong(text.line - raw.count("\n"), "no JSON object")


def _values(text: _Text) -> Iterator[tuple[Any, str]]:
    """Each value of a list, and its text."""
    if text.peek() == "]":
        text.skip("]")
        return
    while True:
        yield text.value()
        if text.peek() != ",":
            text.skip("]")
            return
        text.skip(",")


def _object(text: _Text) -> Iterator[Found]:
    """One object that is the only item, or whose `features` are the items."""
    text.mark()
    text.skip("{")
    kind: Any = None
    streamed = False
    if text.peek() == "}":
        text.skip("}")
    else:
        while True:
            text.peek()
            name, _ = text.value()
            if type(name) is not str:
                raise text.wrong("the name of a field is no text")
            text.skip(":")
            text.peek()
            if name == "features" and text.peek() == "[" and kind in (None, "FeatureCollection"):
                streamed = True
                text.release()
                text.skip("[")
                yield from _elements(text)
            else:
                value, _ = text.value()
                kind = value if name == "type" else kind
                if streamed and name == "type" and value != "FeatureCollection":
                    raise text.wrong(f"features of what is no FeatureCollection, but {value!r:.60}")
            if text.peek() != ",":
                text.skip("}")
                break
            text.skip(",")
    if not streamed:
        raw = text.since_mark()
        value = decode(raw.encode())
        yield 1, id_text(value.get("id")), _checked(raw)


class _Text:
    """A text of which only a part is in memory: from the last mark, or from here, to where it was read."""

    def __init__(self, reader: Reader, start: bytes) -> None:
        self._reader = reader
        self._start = bare(start)
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._text = ""
        self._at = 0
        self._mark: int | None = None
        self._ended = False
        self._passed = start[: len(start) - len(self._start)].count(b"\n")
        self._bytes = len(start) - len(self._start)
        self._broken: Unreadable | None = None

    @property
    def line(self) -> int:
        """The line it is at."""
        return self._passed + self._text.count("\n", 0, self._at) + 1

    def wrong(self, message: str) -> Unreadable:
        """The error for something wrong here."""
        return Unreadable(f":{self.line}: {message}")

    def mark(self) -> None:
        """Keep the text from here on."""
        self._mark = self._at

    def release(self) -> None:
        """What was marked is not needed."""
        self._mark = None

    def since_mark(self) -> str:
        """The text from the mark up to here."""
        return self._text[self._mark : self._at]

    def peek(self) -> str:
        """The next character that is not blank, and go there; empty at the end."""
        while True:
            blank = _BLANK.match(self._text, self._at)
            assert blank is not None
            self._at = blank.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def skip(self, wanted: str) -> None:
        """Go behind a character that must be the next one. Raises Unreadable."""
        found = self.peek()
        if found != wanted:
            raise self.wrong(f"no JSON: expected {wanted!r}, got {found!r}" if found else "no JSON: it ends too early")
        self._at += 1

    def value(self) -> tuple[Any, str]:
        """The value that begins at the next character, and its text. Raises Unreadable."""
        if not self.peek():
            raise self.wrong("no JSON: it ends too early")
        scan: Callable[[str, int], tuple[Any, int]] = _scan
        while True:
            try:
                value, end = scan(self._text, self._at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or len(self._text) - error.pos < 16
                if cut and self._more():
                    continue
                self._at = min(error.pos, len(self._text))
                raise self.wrong("no JSON: it ends too early" if cut else f"no JSON: {error.msg}") from None
            except RecursionError:
                raise self.wrong(f"nested more deeply than {DEEPEST} times") from None
            except ValueError as error:
                if scan is _scan and not isinstance(error, _NotJson):
                    scan = _scan_all
                    continue
                raise self.wrong(f"no JSON: {error}") from None
            # A number at the end of what was read may go on.
            if end == len(self._text) and self._more():
                continue
            try:
                raw = _checked(self._text[self._at : end])
            except ValueError as error:
                raise self.wrong(str(error)) from None
            self._at = end
            return value, raw

    def _more(self) -> bool:
        """Read on; whether there was more."""
        if self._broken is not None:
            raise self._broken
        if self._ended:
            return False
        # What is long is read in ever longer parts: it is looked at again from its beginning each time.
        keep = self._at if self._mark is None else self._mark
        most = max(_CHUNK, len(self._text) - keep)
        chunk, self._start = (self._start or self._reader.read(most)), b""
        self._ended = not chunk
        try:
            more = self._decode(chunk, self._ended)
        except UnicodeDecodeError as error:
            # What comes before it is good.
            more = error.object[: error.start].decode()
            line = self._passed + self._text.count("\n") + more.count("\n") + 1
            at = self._bytes + len(chunk) - len(error.object) + error.start + 1
            self._broken = Unreadable(f":{line}: no UTF-8 (byte {at})")
        self._bytes += len(chunk)
        if keep > _CHUNK // 2 or not self._text:
            self._passed += self._text.count("\n", 0, keep)
            self._text = self._text[keep:]
            self._at -= keep
            self._mark = None if self._mark is None else 0
        self._text += more
        return bool(more) or (not self._ended and self._more())


class _NotJson(ValueError):
    pass


def _refuse(constant: str) -> Any:
    raise _NotJson(f"{constant} is no JSON")


_scan = json.JSONDecoder(parse_constant=_refuse).raw_decode
_scan_all = json.JSONDecoder(parse_constant=_refuse, parse_int=str).raw_decode
