"""HTTP/1.1 as bytes: writes the head of a request, reads a response; no sockets, so that it can be fuzzed.

Section numbers are those of RFC 9112 (HTTP/1.1) and, where said, RFC 9110 (HTTP semantics). Where the RFC lets a
recipient be lenient, this reader refuses, unless common servers need the leniency: an error is retried, a
misread body is believed.
"""

from __future__ import annotations

import string
import zlib
from collections.abc import Iterable

MAX_HEAD_BYTES = 64 * 1024
"""Most bytes of status line, headers and trailers of one answer, interim (1xx) answers included."""

MAX_HEADER_LINES = 200
"""Most header lines in one head, and most trailer lines."""

MAX_CHUNK_LINE_BYTES = 1024
"""Longest line that announces a chunk, extensions included."""

MAX_GZIP_MEMBERS = 10_000
"""Most members of one gzip body: each costs time, even an empty one."""

_MAX_DIGITS = 18  # A longer length is absurd, and int() itself refuses absurdly long ones with a ValueError.
_INFLATE_BLOCK = 64 * 1024
_TOKEN = frozenset(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~")
_HEX_DIGITS = frozenset(string.hexdigits.encode())
_BODILESS = (204, 304)
_ACTED_ON = frozenset({"content-length", "transfer-encoding", "connection", "content-encoding", "set-cookie"})

# States of a ResponseReader.
_HEAD, _LENGTH, _CHUNK_LINE, _CHUNK_DATA, _TRAILERS, _UNTIL_CLOSE, _DONE = range(7)


class Http1Error(Exception):
    """What is wrong with a response, in one line."""


class Malformed(Http1Error):
    """The bytes are not a response that can be trusted; the message says what is wrong, in one line."""


class MalformedChunks(Malformed):
    """The chunked framing of the body is damaged."""


class Truncated(Http1Error):
    """The connection ended before the response did; `chunked` says which framing was cut."""

    def __init__(self, message: str, chunked: bool = False) -> None:
        super().__init__(message)
        self.chunked = chunked


class TooLarge(Http1Error):
    """The body, as sent or decompressed, is longer than allowed."""


class Undecodable(Http1Error):
    """The body's Content-Encoding is damaged, cut short or unknown."""


class IllegalHeader(ValueError):
    """A request header that must not be sent, CR or LF in a value first of all."""


def request_lines(headers: Iterable[tuple[str | bytes, str | bytes]], host: bytes) -> bytes:
    """The header lines of a request and the empty line after them, `Host` first unless the caller gave one (§3.2).

    Raises IllegalHeader for a name that is no token and for a control character in a value (§2.2, §5.1).
    """
    lines: list[bytes] = []
    given_host = False
    for name, value in headers:
        raw_name = _header_bytes(name)
        raw_value = _header_bytes(value)
        if not raw_name or not _TOKEN.issuperset(raw_name.decode("latin-1")):
            raise IllegalHeader(f"{raw_name[:60]!r} is no header name")
        if any((byte < 32 and byte != 9) or byte == 127 for byte in raw_value):
            raise IllegalHeader(f"the value of header {raw_name.decode()} has a control character")
        given_host = given_host or raw_name.lower() == b"host"
        lines.append(raw_name + b": " + raw_value + b"\r\n")
    if not given_host:
        lines.insert(0, b"Host: " + host + b"\r\n")
    return b"".join(lines) + b"\r\n"


def _header_bytes(text: str | bytes) -> bytes:
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str):
        raise IllegalHeader(f"a header is a {type(text).__name__}, not text")
    try:
        return text.encode("latin-1")  # What http.client does, so what requests' users know.
    except UnicodeEncodeError:
        raise IllegalHeader("a header has characters outside latin-1") from None


Field = tuple[str, str, str]
"""A header: its name and value as sent, and its name in lower case if a reader must act on it, else ""."""


class _Lines(dict[str, Field]):
    """Header lines seen, parsed: servers send the same few again and again, and finding one is much cheaper."""

    def __missing__(self, line: str) -> Field:
        name, colon, value = line.partition(":")
        if not colon or not name or not _TOKEN.issuperset(name):
            raise Malformed(f"malformed header line {line[:60]!r}")
        if "\r" in value or "\n" in value or "\0" in value:
            raise Malformed(f"a bare line break or NUL in header {name[:60]}")
        lowered = name.lower()
        parsed = name, value.strip(" \t"), lowered if lowered in _ACTED_ON else ""
        if len(line) <= 256 and lowered != "set-cookie":  # Neither grow without bound nor keep secrets.
            if len(self) >= 4096:
                self.clear()
            self[line] = parsed
        return parsed


