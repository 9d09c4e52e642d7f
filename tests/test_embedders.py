"""Every embedder gives a checked vector for each text, or says in one line why there is none."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import struct
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from fetcher.embedders import Embedder, make
from fetcher.embedders.local import WordLlama
from fetcher.embedders.openai import _duration
from fetcher.embedders.vectors import Unusable, are_finite, checked, packed
from fetcher.errors import ConfigurationError, RequestFailed, Stopped
from fetcher.governor import Governor
from fetcher.model import Outcome
from fetcher.settings import Settings, load
from fetcher.simulator import Answer, EmbeddingsWorld, Limit, Profile, Simulator
from fetcher.stop import Stop
from fetcher.texts.settings import TextSettings
from tests.helpers import ROOT, answer

pytestmark = pytest.mark.usefixtures("no_threads_left")

TEXTS = ["the harbour at night", "three lanterns", "a compiler"]
KEY = "sk-very-secret-indeed"


class Made:
    """An embedder with its governor, as the settings make it."""

    def __init__(self, **settings: Any) -> None:
        self.stop = Stop()
        self.governor = Governor(self.stop, parallel=4, max_pause=0.05)
        texts = load(TextSettings, settings, None)
        self.embedder: Embedder = make(texts, load(Settings, {}, None), self.governor, self.stop)

    def embed(self, texts: Sequence[str] = TEXTS) -> list[bytes]:
        return self.embedder.embed(texts)

    def fails(self, texts: Sequence[str] = TEXTS) -> RequestFailed:
        with pytest.raises(RequestFailed) as error:
            self.embedder.embed(texts)
        assert "\n" not in str(error.value)
        return error.value


Openai = Callable[..., tuple[Simulator[EmbeddingsWorld], Made]]


@pytest.fixture
def openai() -> Iterator[Openai]:
    """A simulated API and an embedder that asks it: `openai(world, faults=…, embed_model=…)`."""
    running: list[tuple[Simulator[EmbeddingsWorld], Made]] = []

    def start(
        world: EmbeddingsWorld | None = None, faults: Any = None, profile: Profile | None = None, **settings: Any
    ) -> tuple[Simulator[EmbeddingsWorld], Made]:
        simulator = Simulator(world or EmbeddingsWorld(), faults=faults, profile=profile)
        running.append((simulator, Made(embedder="openai", embed_base_url=simulator.url, **settings)))
        return running[-1]

    yield start
    for simulator, made in running:
        made.embedder.close()
        simulator.close()


def always(what: Answer) -> Callable[[str, int, int], Answer]:
    return lambda _kind, _key, _attempt: what


def edited(change: Callable[[Any], Any]) -> Callable[[str, int, int], Answer]:
    """The true answer with its JSON changed."""

    def edit(body: bytes) -> bytes:
        data = json.loads(body)
        return json.dumps(change(data) or data).encode()

    return always(Answer(edit=edit))


# --- an API -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["base64", "float"])
def test_an_api_gives_a_vector_for_each_text_in_their_order(openai: Openai, encoding: str) -> None:
    simulator, made = openai(embed_encoding=encoding)
    assert made.embed() == simulator.world.vectors(TEXTS)
    assert made.embed(TEXTS[::-1]) == simulator.world.vectors(TEXTS[::-1])
    assert made.embedder.name == "text-embedding-3-small"


def test_vectors_that_come_in_another_order_are_put_in_order(openai: Openai) -> None:
    simulator, made = openai(faults=edited(lambda data: data["data"].reverse()))
    assert made.embed() == simulator.world.vectors(TEXTS)


def test_an_api_that_sends_lists_whatever_it_is_asked_for_is_understood(openai: Openai) -> None:
    def lists(data: Any) -> None:
        for each, true in zip(data["data"], EmbeddingsWorld().vectors(TEXTS), strict=True):
            each["embedding"] = struct.unpack("<256f", true)

    simulator, made = openai(faults=edited(lists), embed_encoding="base64")
    assert made.embed() == simulator.world.vectors(TEXTS)


def test_an_index_that_is_left_out_is_0_and_without_any_the_order_counts(openai: Openai) -> None:
    def without(numbers: set[int]) -> Callable[[Any], None]:
        def change(data: Any) -> None:
            for each in data["data"]:
                if each["index"] in numbers:
                    del each["index"]

        return change

    for numbers in ({0}, {0, 1, 2}):
        simulator, made = openai(faults=edited(without(numbers)))
        assert made.embed() == simulator.world.vectors(TEXTS)


def spoilt(number: int, **fields: Any) -> Callable[[Any], None]:
    return lambda data: data["data"][number].update(fields)


def base64_of(*numbers: float) -> str:
    return b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data["data"].pop(), "2 vectors for 3 texts"),
        (lambda data: data["data"].append(data["data"][0]), "indexes are not those"),
        (spoilt(1, index=2), "indexes are not those"),
        (spoilt(1, index=3), "indexes are not those"),
        (spoilt(1, embedding=base64_of(1, 2)), "2 and 256 dimensions"),
        (spoilt(1, embedding=base64_of(*[math.nan] * 256)), "infinite or none"),
        (spoilt(1, embedding=base64_of(math.inf, *[0.1] * 255)), "infinite or none"),
        (spoilt(1, embedding=[-1e39, *[0.1] * 255]), "infinite or none"),
        (spoilt(1, embedding=[0] * 256), "a vector of zeros"),
        (spoilt(1, embedding=base64_of(*[-0.0] * 256)), "a vector of zeros"),
        (spoilt(1, embedding="????"), "no list of vectors"),
        (spoilt(1, embedding=[None] * 256), "no list of vectors"),
        (lambda data: {"object": "list"}, "no list of vectors"),
        (lambda data: {"error": {"message": "upstream is gone"}}, "no list of vectors: upstream is gone"),
        (lambda data: [1], "no list of vectors"),
    ],
)
def test_an_answer_that_is_not_a_vector_for_each_text_is_malformed(
    openai: Openai, change: Callable[[Any], Any], said: str
) -> None:
    def alter(data: Any) -> Any:
        changed = change(data)
        return changed if isinstance(changed, list | dict) and changed is not data and "index" not in changed else None

    _, made = openai(faults=edited(alter))
    error = made.fails()
    assert error.outcome is Outcome.MALFORMED
    assert said in str(error)
    assert error.body
    assert not error.lasting


def test_a_dimension_that_changes_from_one_answer_to_the_next_is_malformed(openai: Openai) -> None:
    def shorter(body: bytes) -> bytes:
        data = json.loads(body)
        for each in data["data"]:
            each["embedding"] = base64_of(*[0.5] * 128)
        return json.dumps(data).encode()

    _, made = openai(faults=lambda _kind, _key, attempt: Answer(edit=shorter) if attempt > 1 else None)
    made.embed()
    assert "128 and 256 dimensions" in str(made.fails())


@pytest.mark.parametrize(
    ("status", "body", "outcome", "said"),
    [
        (400, {"error": {"message": "too long"}}, Outcome.MALFORMED, "answered 400: too long"),
        (413, {"message": "batch too large"}, Outcome.MALFORMED, "answered 413: batch too large"),
        (422, {"detail": [{"msg": "bad\ninput"}]}, Outcome.MALFORMED, "answered 422: bad input"),
        (401, {"error": {"message": "who?"}}, Outcome.DENIED, "answered 401: who?; set EMBED_API_KEY"),
        (403, {"error": "no"}, Outcome.DENIED, "answered 403: no; EMBED_API_KEY may not"),
        (402, {"error": "pay"}, Outcome.DENIED, "wants to be paid"),
        (404, {"error": {"message": "no model m"}}, Outcome.DENIED, "no model m; set EMBED_BASE_URL"),
        (
            400,
            {"error": {"message": "m?", "code": "model_not_found"}},
            Outcome.DENIED,
            "no such model: set EMBED_MODEL",
        ),
        (429, {"error": {"message": "broke", "code": "insufficient_quota"}}, Outcome.DENIED, "no quota left"),
        (429, {"error": {"message": "broke", "type": "insufficient_quota", "code": None}}, Outcome.DENIED, "no quota"),
        (429, {"error": {"message": "slow down"}}, Outcome.LIMITED, "answered 429: slow down"),
        (409, {}, Outcome.UNAVAILABLE, "answered 409"),
        (424, {"error": "the backend failed"}, Outcome.UNAVAILABLE, "the backend failed"),
        (500, {"error": {"message": "oops"}}, Outcome.UNAVAILABLE, "answered 500: oops"),
    ],
)
def test_an_error_means_what_the_api_means_by_it(
    openai: Openai, status: int, body: Any, outcome: Outcome, said: str
) -> None:
    _, made = openai(faults=always(answer(body, status)))
    error = made.fails()
    assert (error.outcome, error.status) == (outcome, status)
    assert said in str(error)
    assert error.lasting == (outcome is Outcome.DENIED)


def test_a_page_in_html_is_no_judgement_about_the_key(openai: Openai) -> None:
    _, made = openai(faults=always(Answer(403, {"Content-Type": "text/html"}, b"<html>")))
    assert made.fails().outcome is Outcome.UNAVAILABLE


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"retry-after-ms": "250"}, 0.25),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m0.5s"}, 60.5),
        ({"x-ratelimit-reset-requests": "20ms"}, 0.02),
        (
            {
                "x-ratelimit-remaining-requests": "9",
                "x-ratelimit-reset-requests": "8h",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            360,
        ),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "1.5s"}, 1.5),
        ({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "1s"}, None),
        ({"x-ratelimit-reset-requests": "soon"}, None),
        ({"x-ratelimit-reset-requests": "1763800000"}, None),
        ({}, None),
    ],
)
def test_a_refusal_is_told_for_how_long(openai: Openai, headers: dict[str, str], seconds: float | None) -> None:
    _, made = openai(faults=always(Answer(429, headers, b'{"error":{"message":"wait"}}')))
    assert made.fails().retry_after == seconds
    assert made.governor.traffic().limited == 1


@given(st.text("0123456789.hmsuµn -"))
def test_any_text_is_a_duration_or_none(text: str) -> None:
    seconds = _duration(text)
    assert seconds is None or 0 <= seconds < math.inf


def test_a_limit_is_kept_to_after_it_was_met(openai: Openai) -> None:
    simulator, made = openai(profile=Profile(limits=(Limit(rate=50, burst=1),)))
    done, refused = 0, []
    for _ in range(20):
        try:
            made.embed()
            done += 1
        except RequestFailed as error:
            refused.append(error.outcome)
    assert done > 8
    assert set(refused) <= {Outcome.LIMITED}
    assert simulator.wrong["limit"] == made.governor.traffic().limited <= 10, "it says what is left, and is heeded"


def test_the_key_is_sent_and_shown_nowhere(openai: Openai, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    _, made = openai(EmbeddingsWorld(key=KEY), embed_api_key=SecretStr(KEY))
    made.embed()
    for status in (400, 401, 403, 500):
        for body in (
            {"error": {"message": f"no such key: {KEY}", "key": KEY}},
            {"error": {"message": "x" * 190 + KEY}},
        ):
            _, refused = openai(faults=always(answer(body, status)), embed_api_key=SecretStr(KEY))
            error = refused.fails()
            shown = f"{error} {error!r} {error.body!r} {vars(refused.embedder).keys()} {refused.embedder!r}"
            assert KEY not in shown
            assert KEY[:8] not in str(error)
            assert (error.body is None) == (status == 401)
    _, wrong = openai(EmbeddingsWorld(key=KEY), embed_api_key=SecretStr("sk-other"))
    assert "set EMBED_API_KEY" in str(wrong.fails())
    assert KEY not in caplog.text
    assert "sk-other" not in caplog.text


def test_an_address_that_is_none_names_the_setting() -> None:
    with pytest.raises(ConfigurationError, match=r"^EMBED_BASE_URL \(--embed-url\) is no http"):
        Made(embedder="openai", embed_base_url="api.example")


def test_nobody_listening_is_unavailable(openai: Openai) -> None:
    simulator, made = openai()
    simulator.outage(30)
    error = made.fails()
    assert (error.outcome, error.status) == (Outcome.UNAVAILABLE, None)


def test_a_stop_ends_a_request_at_once(openai: Openai) -> None:
    _, made = openai(faults=always(Answer(delay=30)))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(made.embed)
        while not made.governor.traffic().in_flight:
            pass
        made.stop.set()
        with pytest.raises(Stopped):
            asked.result(5)


def test_many_threads_share_one_embedder(openai: Openai) -> None:
    simulator, made = openai()
    batches = [[f"text {number} {n}" for n in range(5)] for number in range(40)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(made.embed, batches)) == [simulator.world.vectors(each) for each in batches]


# --- wordllama --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wordllama() -> WordLlama:
    return WordLlama(Governor(Stop(), parallel=4))


def test_wordllama_knows_what_is_alike(wordllama: WordLlama) -> None:
    texts = ["A cat sleeps on the sofa.", "A kitten naps on a couch.", "Interest rates rose sharply."]
    cat, kitten, rates = (np.frombuffer(each, "<f4") for each in wordllama.embed(texts))
    assert wordllama.name == "wordllama-256"
    assert cat.shape == (256,)
    assert np.linalg.norm(cat) == pytest.approx(1, abs=1e-5)
    assert cat @ kitten > 0.4 > cat @ rates + 0.2


def test_wordllama_is_what_the_package_itself_makes_of_a_text(wordllama: WordLlama) -> None:
    import wordllama as package

    theirs = package.WordLlama.load(cache_dir=Path(package.__file__).parent, disable_download=True)
    texts = ["short", "a much longer text about lanterns, harbours and the sea", "ünïcödé 漢字 🙂"]
    ours = np.frombuffer(b"".join(wordllama.embed(texts)), "<f4").reshape(3, 256)
    np.testing.assert_allclose(ours, theirs.embed(texts, norm=True), atol=1e-6)


def test_a_text_has_the_same_vector_whatever_it_is_embedded_beside(wordllama: WordLlama) -> None:
    (alone,) = wordllama.embed(["three lanterns"])
    assert wordllama.embed(["three lanterns", "word " * 3000])[0] == alone
    with ThreadPoolExecutor(4) as pool:
        for vectors in pool.map(wordllama.embed, [["three lanterns", f"text {n}"] for n in range(50)]):
            assert vectors[0] == alone


@pytest.mark.parametrize("blank", ["", " ", "\n\t\u00a0"])
def test_a_blank_text_has_no_vector(wordllama: WordLlama, blank: str) -> None:
    with pytest.raises(RequestFailed, match="without any word") as error:
        wordllama.embed(["fine", blank])
    assert error.value.outcome is Outcome.MALFORMED
    assert error.value.lasting


def test_wordllama_is_the_default_leaves_the_log_alone_and_counts_its_calls() -> None:
    code = """
