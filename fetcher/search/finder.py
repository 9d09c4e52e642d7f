"""The search of one database: by words, by meaning, or by both."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from itertools import islice
from typing import Any, Literal, cast

from fetcher.embedders import Embedder, make
from fetcher.errors import ConfigurationError, RemoteError, RequestFailed, StoreError
from fetcher.place import Place, PostgresUrl, place_of
from fetcher.search.fusion import Found, distinct, fused
from fetcher.search.hits import Hit, Marks, lines_of, marked, sentence
from fetcher.search.look import CHUNKS, ITEMS, Look, Looker, Matches
from fetcher.settings import Settings, load
from fetcher.stop import Stop
from fetcher.texts.chunk import Chunk

log = logging.getLogger("fetcher")

Mode = Literal["text", "vector", "hybrid"]

_DEPTH = 100
"""So many of each ranking are fused, or the limit if that is more."""

_NOTHING = Matches([], {})


class Search:
    """Finds items and chunks of one database again and again: its vectors are loaded once, at the first need.

    What is written meanwhile is found, too. It may be used from several threads, and keeps no file open. `embedder` is
    an Embedder, or what the setting EMBEDDER takes; `settings` are others of TextSettings, such as `embed_model`. What
    is not given comes from the environment and `.env`.
    """

    def __init__(self, db: str | Place, embedder: Embedder | Callable[..., Any] | str | None = None, **settings: Any):
        self._path = place_of(db)
        self._said: set[str] = set()
        self._lock = threading.Lock()
        self._looker = self._look_into(self._path)
        self._given = embedder
        self._settings = settings
        self._embedder: Embedder | None = None

    def find(self, words: str, limit: int = 20, *, mode: Mode | None = None, marks: Marks = ("[", "]")) -> list[Hit]:
        """What is found by `words`, best first, at most `limit`.

        Mode `text` finds items and chunks that have all the words, which may be an FTS5 query (`"a phrase"`,
        `tags : word`, `one OR two`, `begin*`); what is none is searched word by word, and case and accents make no
        difference. Mode `vector` finds the chunks nearest to the words in meaning, `hybrid` fuses both by reciprocal
        rank. None is hybrid where the database has vectors and their embedder is there, and text where not, which
        goes to the log. An item is one hit, however many of its chunks are found; chunks of what is no longer listed
        are left out. Each word found in a snippet stands between the two `marks`.

        Raises ConfigurationError when there is nothing to look for or the embedder is not the one that made the
        vectors, StoreError when the database cannot be read or has nothing to search, RemoteError when the embedder
        does not answer.
        """
        # What no UTF-8 can be made of is in no text either.
        wanted = words.encode("utf-8", "replace").decode().replace("\0", " ").strip()
        if not wanted:
            raise ConfigurationError("there are no words to search for")
        if limit < 1:
            raise ConfigurationError(f"limit: must be at least 1, not {limit}")
        if mode not in (None, "text", "vector", "hybrid"):
            raise ConfigurationError(f"mode: must be text, vector or hybrid, not {mode}")
        with self._looker.looking() as look:
            meant = None if mode == "text" else self._meant(look, wanted, required=mode is not None)
            # From here on all is seen as of one moment.
            look.as_of_now()
            found, ranking = self._ranked(look, wanted, meant, limit, mode)
            return self._hits(look, ranking, found, wanted, marks)

    def _look_into(self, place: Place) -> Looker:
        if isinstance(place, PostgresUrl):
            from fetcher.search.server import ServerLooker

            return ServerLooker(place)
        from fetcher.search.file import FileLooker

        return FileLooker(place, self._say, self._lock)

    def _ranked(
        self, look: Look, words: str, meant: bytes | None, limit: int, mode: Mode | None
    ) -> tuple[Matches, list[Found]]:
        """What the words match, and what is to be shown."""
        if meant is None:
            found = look.matches(words, limit)
            return found, found.ranking
        near = distinct(look.nearest(meant))
        if mode == "vector":
            return _NOTHING, list(islice(near, limit))
        depth = max(limit, _DEPTH)
        # The vectors first: their lock orders the moments at which threads look, so that none sees an older table.
        nearest = list(islice(near, depth))
        found = look.matches(words, depth)
        return found, fused([found.ranking, nearest], limit)

    # --- by meaning -----------------------------------------------------------------------------------

    def _meant(self, look: Look, words: str, *, required: bool) -> bytes | None:
        """The vector of the words; None where there is nothing to compare it with, or no way to make it.

        Where it is required, these are errors.
        """
        try:
            model = self._model(look)
        except StoreError:
            if required:
                raise
            return None
        try:
            return self._embedded(words, *model)
        except (ConfigurationError, RemoteError) as error:
            if required:
                raise
            self._say(f"searching by words alone: {error}")
            return None

    def _model(self, look: Look) -> tuple[str, int]:
        """The name and the dimension of the model that made the vectors. Raises StoreError when there are none."""
        model = look.model()
        if model is None:
            raise StoreError(
                f"{self._path} has no vectors yet: `fetcher ingest` and `fetcher embed` make them, or search with"
                " --mode text"
            )
        return model

    def _embedded(self, words: str, name: str, dimension: int) -> bytes:
        """The vector of the words, by the model that made the others. Raises ConfigurationError and RemoteError."""
        if self._looker.needs_numpy and find_spec("numpy") is None:
            raise ConfigurationError("vectors are searched with numpy: pip install 'fetcher[embed]'")
        with self._lock:
            if self._embedder is None:
                self._embedder = _embedder(self._given, self._settings)
            embedder = self._embedder
        if embedder.name != name:
            raise ConfigurationError(
                f"the vectors of {self._path} are of {name}, not of {embedder.name}: set EMBEDDER and EMBED_MODEL to"
                " what made them"
            )
        try:
            (vector,) = embedder.embed([words])
        except RequestFailed as error:
            raise RemoteError(f"the words cannot be embedded: {error}") from error
        if len(vector) != 4 * dimension:
            raise ConfigurationError(
                f"the vectors of {self._path} have {dimension} numbers, those of {name} now {len(vector) / 4:g}: set"
                " EMBEDDER and EMBED_MODEL to what made them"
            )
        return vector

    def _say(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            log.warning("%s", message)

    # --- hits -----------------------------------------------------------------------------------------

    def _hits(self, look: Look, ranking: list[Found], found: Matches, words: str, marks: Marks) -> list[Hit]:
        chunks = look.chunks([each.chunk for each in ranking if each.chunk is not None])
        keys = [each.item for each in ranking if each.item is not None]
        of_items = look.snippets(found, ITEMS, keys)
        of_chunks = look.snippets(found, CHUNKS, chunks)
        hits = []
        for each in ranking:
            shown: dict[str, tuple[str, ...]] = {}
            # The table whose texts are the longest comes first in the index, and last to a reader.
            for table, snippet in reversed(of_items.get(each.item, {}).items() if each.item is not None else ()):
                if lines := lines_of(snippet, marks):
                    shown[table] = lines
            chunk, document = (None, None) if each.chunk is None else chunks[each.chunk]
            if chunk is not None and not shown:
                shown = _shown(chunk, of_chunks.get(each.chunk or 0), words, marks)
            key = each.item if each.item is not None else chunk.id if chunk is not None else None
            assert key is not None
            hits.append(Hit(key, each.rank, shown, chunk, document))
        return hits


def _shown(chunk: Chunk, found: Mapping[str, str] | None, words: str, marks: Marks) -> dict[str, tuple[str, ...]]:
    """The snippets of a chunk: what the index shows, where it found the chunk, and what fits the words best if not."""
    if found is None:
        return {"text": (sentence(chunk.text, words, marks),)}
    text = (marked(" ".join(found["text"].split()), marks),)
    chapter = lines_of(found["source_chapter"], marks)
    return {"source_chapter": chapter, "text": text} if chapter else {"text": text}


def _embedder(given: Embedder | Callable[..., Any] | str | None, settings: Mapping[str, Any]) -> Embedder:
    """The embedder that was given, or one made from the settings. Raises ConfigurationError."""
    if hasattr(given, "embed"):
        return cast(Embedder, given)
    # Only now: what an embedder imports takes longer than a search by words.
    from fetcher.governor import Governor
    from fetcher.texts.settings import TextSettings

    stop = Stop()
    return make(
        load(TextSettings, {**settings, "embedder": given}), load(Settings, {}), Governor(stop, parallel=1), stop
    )
