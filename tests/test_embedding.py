"""A batch comes to a vector or a failure for each text, by few requests, whatever the embedder refuses."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fetcher.embedders import Embedder, make
from fetcher.errors import RequestFailed, Stopped
from fetcher.governor import Governor
from fetcher.model import Outcome
from fetcher.settings import Settings, load
from fetcher.simulator import Answer, EmbeddingsWorld, Simulator
from fetcher.stop import Stop
from fetcher.texts.chunk import text_hash
from fetcher.texts.embedding import Accepted, embed_batch
from fetcher.texts.settings import TextSettings
from tests.helpers import answer

BATCH = 64

Embedded = Mapping[str, bytes | RequestFailed]
Openai = Callable[..., tuple[Simulator[EmbeddingsWorld], Embedder]]


@pytest.fixture
def openai(no_threads_left: None) -> Iterator[Openai]:
    """A simulated API and the embedder that asks it."""
    running: list[tuple[Simulator[EmbeddingsWorld], Embedder]] = []

    def start(
        world: EmbeddingsWorld | None = None, faults: Any = None, **settings: Any
    ) -> tuple[Simulator[EmbeddingsWorld], Embedder]:
        simulator = Simulator(world or EmbeddingsWorld(), faults=faults)
        stop = Stop()
        given = {"embedder": "openai", "embed_base_url": simulator.url, **settings}
        governor = Governor(stop, parallel=8, max_pause=0.05)
        running.append((simulator, make(load(TextSettings, given, None), load(Settings, {}, None), governor, stop)))
        return running[-1]

    yield start
    for simulator, embedder in running:
        embedder.close()
        simulator.close()


def texts_of(count: int = BATCH, **bad: str) -> dict[str, str]:
    """Texts by their hashes; `t3="…"` puts another in the place of number 3."""
    texts = [bad.get(f"t{number}", f"text number {number}") for number in range(count)]
    return {text_hash(text): text for text in texts}


def embed(
    embedder: Embedder, texts: Mapping[str, str], *, most: int = BATCH, most_bytes: int = 10**6, **more: Any
) -> Embedded:
    found = embed_batch(embedder, texts, most=most, most_bytes=most_bytes, **more)
    assert set(found) == set(texts), "every text has a result"
    return found


def failures(found: Embedded) -> dict[str, RequestFailed]:
    return {key: each for key, each in found.items() if isinstance(each, RequestFailed)}


def assert_embedded(found: Embedded, texts: Mapping[str, str], world: EmbeddingsWorld) -> None:
    """All that is no failure is the vector of its text."""
    good = [key for key in texts if isinstance(found[key], bytes)]
    assert [found[key] for key in good] == world.vectors([texts[key] for key in good])


# --- an API -----------------------------------------------------------------------------------------


def test_a_batch_is_one_request(openai: Openai) -> None:
    simulator, embedder = openai()
    texts = texts_of()
    found = embed(embedder, texts)
    assert not failures(found)
    assert_embedded(found, texts, simulator.world)
    assert simulator.requests == {"embeddings": 1}


def test_a_bad_text_is_found_by_halving_and_the_others_are_kept(openai: Openai) -> None:
    simulator, embedder = openai()
    texts = texts_of(t41="an unembeddable text")
    found = embed(embedder, texts)
    ((key, error),) = failures(found).items()
    assert texts[key] == "an unembeddable text"
    assert (error.outcome, error.status, error.lasting) == (Outcome.MALFORMED, 400, True)
    assert "cannot be embedded" in str(error)
    assert json.loads(error.body or b"")["error"]["param"] == "input"
    assert_embedded(found, texts, simulator.world)
    assert simulator.requests["embeddings"] <= 1 + 2 * 6


def test_each_of_several_bad_texts_has_a_failure_of_its_own(openai: Openai) -> None:
    simulator, embedder = openai(EmbeddingsWorld(max_tokens=20))
    texts = texts_of(t0="unembeddable", t1="long " * 40, t63="also unembeddable")
    accepted = Accepted()
    accepted.took(BATCH)
    found = embed(embedder, texts, accepted=accepted)
    errors = failures(found)
    assert sorted(texts[key] for key in errors) == ["also unembeddable", "long " * 40, "unembeddable"]
    assert all(error.lasting for error in errors.values())
    assert len({id(error) for error in errors.values()}) == 3
    assert_embedded(found, texts, simulator.world)


def test_how_many_texts_an_api_takes_is_learned_once(openai: Openai) -> None:
    simulator, embedder = openai(EmbeddingsWorld(max_batch=10))
    accepted = Accepted()
    texts = texts_of()
    assert_embedded(embed(embedder, texts, accepted=accepted), texts, simulator.world)
    assert accepted.most(BATCH) == 8
    assert simulator.requests["embeddings"] == 3 + 8, "64, 32 and 16 were refused"
    more = {text_hash(text): text for text in (f"other {n}" for n in range(BATCH))}
    assert not failures(embed(embedder, more, accepted=accepted))
    assert simulator.requests["embeddings"] == 3 + 8 + 8


def test_a_bad_text_is_no_reason_to_send_fewer(openai: Openai) -> None:
    _, embedder = openai()
    accepted = Accepted()
    embed(embedder, texts_of(t7="unembeddable"), accepted=accepted)
    assert accepted.most(BATCH) == BATCH


def test_what_is_refused_though_as_many_went_well_before_is_no_reason_to_send_fewer(openai: Openai) -> None:
    world = EmbeddingsWorld()
    calls = iter(range(100))

    def second_only(_kind: str, _key: int, _attempt: int) -> Answer | None:
        return answer({"error": {"message": "too much at once"}}, 413) if next(calls) == 1 else None

    _, embedder = openai(world, faults=second_only)
    accepted = Accepted()
    embed(embedder, texts_of(), accepted=accepted)
    texts = {text_hash(text): text for text in (f"longer {n}" for n in range(BATCH))}
    assert not failures(embed(embedder, texts, accepted=accepted))
    assert accepted.most(BATCH) == BATCH


def test_threads_share_what_is_learned(openai: Openai) -> None:
    simulator, embedder = openai(EmbeddingsWorld(max_batch=10))
    accepted = Accepted()
    batches = [{text_hash(text): text for text in (f"{b} {n}" for n in range(BATCH))} for b in range(30)]
    with ThreadPoolExecutor(6) as pool:
        for texts, found in zip(
            batches, pool.map(lambda each: embed(embedder, each, accepted=accepted), batches), strict=True
        ):
            assert_embedded(found, texts, simulator.world)
            assert not failures(found)
    assert simulator.requests["embeddings"] <= 30 * 8 + 6 * 4


@pytest.mark.parametrize("status", [400, 422])
def test_when_everything_is_refused_it_is_one_error_after_a_few_requests(openai: Openai, status: int) -> None:
    requests = iter(range(10**6))

    def refuse(_kind: str, _key: int, _attempt: int) -> Answer:
        return answer({"error": {"message": f"no such thing (request {next(requests)})"}}, status)

    simulator, embedder = openai(faults=refuse)
    found = embed(embedder, texts_of())
    (error,) = {id(each): each for each in failures(found).values()}.values()
    assert len(failures(found)) == BATCH
    assert (error.outcome, error.status, error.lasting) == (Outcome.MALFORMED, status, False)
    assert "two texts, each asked for alone" in str(error)
    assert error.body
    assert simulator.requests["embeddings"] == 8, "64, 32, 16, 8, 4, 2, 1 and another one"


def test_a_wrong_model_costs_one_request(openai: Openai) -> None:
    simulator, embedder = openai(embed_model="other")
    found = embed(embedder, texts_of(), most=10)
    (error,) = {id(each): each for each in failures(found).values()}.values()
    assert (error.outcome, error.lasting) == (Outcome.DENIED, True)
    assert simulator.requests["embeddings"] == 1


def test_two_bad_texts_at_both_ends_are_not_taken_for_all(openai: Openai) -> None:
    simulator, embedder = openai()
    texts = texts_of(4, t0="unembeddable", t3="unembeddable too")
    for _ in range(40):
        # Which other text is asked for is drawn: sooner or later it is a good one.
        found = embed(embedder, texts)
        if len(failures(found)) == 2:
            break
    assert_embedded(found, texts, simulator.world)
    assert {texts[key] for key in failures(found)} == {"unembeddable", "unembeddable too"}
    assert all(error.lasting for error in failures(found).values())


def test_a_single_text_fails_for_good_only_by_an_api_that_is_known_to_work(openai: Openai) -> None:
    _, embedder = openai()
    texts = {"a": "unembeddable"}
    assert not failures(embed(embedder, texts))["a"].lasting
    accepted = Accepted()
    embed(embedder, texts_of(), accepted=accepted)
    assert failures(embed(embedder, texts, accepted=accepted))["a"].lasting


@pytest.mark.parametrize("status", [429, 503, 401])
def test_a_request_that_fails_shares_its_error_and_keeps_what_came_before(openai: Openai, status: int) -> None:
    calls = iter(range(100))

    def second_on(_kind: str, _key: int, _attempt: int) -> Answer | None:
        return answer({"error": "no"}, status) if next(calls) >= 1 else None

    simulator, embedder = openai(faults=second_on)
    texts = texts_of(60)
    found = embed(embedder, texts, most=20)
    assert list(failures(found)) == list(texts)[20:]
    assert_embedded(found, texts, simulator.world)
    second, third = list(texts)[20:40], list(texts)[40:]
    assert len({id(found[key]) for key in second}) == 1
    if status == 503:
        assert simulator.requests["embeddings"] == 3, "the next request may be answered"
        assert found[second[0]] is not found[third[0]]
    else:
        assert simulator.requests["embeddings"] == 2, "nothing more would be answered"
        assert found[second[0]] is found[third[0]]


def test_nobody_answering_ends_a_batch_at_once(openai: Openai) -> None:
    simulator, embedder = openai()
    simulator.outage(30)
    found = embed(embedder, texts_of(), most=1)
    (error,) = {id(each): each for each in failures(found).values()}.values()
    assert (error.outcome, error.status) == (Outcome.UNAVAILABLE, None)


def test_a_vector_that_is_none_is_its_texts_failure_alone(openai: Openai) -> None:
    texts = texts_of(8)
    (bad,) = EmbeddingsWorld().vectors([texts[list(texts)[5]]])

    def spoil(body: bytes) -> bytes:
        from base64 import b64encode

        return body.replace(b64encode(bad), b64encode(struct.pack("<256f", *[float("nan")] * 256)))

    simulator, embedder = openai(faults=lambda *_: Answer(edit=spoil))
    found = embed(embedder, texts)
    ((key, error),) = failures(found).items()
    assert key == list(texts)[5]
    assert (error.outcome, error.status, error.lasting) == (Outcome.MALFORMED, 200, False)
    assert_embedded(found, texts, simulator.world)


def test_an_api_that_begins_to_send_nonsense_is_not_asked_for_each_text(openai: Openai) -> None:
    calls = iter(range(1000))

    def nonsense(_kind: str, _key: int, _attempt: int) -> Answer | None:
        return answer({"data": "none"}) if next(calls) >= 1 else None

    simulator, embedder = openai(faults=nonsense)
    accepted = Accepted()
    embed(embedder, texts_of(), accepted=accepted)
    texts = {text_hash(text): text for text in (f"other {n}" for n in range(BATCH))}
    found = embed(embedder, texts, accepted=accepted)
    assert len(failures(found)) == BATCH
    assert simulator.requests["embeddings"] == 1 + 8
    assert accepted.most(BATCH) == BATCH


# --- any embedder -----------------------------------------------------------------------------------


class Picky:
    """Refuses more than `most` texts, and those in `bad`; its vector of a text is the text."""

    name = "picky"

    def __init__(self, most: int = 10**6, bad: Sequence[str] = (), lasting: bool = False) -> None:
        self.most = most
        self.bad = set(bad)
        self.lasting = lasting
        self.asked: list[list[str]] = []

    def embed(self, texts: Sequence[str]) -> list[bytes]:
        self.asked.append(list(texts))
        if len(texts) > self.most or self.bad.intersection(texts):
            raise RequestFailed(Outcome.MALFORMED, "refused", status=400, lasting=self.lasting)
        return [text.encode() for text in texts]

    def close(self) -> None: ...


@given(
    count=st.integers(0, 100),
    bad=st.sets(st.integers(0, 99), max_size=6),
    takes=st.integers(1, 120),
    most=st.integers(1, 120),
    most_bytes=st.integers(1, 300),
)
def test_every_good_text_has_its_vector_and_every_bad_one_a_failure(
    count: int, bad: set[int], takes: int, most: int, most_bytes: int
) -> None:
    texts = {str(number): f"{number} " + "é" * (number % 7) for number in range(count)}
    refused = [texts[str(number)] for number in bad if number < count]
    picky, accepted = Picky(takes, refused), Accepted()
    accepted.took(1)
    found = embed(picky, texts, most=most, most_bytes=most_bytes, accepted=accepted)
    assert {texts[key] for key in failures(found)} == set(refused)
    assert all(error.lasting for error in failures(found).values())
    assert all(found[key] == text.encode() for key, text in texts.items() if text not in refused)
    for asked in picky.asked:
        assert 0 < len(asked) <= most
        assert len(asked) == 1 or sum(len(text.encode()) for text in asked) <= most_bytes
    embedded = [
        text for asked in picky.asked if not picky.bad.intersection(asked) and len(asked) <= takes for text in asked
    ]
    assert len(embedded) == len(set(embedded)), "no text is embedded twice"
    # What is done at best, what is refused for its number (once, and in each later piece), and what halving costs.
    assert len(picky.asked) <= 2 * count + 1


@given(count=st.integers(2, 100), bad=st.sets(st.integers(0, 99)))
@example(count=2, bad={0})
@example(count=8, bad={0})
def test_nothing_is_lost_where_nothing_is_known_of_the_embedder(count: int, bad: set[int]) -> None:
    texts = {str(number): f"text {number}" for number in range(count)}
    refused = {texts[str(number)] for number in bad if number < count}
    picky = Picky(bad=list(refused))
    found = embed(picky, texts)
    failed = failures(found)
    alone = [asked[0] for asked in picky.asked if len(asked) == 1]
    assert len(alone) == len(set(alone)), "no text is asked for alone twice"
    embedded = [text for asked in picky.asked if not refused.intersection(asked) for text in asked]
    assert len(embedded) == len(set(embedded)), "no text is embedded twice"
    assert all(found[key] == texts[key].encode() for key in texts if key not in failed)
    assert refused <= {texts[key] for key in failed}
    for key, error in failed.items():
        assert texts[key] in refused or not error.lasting, "a good text is asked for again"


def test_a_text_that_is_longer_than_a_request_goes_alone() -> None:
    picky = Picky()
    embed(picky, {"a": "x", "b": "y" * 50, "c": "z", "d": "zz"}, most_bytes=10)
    assert [len(asked) for asked in picky.asked] == [1, 1, 2]


def test_a_text_that_its_embedder_knows_to_be_bad_fails_for_good_at_once() -> None:
    texts = {str(number): f"text {number}" for number in range(3)}
    found = embed(Picky(bad=["text 0", "text 2"], lasting=True), texts)
    assert set(failures(found)) == {"0", "2"}
    assert all(error.lasting for error in failures(found).values())


def test_two_texts_that_fail_each_for_a_reason_of_its_own_are_two_failures() -> None:
    class Choosy(Picky):
        def embed(self, texts: Sequence[str]) -> list[bytes]:
            self.asked.append(list(texts))
            raise RequestFailed(Outcome.MALFORMED, f"{texts[0]} is refused", status=400)

    choosy = Choosy()
    found = embed(choosy, {"a": "salt", "b": "pepper"})
    assert {key: str(error) for key, error in failures(found).items()} == {
        "a": "salt is refused",
        "b": "pepper is refused",
    }
    assert [len(asked) for asked in choosy.asked] == [2, 1, 1], "neither is asked for alone twice"


def test_a_stop_is_no_failure() -> None:
    class Stopping(Picky):
        def embed(self, texts: Sequence[str]) -> list[bytes]:
            raise Stopped("now")

    with pytest.raises(Stopped):
        embed_batch(Stopping(), {"a": "b"}, most=1, most_bytes=1)


def test_no_texts_are_no_request() -> None:
    picky = Picky()
    assert embed(picky, {}) == {}
    assert not picky.asked