import logging, sys
def heard(event, arguments):
    assert not event.startswith("socket."), event
sys.addaudithook(heard)
from fetcher.embedders import make
from fetcher.governor import Governor
from fetcher.settings import Settings, load
from fetcher.stop import Stop
from fetcher.texts.settings import TextSettings
stop = Stop()
governor = Governor(stop, parallel=1)
made = make(load(TextSettings, {}, None), load(Settings, {}, None), governor, stop)
assert len(made.embed(["a text"])[0]) == 1024
assert not logging.getLogger().handlers
assert logging.getLogger().level == logging.WARNING
print(made.name, governor.traffic().outcomes['ok'])
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("wordllama-256 1\n", "")


def test_without_wordllama_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wordllama", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'fetcher\[embed\]'"):
        Made()


# --- a function -------------------------------------------------------------------------------------


def lengths(texts: Sequence[str]) -> Any:
    return [[len(text), 1.0] for text in texts]


VECTORS = [struct.pack("<2f", len(text), 1) for text in TEXTS]


@pytest.mark.parametrize(
    "function",
    [
        lengths,
        lambda texts: np.array(lengths(texts)),
        lambda texts: np.array(lengths(texts), dtype=np.int64),
        lambda texts: [np.array(each, dtype=">f8") for each in lengths(texts)],
        lambda texts: (tuple(each) for each in lengths(texts)),
        lambda texts, more=1: lengths(texts),
    ],
)
def test_a_function_may_give_lists_or_arrays(function: Callable[..., Any]) -> None:
    made = Made(embedder=function)
    assert made.embed() == VECTORS
    assert made.governor.traffic().outcomes == {"ok": 1}
    made.embedder.close()


