"""The items, tags and comments a simulated API has, each a pure function of (seed, id).

Nothing is stored per item but its content flag: one byte an id, 0 for a hole. Everything else is computed
when it is asked for, from pools of encoded JSON made once a process: a world of a million items takes half a
second to make, an answer takes microseconds, and two processes with the same seed agree on every byte.
"""

from __future__ import annotations

import json
import math
import random
import struct
import threading
import time
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import compress, count, islice
from statistics import NormalDist
from typing import Any, TypeVar

PAGE = 120
"""Items on a full listing page."""

SFW, NSFW, NSFL, NSFP, POL = 1, 2, 4, 8, 16
ALL_FLAGS = SFW | NSFW | NSFL | NSFP | POL

FIRST_CREATED = 1_167_609_600
"""2007-01-01, unix seconds UTC: no item is older."""
LAST_CREATED = 1_769_904_000
"""2026-02-01, unix seconds UTC: `created` of the newest item of a new world."""

PINNED = 1_000_000_000
"""A `promoted` number above this one means pinned."""

_BLOCK = 64  # ids among which the promoted numbers of a stretch are shuffled
_PROMOTED_PER_BLOCK = 6
_SLOTS = 64  # tag and comment ids an item owns: more than the most of either it can have
_RUN = 256  # how much one item may take from a pool at once, with room to spare
_MASK = (1 << 64) - 1
_T = TypeVar("_T")