_lines = _Lines()


class _StatusLines(dict[str, tuple[int, str, bool]]):
    """Status lines seen (§4): status, reason, and whether it is HTTP/1.1."""

    def __missing__(self, line: str) -> tuple[int, str, bool]:
        code = line[9:12]
        known = line[:9] in ("HTTP/1.1 ", "HTTP/1.0 ") and line[12:13] in (" ", "")
        if not (known and len(code) == 3 and code.isascii() and code.isdigit() and code[0] != "0"):
            raise Malformed(f"malformed status line {line[:60]!r}")
        if "\r" in line or "\n" in line or "\0" in line:
            raise Malformed("a bare line break or NUL in the status line")
        if len(self) >= 256:
            self.clear()
        parsed = int(code), line[13:].strip(" \t"), line[7] == "1"
        if len(line) <= 256:
            self[line] = parsed
        return parsed


_status_lines = _StatusLines()


class ResponseReader:
    """Reads one response to a GET, fed with bytes as they arrive.

    After `feed` has returned True: `status`, `reason`, `fields` (in order), `encodings`
    (of the body, lower case, in the order applied), `body` (framing removed, still encoded), `sets_cookies`, and
    `reusable`, whether another request may follow on the connection. `limit` is in bytes.
    """

    __slots__ = (
        "_body",
        "_buffer",
        "_close",
        "_head_bytes",
        "_left",
        "_limit",
        "_state",
        "_trailer_lines",
        "body",
        "encodings",
        "fields",
        "reason",
        "reusable",
        "sets_cookies",
        "started",
        "status",
    )

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._state = _HEAD
        self._buffer: bytearray | None = None
        self._head_bytes = 0
        self._left = 0
        self.started = False
        self.sets_cookies = False
        self.encodings: tuple[str, ...] = ()

    def feed(self, data: bytes) -> bool:
        """Take the next bytes; returns whether the response is complete. Raises Malformed or TooLarge."""
        state = self._state
        if state == _HEAD:
            self.started = True
            return self._read_head(data)
        if state == _LENGTH:
            return self._read_length(data)
        if state == _UNTIL_CLOSE:
            self._grow(data)
            return False
        if state == _DONE:
            self.reusable = False  # Nobody asked for these bytes; they must not become the next answer.
            return True
        return self._read_chunks(data)

    def end(self) -> None:
        """The connection ended: fine for a body that lasts until then (§6.3), else raises Truncated."""
        if self._state == _UNTIL_CLOSE:
            self.body = bytes(self._body)
            self._state = _DONE
        elif self._state == _HEAD:
            raise Truncated("the connection was closed within the head of the answer")
        elif self._state == _LENGTH:
            raise Truncated(f"the connection was closed {self._left} bytes before the end of the body")
        elif self._state != _DONE:
            raise Truncated("the connection was closed within a chunked body", chunked=True)

    # -- head ---------------------------------------------------------------------------------------------------

    def _read_head(self, data: bytes | bytearray) -> bool:
        while True:
            if self._buffer is None:
                end = data.find(b"\r\n\r\n")
            else:
                seen = len(self._buffer)
                self._buffer += data
                data = self._buffer
                end = data.find(b"\r\n\r\n", max(0, seen - 3))
            if not data.startswith(b"HTTP/1."[: len(data)]):
                raise Malformed(f"the answer is not HTTP/1: {bytes(data[:20])!r}")
            if self._head_bytes + (len(data) if end < 0 else end) > MAX_HEAD_BYTES:
                raise Malformed(f"the head of the answer is longer than {MAX_HEAD_BYTES} bytes")
            if end < 0:
                if b"\n\n" in data:  # Would otherwise be waited for until the time is up.
                    raise Malformed("the head of the answer has bare line feeds")
                if self._buffer is None:
                    self._buffer = bytearray(data)
                return False
            head = data[:end].decode("latin-1")
            lines = head.split("\r\n")
            if "\r\n " in head or "\r\n\t" in head:
                lines = _unfold(lines)
            rest = bytes(data[end + 4 :])
            self._buffer = None
            self.status, self.reason, modern = _status_lines[lines[0]]
            if self.status >= 200:
                return self._read_fields(lines, modern, rest)
            if self.status == 101:
                raise Malformed("the server switched protocols without being asked")
            self._head_bytes += end + 4  # An interim answer (RFC 9110 §15.2): skip it, the real one follows.
            if not rest:
                return False
            data = rest

    def _read_fields(self, lines: list[str], modern: bool, rest: bytes) -> bool:
        if len(lines) > MAX_HEADER_LINES + 1:
            raise Malformed(f"more than {MAX_HEADER_LINES} header lines")
        del lines[0]
        length = transfer = connection = encoding = ""
        self.fields = fields = list(map(_lines.__getitem__, lines))  # Parses, by `__missing__`, what is new.
        for _, value, name in [field for field in fields if field[2]]:
            if name == "content-length":
                length = f"{length},{value}" if length else value or "none"
            elif name == "transfer-encoding":
                transfer = f"{transfer},{value}" if transfer else value or "none"
            elif name == "connection":
                connection = f"{connection},{value.lower()}"
            elif name == "content-encoding":
                encoding = f"{encoding},{value.lower()}"
            else:
                self.sets_cookies = True
        if connection in ("", ",keep-alive"):
            self.reusable = modern or bool(connection)
        else:
            options = connection.replace(" ", "").replace("\t", "").split(",")
            self.reusable = "close" not in options and (modern or "keep-alive" in options)
        if encoding:
            self.encodings = tuple(e for e in encoding.replace(" ", "").split(",") if e not in ("", "identity"))
        if self.status in _BODILESS:
            return self._finish(b"", rest)
        if transfer:
            if transfer.lower() != "chunked":
                raise Malformed(f"unknown Transfer-Encoding {transfer[:60]!r}")
            if length or not modern:
                self.reusable = False  # Two framings, or one that HTTP/1.0 has not: someone on the way may err (§6.3).
            self._state = _CHUNK_LINE
            self._body = bytearray()
            self._buffer = bytearray()
            self._head_bytes = 0
            self._trailer_lines = 0
            return self._read_chunks(rest) if rest else False
        if not length:
            self.reusable = False
            self._state = _UNTIL_CLOSE
            self._body = bytearray()
            self._grow(rest)
            return False
        size = _content_length(length)
        if size > self._limit:
            raise TooLarge(f"a body of {size} bytes is announced")
        if len(rest) >= size:
            return self._finish(rest[:size], rest[size:]) if len(rest) > size else self._finish(rest, b"")
        self._state = _LENGTH
        self._left = size
        self._body = bytearray()
        return self._read_length(rest)

    # -- bodies -------------------------------------------------------------------------------------------------

    def _finish(self, body: bytes, extra: bytes | bytearray) -> bool:
        self.body = body
        self._state = _DONE
        if extra:
            self.reusable = False
        return True

    def _grow(self, data: bytes | bytearray) -> None:
        self._body += data
        if len(self._body) > self._limit:
            raise TooLarge("the body goes on")

    def _read_length(self, data: bytes) -> bool:
        left = self._left
        if len(data) < left:
            self._body += data
            self._left = left - len(data)
            return False
        self._body += data[:left]
        return self._finish(bytes(self._body), data[left:])

    def _read_chunks(self, data: bytes) -> bool:
        """Chunk line, data, and so on to the empty chunk, then trailers, which are checked and dropped (§7.1)."""
        buffer = self._buffer
        assert buffer is not None
        buffer += data
        at = 0
        while True:
            if self._state == _CHUNK_DATA:
                if self._left:
                    piece = buffer[at : at + self._left]
                    self._grow(piece)
                    self._left -= len(piece)
                    at += len(piece)
                if self._left or len(buffer) < at + 2:
                    break
                if buffer[at : at + 2] != b"\r\n":
                    raise MalformedChunks("a chunk is longer than announced")
                at += 2
                self._state = _CHUNK_LINE
            end = buffer.find(b"\r\n", at)
            if self._state == _CHUNK_LINE:
                if (len(buffer) if end < 0 else end) - at > MAX_CHUNK_LINE_BYTES:
                    raise MalformedChunks(f"a chunk line is longer than {MAX_CHUNK_LINE_BYTES} bytes")
                if end < 0:
                    break
                self._left = _chunk_size(bytes(buffer[at:end]))
                if len(self._body) + self._left > self._limit:
                    raise TooLarge("the body goes on")
                at = end + 2
                self._state = _CHUNK_DATA if self._left else _TRAILERS
                continue
            if self._head_bytes + (len(buffer) if end < 0 else end) - at > MAX_HEAD_BYTES:
                raise MalformedChunks(f"the trailers are longer than {MAX_HEAD_BYTES} bytes")
            if end < 0:
                break
            line = buffer[at:end]
            at = end + 2
            if not line:
                return self._finish(bytes(self._body), buffer[at:])
            self._head_bytes += len(line)
            self._trailer_lines += 1
            if b":" not in line or self._trailer_lines > MAX_HEADER_LINES:
                raise MalformedChunks("malformed trailers, or too many")
        del buffer[:at]
        return False