def test_a_function_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_vectors.py").write_text("def count(texts):\n    return [[len(text), 1] for text in texts]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    made = Made(embedder="my_vectors:count")
    assert made.embed() == VECTORS
    assert made.embedder.name == "my_vectors:count"
    assert Made(embedder=lengths).embedder.name == f"{__name__}:lengths"


def _cancelled(texts: Sequence[str]) -> Any:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda texts: lengths(texts)[1:], "2 vectors for 3 texts"),
        (lambda texts: [[1], [1], [1, 2]], "1 and 2 dimensions"),
        (lambda texts: [[], [], []], "0 bytes"),
        (lambda texts: [[1, math.nan]] * 3, "infinite or none"),
        (lambda texts: [[1, 2], [0, 0], [1, 2]], "a vector of zeros"),
        (lambda texts: np.zeros(3), "an array of 1 dimensions"),
        (lambda texts: [np.ones((1, 2))] * 3, "a vector of 2 dimensions"),
        (lambda texts: ["abcd"] * 3, "no list of numbers but str"),
        (lambda texts: [["a"]] * 3, "no list of numbers"),
        (lambda texts: [b"abcd"] * 3, "no list of numbers but bytes"),
        (lambda texts: [1, 2, 3], "no list of numbers"),
        (lambda texts: None, "NoneType instead of"),
        (lambda texts: np.array(["a", "b", "c"]), "failed: ValueError: could not convert"),
        (lambda texts: 1 / 0, "failed: ZeroDivisionError: division by zero"),
        (lambda texts: sys.exit("two\nlines"), "failed: SystemExit: two lines"),
        (_cancelled, "failed: CancelledError"),
    ],
)
def test_what_a_function_does_wrong_is_one_line(function: Callable[..., Any], said: str) -> None:
    error = Made(embedder=function).fails()
    assert error.outcome is Outcome.MALFORMED
    assert said in str(error)
    assert str(error).startswith(f"{__name__}:")