def mix(value: int) -> int:
    """Scatter an integer over 64 bits: the finaliser of splitmix64, the same on every machine."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def wilson(up: int, down: int) -> float:
    """Lower bound of the Wilson score interval for `up` of `up + down` votes, z = 1.96.

    In single precision with six significant digits, as the real API gives it: this reproduces every comment of
    the recorded sample, 5 of 5 (0.565508) included.
    """
    if not up:
        return 0.0
    votes, square = up + down, 1.96 * 1.96
    share = up / votes
    spread = math.sqrt(square * (share * (1 - share) / votes + square / (4 * votes * votes)))
    bound = (share + square / (2 * votes) - spread) / (1 + square / votes)
    (single,) = struct.unpack("<f", struct.pack("<f", bound))
    return float(f"{single:.6g}")


@dataclass(frozen=True, slots=True)
class Listing:
    """One listing page: its item ids in the order the API gives them, and whether it touches an end."""

    ids: tuple[int, ...]
    at_start: bool
    at_end: bool


class World:
    """A deterministic set of items with holes, old and new shapes, hidden content, tags and comments.

    Exactly `items` of them carry flag 1. Others between them (about 30 % of all) carry 2, 4, 8 or 16, one bit
    each; with `login=False` those are holes to everybody, so the visible part is the same either way. Every
    method may be called from any thread.
    """

    def __init__(self, seed: int = 0, items: int = 3000, login: bool = False) -> None:
        if items < 0:
            raise ValueError(f"items must not be negative: {items}")
        self.seed = seed
        self.login = login
        self._salt = mix(seed & _MASK)
        self._lock = threading.RLock()
        self._flags = _scatter_flags(seed, items)
        self._built = len(self._flags) - 1
        self._deleted: dict[int, int] = {}
        self._arrived: dict[int, int] = {}
        self._keys: dict[tuple[int, bool], array[int]] = {}
        sfw = self.ids(SFW)
        backs = [back for back in (90, 31, 7) if back <= items]
        self._pinned = {sfw[-back]: PINNED + rank for rank, back in enumerate(backs, 1)}
        self._pinned_ids = {number: id for id, number in self._pinned.items()}

    # What there is

    def flag(self, id: int) -> int:
        """The content flag of an item (1, 2, 4, 8 or 16), or 0 where there is none or nobody can see it."""
        if not 0 < id < len(self._flags):
            return 0
        flag = self._flags[id]
        return flag if flag == SFW or self.login else 0

    def ids(self, flags: int = SFW, *, promoted: bool = False) -> Sequence[int]:
        """The keys visible with `flags`, ascending: item ids, or promoted numbers with `promoted`.

        The sequence grows as items arrive and is not to be changed.
        """
        if not self.login:
            flags &= SFW
        keys = self._keys.get((flags, promoted))
        if keys is None:
            with self._lock:
                keys = array("q", self._promoted_numbers(flags) if promoted else self._visible(flags))
                self._keys[flags, promoted] = keys
        return keys

    def page(
        self,
        flags: int = SFW,
        *,
        promoted: bool = False,
        older: int | None = None,
        newer: int | None = None,
        around: int | None = None,
    ) -> Listing | None:
        """The page the API gives: descending keys below `older`, or ascending keys above `newer`, exclusive.

        `around` is an item's id and gives the page that has it somewhere in the middle, None if not listed.
        With `promoted` the keys are promoted numbers, pinned items (the greatest numbers) first.
        """
        keys = self.ids(flags, promoted=promoted)
        size = len(keys)
        if newer is not None:
            low = bisect_right(keys, newer)
            high = min(low + PAGE, size)
            page = keys[low:high]
        else:
            high = size
            if older is not None:
                high = bisect_left(keys, older)
            elif around is not None:
                key = self.promoted(around) if promoted else around
                at = bisect_left(keys, key)
                if at == size or keys[at] != key:
                    return None
                high = min(size, at + PAGE // 2)
            low = max(0, high - PAGE)
            page = keys[low:high][::-1]
        ids = tuple(map(self._with_number, page)) if promoted else tuple(page)
        return Listing(ids, at_start=high == size, at_end=low == 0)

    # What changes

    def arrive(self, n: int = 1, *, created: int | None = None, flag: int = SFW) -> list[int]:
        """Add `n` items newer than all others and return their ids; `created` is now unless given."""
        if flag not in (SFW, NSFW, NSFL, NSFP, POL):
            raise ValueError(f"not one content flag: {flag}")
        moment = int(time.time()) if created is None else created
        new: list[int] = []
        with self._lock:
            while len(new) < n:
                id = len(self._flags)
                if mix(self._salt ^ id) % 10 == 0:
                    self._flags.append(0)
                    continue
                # The time first: another thread that sees the flag asks for `created` at once.
                self._arrived[id] = moment
                self._flags.append(flag)
                new.append(id)
                for (flags, promoted), keys in self._keys.items():
                    if flags & flag and not promoted:
                        keys.append(id)
        return new

    def delete(self, id: int) -> None:
        """Make an item disappear from every listing and its details "not found"."""
        with self._lock:
            self._deleted[id] = self._require(id)
            self._set(id, 0)

    def undelete(self, id: int) -> None:
        """Bring a deleted item back as it was."""
        with self._lock:
            self._set(id, self._deleted.pop(id))

    def reflag(self, id: int, flag: int) -> None:
        """Move an item to another content flag (1, 2, 4, 8 or 16)."""
        if flag not in (SFW, NSFW, NSFL, NSFP, POL):
            raise ValueError(f"not one content flag: {flag}")
        with self._lock:
            self._require(id)
            self._set(id, flag)

    # What an item is

    def item(self, id: int) -> dict[str, Any]:
        """The fields a listing gives for an item, as Python values: what a mirror should end up with."""
        fields: dict[str, Any] = json.loads(self.item_json(id))
        return fields

    def info(self, id: int) -> dict[str, Any]:
        """The `tags` and `comments` of an item, as Python values: what a mirror should end up with."""
        fields: dict[str, Any] = json.loads("{" + self.info_json(id) + "}")
        return fields

    def created(self, id: int) -> int:
        """When an item was uploaded, unix seconds: grows with the id."""
        arrived = self._arrived.get(id)
        if arrived is not None:
            return arrived
        return LAST_CREATED - (self._built - id) * (LAST_CREATED - FIRST_CREATED) // self._built

    def promoted(self, id: int) -> int:
        """The item's number on /top, 0 if it never got there, above 1,000,000,000 if it is pinned.

        The numbers run with the ids but are shuffled among neighbours, so ids are not monotonic on /top.
        """
        if id > self._built:
            return 0
        pinned = self._pinned.get(id)
        if pinned is not None:
            return pinned
        block, offset = id // _BLOCK, id % _BLOCK
        # 45 * 37 = 1 modulo 64: the inverse of `_with_number`.
        rank = (offset - _turn(self._salt + block)) * 45 % _BLOCK
        return block * _PROMOTED_PER_BLOCK + rank + 1 if rank < _PROMOTED_PER_BLOCK else 0

    def item_json(self, id: int) -> str:
        """One element of a listing's `items`, as encoded JSON (ASCII)."""
        draw = mix(self._salt ^ (id << 1))
        created = self.created(id)
        day = _day(created // 86_400)
        path = f"{day}{draw:016x}"
        user, user_id, mark = _users()[draw & 2047]
        votes = _item_votes()[draw >> 11 & 1023]
        video = draw >> 21 & 7 == 0
        chance = draw >> 24 & 255
        fullsize = f"{path}.png" if chance < 40 and not video else ""
        source = ('""', '""', '"https:\\/\\/example.org\\/source"', "null")[draw >> 32 & 3]
        head = f'{{"id":{id},"promoted":{self.promoted(id)},{votes},"created":{created},'
        # A listing may name an item that another thread deletes before it is rendered.
        flag = self._flags[id] or self._deleted.get(id, 0)
        tail = f'"flags":{flag},"user":"{user}","mark":{mark}'

        if id <= self._built // 5:
            kind = ("webm" if chance & 1 else "gif") if video else "jpg"
            audio = '"audio":true,' if chance < 8 else ""
            return (
                f'{head}"image":"{path}.{kind}",{audio}"thumb":"{path}.jpg","fullsize":"{fullsize}",'
                f'"source":{source},{tail}}}'
            )
        width, height = 320 + (draw >> 34 & 1023), 240 + (draw >> 44 & 1023)
        deleted = ',"deleted":0' if id <= self._built * 3 // 5 and draw >> 54 & 1 else ""
        repost = ("", ',"repost":false', ',"repost":false', ',"repost":true')[draw >> 55 & 3]
        gift = (draw >> 57 & 7) + 1 if chance == 255 else 0
        if video:
            kind, audio = "mp4", "true" if chance & 2 else "false"
            preview = f'"{path}-preview.mp4"' if chance & 1 else "null"
            sized = f'"width":{width},"height":{height},"bitRate":{chance + 100.5},"fileSize":{draw >> 40}'
            variants = (
                f'{{"name":"vp9","path":"\\/{path}-vp9.mp4","mimeType":"video\\/mp4","codec":"vp9",{sized}}},'
                f'{{"name":"h264","path":"\\/{path}-h264.mp4","mimeType":"video\\/mp4","codec":"h264",'
                f'"width":{width // 2},"height":{height // 2},"bitRate":null,"fileSize":null}}'
            )
            subtitles = (
                f'{{"language":"de","path":"\\/{path}-de.vtt","label":"Deutsch","isDefault":true}}'
                if chance & 3 == 0
                else ""
            )
        else:
            kind, audio, preview, variants, subtitles = "jpg", "false", "null", "", ""
        return (
            f'{head}"image":"{path}.{kind}","thumb":"{path}.jpg","fullsize":"{fullsize}","preview":{preview},'
            f'"width":{width},"height":{height},"audio":{audio},'
            f'"source":{source},{tail},"userId":{user_id},"gift":{gift}{deleted}{repost},'
            f'"variants":[{variants}],"subtitles":[{subtitles}]}}'
        )

    def info_json(self, id: int) -> str:
        """The members `tags` and `comments` of an item's details, as encoded JSON (ASCII) without braces."""
        draw = mix(self._salt ^ (id << 1 | 1))
        if draw < _MASK // 60:
            return '"tags":[],"comments":[]'
        tags = [f'{{"id":{tag}{votes[1]}{word}' for tag, votes, word in self._tags(id, draw)]
        return f'"tags":[{",".join(tags)}],"comments":[{self._comments_json(id, draw)}]'

    def latest_tags_json(self, above: int, limit: int, flags: int = SFW) -> str:
        """Some `limit` tags with ids above `above`, whole items, ascending, as encoded JSON (ASCII)."""
        found: list[str] = []
        ids = self.ids(flags)
        for at in range(bisect_left(ids, above // _SLOTS), len(ids)):
            id = ids[at]
            draw = mix(self._salt ^ (id << 1 | 1))
            if draw < _MASK // 60:
                continue
            found += [
                f'{{"id":{tag},{votes[0]}{votes[1]},"itemId":{id}{word}'
                for tag, votes, word in sorted(self._tags(id, draw))
                if tag > above
            ]
            if len(found) >= limit:
                break
        return ",".join(found)

    # How it is made

    def _tags(self, id: int, draw: int) -> Iterator[tuple[int, tuple[str, str], str]]:
        """(tag id, rendered votes, rendered word) of an item's tags, in alphabetical order."""
        wanted = _tag_counts()[draw & 255]
        at = draw >> 8 & 0xFFFF
        drawn, vocabulary = _drawn_words(), _vocabulary()
        words = set(drawn[at : at + wanted])
        at += wanted
        while len(words) < wanted:
            words.add(drawn[at])
            at += 1
        votes_at = draw >> 24 & 2047
        slots = _tag_slots(id * _SLOTS, draw >> 35 & 63)
        votes = _tag_votes()[votes_at : votes_at + wanted]
        return zip(slots, votes, [vocabulary[word] for word in sorted(words)], strict=False)

    def _comments_json(self, id: int, draw: int) -> str:
        wanted = _comment_counts()[draw >> 41 & 255]
        draw = mix(draw)
        opening, closing = draw & 2047, draw >> 11 & 2047
        shape, end = draw >> 22 & 2047, draw >> 33 & 4095
        openings, closings = _texts()
        when = self.created(id)
        first = comment = id * _SLOTS
        comments = []
        for head, tail, (step, back), rest in zip(
            openings[opening : opening + wanted],
            closings[closing : closing + wanted],
            _threads()[shape : shape + wanted],
            _comment_ends()[end : end + wanted],
            strict=True,
        ):
            when += step
            parent = comment - back if 0 < back <= comment - first else 0
            comments.append(f'{{"id":{comment},"parent":{parent}{head}{tail}{when}{rest}')
            comment += 1
        return ",".join(comments)

    def _visible(self, flags: int) -> Iterator[int]:
        """The ids whose flag is in `flags`, ascending."""
        chosen = bytes(1 if flag & flags else 0 for flag in range(256))
        return compress(count(), self._flags.translate(chosen))

    def _promoted_numbers(self, flags: int) -> list[int]:
        """The promoted numbers of the visible items, ascending."""
        ordinary = range(1, (self._built // _BLOCK + 1) * _PROMOTED_PER_BLOCK + 1)
        holders = ((number, self._with_number(number)) for number in ordinary)
        return [
            number
            for number, id in [*holders, *((number, id) for id, number in self._pinned.items())]
            if id <= self._built and self._flags[id] & flags and self.promoted(id) == number
        ]

    def _with_number(self, number: int) -> int:
        """The id that holds a promoted number, whether there is such an item or not."""
        if number > PINNED:
            return self._pinned_ids[number]
        block, rank = divmod(number - 1, _PROMOTED_PER_BLOCK)
        return block * _BLOCK + (_turn(self._salt + block) + rank * 37) % _BLOCK

    def _require(self, id: int) -> int:
        """The flag of an existing item, hidden or not; KeyError where there is none."""
        if not 0 < id < len(self._flags) or not self._flags[id]:
            raise KeyError(id)
        return self._flags[id]

    def _set(self, id: int, flag: int) -> None:
        self._flags[id] = flag
        # A new dict, not a cleared one: a reader that has fetched its keys goes on with a whole array.
        self._keys = {}


def _scatter_flags(seed: int, items: int) -> bytearray:
    """One flag per id (0: a hole) with exactly `items` ids of flag 1, the greatest of them last."""
    early = b"\0" * 26 + bytes([NSFW]) * 43 + bytes([NSFL]) * 26
    late = b"\0" * 26 + bytes([NSFW]) * 30 + bytes([NSFL]) * 12 + bytes([NSFP]) * 14 + bytes([POL]) * 13
    source = random.Random(seed)
    low = source.randrange(3, 30)  # the API's first ids are long gone
    flags = bytearray(low)
    expected = items * 256 // (256 - len(early))
    for table, share in ((early, 0.6), (late, 0.5)):
        bytes_to_flags = table + bytes([SFW]) * (256 - len(table))
        flags += source.randbytes(int(expected * share)).translate(bytes_to_flags)
    while (missing := items - flags.count(SFW)) > 0:
        flags += source.randbytes(missing * 2).translate(bytes_to_flags)
    if not items:
        return flags[:low]
    sfw_only = bytes(flag == SFW for flag in range(256))
    return flags[: next(islice(compress(count(), flags.translate(sfw_only)), items - 1, None)) + 1]


@lru_cache(maxsize=1024)
def _turn(value: int) -> int:
    """`mix`, remembered: the items of a page ask for the same few blocks."""
    return mix(value)


@lru_cache(maxsize=8192)
def _day(day: int) -> str:
    """The folder of a day's uploads (year, month, day) as encoded JSON; `day` counts from 1970."""
    return time.strftime("%Y\\/%m\\/%d\\/", time.gmtime(day * 86_400))


def _looped(pool: list[_T]) -> list[_T]:
    """A pool whose beginning follows its end, so that a run may start anywhere in it."""
    return pool + (pool * (_RUN // len(pool) + 1))[:_RUN]


@cache
def _votes() -> list[tuple[int, int]]:
    """1,024 pairs of votes up and down, few votes most often."""
    source = random.Random(1)
    ups = [int(source.expovariate(1 / 9)) for _ in range(1024)]
    return [(up, int(up * source.random() ** 3 + source.expovariate(1))) for up in ups]


@cache
def _item_votes() -> list[str]:
    """The 1,024 pairs of votes as an item has them in encoded JSON."""
    return [f'"up":{up},"down":{down}' for up, down in _votes()]


@cache
def _tag_votes() -> list[tuple[str, str]]:
    """Runs of votes for tags in encoded JSON: the plain counts, and the confidence alone with its comma."""
    source = random.Random(2)
    pairs = source.choices(_votes(), k=2048)
    return _looped([(f'"up":{up},"down":{down}', f',"confidence":{wilson(up, down):.6g}') for up, down in pairs])


@cache
def _users() -> list[tuple[str, int, int]]:
    """2,048 people: name, userId, mark (0..15). One uploads and comments under the same facts everywhere."""
    source = random.Random(3)
    marks = [0] * 60 + [1] * 10 + [2] * 8 + [8, 9, 10, 11, 12, 6, 7, 4, 3, 5, 13, 14, 15]
    return [(f"user{number:04d}", 1000 + number * 7, source.choice(marks)) for number in range(2048)]


@cache
def _comment_ends() -> list[str]:
    """Runs of votes and authors: what follows the digits of a comment's `created` in encoded JSON."""
    source = random.Random(4)
    people, pairs = source.choices(_users(), k=4096), source.choices(_votes(), k=4096)
    return _looped(
        [
            f',"up":{up},"down":{down},"confidence":{wilson(up, down):.6g},"name":"{name}","mark":{mark}}}'
            for (name, _, mark), (up, down) in zip(people, pairs, strict=True)
        ]
    )


@cache
def _threads() -> list[tuple[int, int]]:
    """Runs of (seconds since the comment before, how many comments back its parent is or 0 for top level)."""
    source = random.Random(5)
    backs = [0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 5, 8]
    return _looped([(source.randint(1, 120), source.choice(backs)) for _ in range(2048)])


@lru_cache(maxsize=64)
def _slot_order(turn: int) -> tuple[int, ...]:
    # An odd stride visits every slot once: tag ids are unique, and not in the order of the alphabet.
    return tuple((turn + 5 * place) % _SLOTS for place in range(_SLOTS))


def _tag_slots(first: int, turn: int) -> Iterator[int]:
    """The ids of an item's tags in the order the tags come, from the first id the item owns."""
    return map(first.__add__, _slot_order(turn))


@cache
def _tag_counts() -> list[int]:
    """How many tags an item has, 256 equally likely cases: 12 on average."""
    usual = NormalDist(12.2, 5)
    return [min(32, max(1, round(usual.inv_cdf((case + 0.5) / 256)))) for case in range(256)]


@cache
def _comment_counts() -> list[int]:
    """How many comments an item has, 256 equally likely cases: 9 on average, at most 40, often few."""
    return [min(40, int(-9.9 * math.log(1 - (case + 0.5) / 256))) for case in range(256)]


def _encode(text: str) -> str:
    """A JSON string without its quotes, escaped as PHP's json_encode does it: ASCII only, slashes too."""
    return json.dumps(text)[1:-1].replace("/", "\\/")


@cache
def _vocabulary() -> list[str]:
    """Some thousand different tags sorted as the API sorts them, each as the end of a tag in encoded JSON."""
    words = {f"{first}{second}" for first in _COMPOUND_FIRST.split() for second in _COMPOUND_SECOND.split()}
    words |= {f"{first} {second}" for first in _ADJECTIVES.split() for second in _NOUNS.split()}
    words |= set(_NOUNS.split()) | set(_SPECIAL) | {str(year) for year in range(1970, 2027)}
    distinct = {word.lower(): word for word in sorted(words)}
    return [f',"tag":"{_encode(distinct[key])}"}}' for key in sorted(distinct)]


@cache
def _drawn_words() -> list[int]:
    """Runs of indexes into the vocabulary, frequent tags as often as Zipf and Mandelbrot have it."""
    source = random.Random(6)
    words = list(range(len(_vocabulary())))
    source.shuffle(words)
    weights = [1 / (rank + 20) for rank in range(len(words))]
    return _looped(source.choices(words, weights, k=1 << 16))


@cache
def _texts() -> tuple[list[str], list[str]]:
    """Runs of openings and of ends of comments, any two of which make a text of 110 characters on average.

    In encoded JSON, from the comma before `content` to the colon after `created`.
    """
    source = random.Random(7)
    phrases = _PHRASES.split("|")

    def sentence(mean: float) -> str:
        return " ".join(source.choices(phrases, k=1 + int(source.expovariate(1 / mean))))

    def ending() -> str:
        between = source.choice(["", "", "", " ", " ", " ", " ", "\r\n", "\r\n", "\r\n\r\n"])
        return between + sentence(6.2) if between else ""

    openings = [f',"content":"{_encode(sentence(9.2))}' for _ in range(2048)]
    endings = [f'{_encode(ending())}","created":' for _ in range(2048)]
    return _looped(openings), _looped(endings)


_COMPOUND_FIRST = """
Katzen Hunde Kaffee Bier Käse Brötchen Auto Bahn Straßen Garten Küchen Schul Arbeits Büro Sommer Winter
Regen Sonnen Nacht Morgen Feierabend Wochenend Montags Freitags Familien Kinder Nachbar Haus Dach Keller
Wald Wiesen Berg See Fluss Meer Fahrrad Traktor Bagger Feuerwehr Polizei Computer Internet Handy Film Musik
Gitarren Spiele Retro Weltraum Mond Kürbis Nudel Grill
"""
_COMPOUND_SECOND = """
bild video foto witz freund liebe haus garten musik spiel tag abend zeit wetter problem lösung meister könig
held fest kunst maschine werkstatt laden führer mensch tier futter pause schicht reise straße brücke tür
fenster geschichte überraschung träume
"""
_ADJECTIVES = """
old new funny sad great tiny huge lost found happy angry sleepy lazy fast slow broken perfect wrong right
wild quiet
"""
_NOUNS = """
cat dog bird fox bear frog car train bike plane ship bridge house tower city village forest mountain river
lake ocean storm snow rain sunset coffee beer pizza cake bread robot laptop keyboard game movie song guitar
piano meme gif webm art
"""
_SPECIAL = (
    "1337", "42", "4k", "9.800円", "50/50", "24/7", "a&b", "Rock & Roll", "C&A", "it's", "\"Kunst\"",
    "'Murica", "[x]", "ß", "Übermut", "Äpfel", "Öl", "über alles Bescheid wissen",
    "Tag mit Leerzeichen", "emoji 🍎", "🙂", "🐈 Katze", "🇩🇪", "<b>fett</b>", "c++", "#hashtag", "100%",
    "Straßenbahn", "señor", "naïve", "Ελλάδα", "привет", "日本", "\\o/", "süßvideo", "x", "y", "z",
    "OC", "webm mit ton", "sound", "ohne ton", "repost?", "fixed", "fefe & co", "http://",
)  # fmt: skip
_PHRASES = (
    "und das|ist|auch|nicht|ein|kein|über|siehe|mit|ohne|ich|du|wir|hab|schon|immer|noch nie|heute|"
    "gestern|morgen|wirklich|natürlich|Äpfel|Straßenbahn|Kommentar|Quelle?|Wieso nur|Danke|Hut ab|"
    "gar nicht so übel|so ist das eben|what a time|nice one|that is|the best|I have ever seen|"
    "not again|source please|mein Hund|meine Katze|🙂|😂|👍🏽|🍎|🎉|🐈|🍺|🚲|@user0001|@user0042|"
    '"Anführungszeichen"|https://example.org/x?y=1|a & b|<b>kein HTML</b>|zwei\r\nZeilen|3,50 €|'
    "100 %|:)|o_O|jaja ...|!!!|ähm|größer|früher war mehr Lametta|läuft"
)