def _unfold(lines: list[str]) -> list[str]:
    """Folded header lines on one line each: obsolete, a space stands for the fold (§5.2)."""
    unfolded: list[str] = lines[:1]
    for line in lines[1:]:
        if not line.startswith((" ", "\t")):
            unfolded.append(line)
        elif len(unfolded) == 1:
            raise Malformed("whitespace before the first header line")
        else:
            unfolded[-1] += " " + line.strip(" \t")
    return unfolded


def _content_length(text: str) -> int:
    """One length, however often it is repeated (RFC 9110 §8.6); conflicting ones are an attack or a fault."""
    if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS:
        return int(text)
    values = {value.strip(" \t") for value in text.split(",")} if "," in text else {text}
    (value, *others) = values
    if others or not (value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS):
        raise Malformed(f"unusable Content-Length {text[:60]!r}")
    return int(value)


def _chunk_size(line: bytes) -> int:
    size = line.partition(b";")[0].rstrip(b" \t")
    # int() alone would take signs, underscores and 0x.
    if not size or len(size) > 16 or not _HEX_DIGITS.issuperset(size) or b"\n" in line or b"\r" in line:
        raise MalformedChunks(f"malformed chunk size {line[:30]!r}")
    return int(size, 16)


def decode(body: bytes, encodings: tuple[str, ...], limit: int) -> bytes:
    """The body without its gzip and deflate encodings (RFC 9110 §8.4.1), never more than `limit` bytes.

    Raises TooLarge as soon as it grows beyond, Undecodable for damage, a missing end, and any other encoding.
    """
    if not body:
        return body
    if len(encodings) > 3:
        raise Undecodable("more than three content encodings")
    for encoding in reversed(encodings):
        if encoding in ("gzip", "x-gzip"):
            body = _inflate(body, 16 + zlib.MAX_WBITS, limit)
        elif encoding == "deflate":
            try:
                body = _inflate(body, zlib.MAX_WBITS, limit)
            except Undecodable:
                body = _inflate(body, -zlib.MAX_WBITS, limit)  # Meant as zlib; half the world sends it raw.
        else:
            raise Undecodable(f"unknown Content-Encoding {encoding[:40]!r}")
    return body