def test_a_function_may_say_itself_what_went_wrong() -> None:
    def limited(texts: Sequence[str]) -> Any:
        raise RequestFailed(Outcome.LIMITED, "not now", retry_after=1.5)

    made = Made(embedder=limited)
    error = made.fails()
    assert (error.outcome, error.retry_after) == (Outcome.LIMITED, 1.5)
    assert made.governor.traffic().limited == 1


def test_a_call_that_ends_in_a_stop_leaves_its_place_to_others() -> None:
    def stopped(texts: Sequence[str]) -> Any:
        raise Stopped("now")

    made = Made(embedder=stopped)
    for _ in range(2):
        with pytest.raises(Stopped):
            made.embed()
    assert made.governor.traffic().in_flight == 0
    assert not made.governor.traffic().outcomes


def test_a_function_keeps_to_one_dimension() -> None:
    sizes = iter([2, 3])
    made = Made(embedder=lambda texts: np.ones((len(texts), next(sizes))))
    made.embed()
    assert "2 and 3 dimensions" in str(made.fails())


def test_what_is_no_such_function_names_the_setting() -> None:
    async def later(texts: Any) -> Any: ...

    def nothing() -> Any: ...

    for function, said in ((later, "async"), (nothing, "cannot be called"), ("nowhere", "module:function")):
        with pytest.raises(ConfigurationError, match=rf"^EMBEDDER \(--embedder\): .*{said}"):
            Made(embedder=function)


# --- vectors ----------------------------------------------------------------------------------------


@given(st.lists(st.floats(width=32), max_size=40))
def test_finite_is_what_every_number_is(numbers: list[float]) -> None:
    assert are_finite(struct.pack(f"<{len(numbers)}f", *numbers)) == all(map(math.isfinite, numbers))


def test_the_largest_numbers_are_finite() -> None:
    most = struct.pack("<f", 3.4028234663852886e38)
    assert are_finite(most * 100_000)
    assert not are_finite(most * 1000 + struct.pack("<f", -math.inf) + most)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_a_packed_vector_holds_its_numbers(numbers: list[float]) -> None:
    for given_ in (numbers, np.array(numbers), tuple(numbers)):
        assert struct.unpack(f"<{len(numbers)}f", packed(given_)) == tuple(numbers)


def test_no_vectors_for_no_texts_is_right() -> None:
    assert checked([], 0) == []
    with pytest.raises(Unusable, match="0 vectors for 1 texts"):
        checked([], 1)