def _inflate(body: bytes, wbits: int, limit: int) -> bytes:
    try:
        engine = zlib.decompressobj(wbits)
        out = engine.decompress(body, limit + 1)
        if len(out) > limit:
            raise TooLarge("the decompressed body goes on")
        if engine.eof and not engine.unused_data:
            return out
        if wbits > zlib.MAX_WBITS and engine.eof:
            return _inflate_members(body, limit)
    except zlib.error as error:
        raise Undecodable(f"the compressed body is damaged ({error})") from error
    if engine.eof:
        raise Undecodable("bytes follow the compressed body")
    raise Undecodable("the compressed body is cut short")


def _inflate_members(body: bytes, limit: int) -> bytes:
    """Several gzip members on end; in blocks, for each end of a member copies what is left of its block."""
    out = bytearray()
    members = 1
    engine = zlib.decompressobj(16 + zlib.MAX_WBITS)
    for start in range(0, len(body), _INFLATE_BLOCK):
        block = body[start : start + _INFLATE_BLOCK]
        while block:
            if engine.eof:
                members += 1
                if members > MAX_GZIP_MEMBERS:
                    raise Undecodable(f"more than {MAX_GZIP_MEMBERS} gzip members")
                engine = zlib.decompressobj(16 + zlib.MAX_WBITS)
            out += engine.decompress(block, limit + 1 - len(out))
            if len(out) > limit:
                raise TooLarge("the decompressed body goes on")
            block = engine.unused_data if engine.eof else engine.unconsumed_tail
    if not engine.eof:
        raise Undecodable("the compressed body is cut short")
    return bytes(out)
