"""The simulated embeddings API speaks OpenAI's language, and what shares words is near each other."""

from __future__ import annotations

import base64
import json
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import requests
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from fetcher.cli import cli
from fetcher.simulator import PROFILES, EmbeddingsWorld, Limit, Outage, Profile, Share, Simulator, Window
from fetcher.simulator.embeddings.world import _sums
from tests.helpers import ROOT

MODEL = "text-embedding-3-small"

Ask = Callable[..., requests.Response]


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator[EmbeddingsWorld]]:
    with Simulator(EmbeddingsWorld(max_batch=4, max_tokens=100)) as running:
        yield running


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    with requests.Session() as session:
        session.trust_env = False

        def send(simulator: Simulator[Any], input: Any, headers: Any = None, **more: Any) -> requests.Response:
            body = {"model": MODEL, "input": input, **more}
            return session.post(f"{simulator.url}/embeddings", json=body, headers=headers, timeout=10)

        yield send


def vector(world: EmbeddingsWorld, text: str) -> np.ndarray[Any, Any]:
    return np.frombuffer(world.vectors([text])[0], "<f4")


# --- vectors ----------------------------------------------------------------------------------------


def test_the_same_text_and_seed_give_the_same_vector_of_length_1() -> None:
    one, same, other = EmbeddingsWorld(), EmbeddingsWorld(), EmbeddingsWorld(seed=1)
    text = "The harbour at night, 3 lanterns."
    assert one.vectors(["another", text])[1] == same.vectors([text])[0] != other.vectors([text])[0]
    assert np.linalg.norm(vector(one, text)) == pytest.approx(1, abs=1e-6)
    assert vector(one, text).shape == (256,)


def test_texts_that_share_words_are_nearer_than_those_that_do_not() -> None:
    world = EmbeddingsWorld()
    question = vector(world, "harbour lanterns")
    near = vector(world, "At the harbour of the old town, lanterns burn all night long.")
    far = vector(world, "A compiler turns programs into what machines understand directly.")
    assert question @ near > 0.3 > abs(question @ far) + 0.1
    assert vector(world, "Harbour, LANTERNS!") @ question == pytest.approx(1, abs=1e-6)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=5), st.sampled_from([1, 3, 40]))
def test_without_numpy_the_vectors_are_the_same_to_the_last_bit(texts: list[str], kept: int) -> None:
    texts = [text.encode(errors="replace").decode() for text in texts]
    with_numpy, without = EmbeddingsWorld(dimension=40), EmbeddingsWorld(dimension=40)
    without._sums = _sums
    assert with_numpy._sums is not _sums
    vectors = with_numpy.vectors(texts, kept)
    assert vectors == without.vectors(texts, kept)
    for each in vectors:
        assert np.linalg.norm(np.frombuffer(each, "<f4")) == pytest.approx(1, abs=1e-5), "never a vector of zeros"


# --- the interface ----------------------------------------------------------------------------------


def test_floats_and_base64_are_the_same_numbers_in_the_order_of_the_texts(
    simulator: Simulator[EmbeddingsWorld], ask: Ask
) -> None:
    texts = ["one harbour", "two lanterns", "…"]
    floats = ask(simulator, texts).json()
    packed = ask(simulator, texts, encoding_format="base64").json()
    assert [each["index"] for each in floats["data"]] == [0, 1, 2]
    assert {each["object"] for each in floats["data"]} == {"embedding"}
    assert floats["object"] == "list"
    assert floats["model"] == MODEL
    assert floats["usage"] == packed["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    unpacked = [base64.b64decode(each["embedding"]) for each in packed["data"]]
    assert [struct.pack("<256f", *each["embedding"]) for each in floats["data"]] == unpacked
    assert unpacked == simulator.world.vectors(texts)


def test_one_text_may_come_without_a_list(simulator: Simulator[EmbeddingsWorld], ask: Ask) -> None:
    assert ask(simulator, "a text").json()["data"] == ask(simulator, ["a text"]).json()["data"]


def test_fewer_dimensions_are_the_first_ones_at_length_1(simulator: Simulator[EmbeddingsWorld], ask: Ask) -> None:
    whole, part = (ask(simulator, "a longer text here", dimensions=n).json()["data"][0]["embedding"] for n in (256, 50))
    assert len(part) == 50
    assert part == pytest.approx(np.array(whole[:50]) / np.linalg.norm(whole[:50]), abs=1e-6)
    assert ask(simulator, "a", dimensions=257).status_code == 400


def test_the_models_are_listed(simulator: Simulator[EmbeddingsWorld]) -> None:
    assert [each["id"] for each in requests.get(f"{simulator.url}/models", timeout=10).json()["data"]] == [MODEL]


@pytest.mark.parametrize(
    ("input", "more", "status", "message"),
    [
        (["a"] * 5, {}, 400, "at most 4 texts, not 5"),
        (["a", "b" * 401], {}, 400, r"'input\[1\]': maximum context length is 100 tokens, and this text has 101"),
        (["a", "ä" * 201], {}, 400, "this text has 101"),
        (["an unembeddable text"], {}, 400, "cannot be embedded"),
        (["a", ""], {}, 400, "none of them empty"),
        ([], {}, 400, "none of them empty"),
        ([1], {}, 400, "a list of texts"),
        ("a", {"model": "other"}, 404, "`other` does not exist"),
        ("a", {"encoding_format": "hex"}, 400, "float or base64"),
    ],
)
def test_what_cannot_be_done_is_refused_in_openais_shape(
    simulator: Simulator[EmbeddingsWorld], ask: Ask, input: Any, more: Any, status: int, message: str
) -> None:
    answer = ask(simulator, input, **more)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert re.search(message, error["message"])
    assert (error["code"] == "model_not_found") == (status == 404)


def test_what_is_no_request_for_embeddings_is_refused(simulator: Simulator[EmbeddingsWorld]) -> None:
    assert requests.get(f"{simulator.url}/embeddings", timeout=10).status_code == 405
    assert requests.get(f"{simulator.url}/chat", timeout=10).json()["error"]["message"]
    broken = requests.post(f"{simulator.url}/embeddings", data=b"{", timeout=10)
    assert (broken.status_code, broken.json()["error"]["type"]) == (400, "invalid_request_error")


def test_without_the_key_nothing_is_answered(simulate: Callable[..., Simulator[Any]], ask: Ask) -> None:
    simulator = simulate(EmbeddingsWorld(key="hush"))
    for headers in (None, {"Authorization": "Bearer other"}):
        refused = ask(simulator, "a", headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    assert ask(simulator, "a", {"Authorization": "Bearer hush"}).status_code == 200


# --- what goes wrong --------------------------------------------------------------------------------


def test_a_limit_is_told_with_every_answer(simulate: Callable[..., Simulator[Any]], ask: Ask) -> None:
    simulator = simulate(EmbeddingsWorld(), profile=Profile(limits=(Limit(rate=0.1, burst=2),)))
    first, second, refused = (ask(simulator, "a") for _ in range(3))
    assert [each.status_code for each in (first, second, refused)] == [200, 200, 429]
    named = [each.headers["x-ratelimit-remaining-requests"] for each in (first, second, refused)]
    assert named == ["1", "0", "0"]
    assert {each.headers["x-ratelimit-limit-requests"] for each in (first, refused)} == {"2"}
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert refused.headers["Retry-After"] == "10"
    assert 8_000 < int(refused.headers["retry-after-ms"]) <= 10_000
    assert re.fullmatch(r"19(\.\d+)?s|20s", refused.headers["x-ratelimit-reset-requests"])
    assert simulator.wrong == {"limit": 1}


def test_a_window_is_told_too_and_a_retry_after_that_was_asked_for_stays(
    simulate: Callable[..., Simulator[Any]], ask: Ask
) -> None:
    window = Window(requests=2, seconds=100, block=200, retry_after="soon")
    simulator = simulate(EmbeddingsWorld(), profile=Profile(windows=(window,)))
    told = [ask(simulator, "a") for _ in range(3)]
    assert [each.headers["x-ratelimit-remaining-requests"] for each in told] == ["1", "0", "0"]
    assert told[2].headers["Retry-After"] == "soon"
    assert told[2].headers["x-ratelimit-reset-requests"].startswith("3m")


def test_what_befalls_a_request_depends_on_its_texts_and_the_attempt(
    simulate: Callable[..., Simulator[Any]], ask: Ask
) -> None:
    profile = Profile(seed=3, mishaps=(Share("503", 0.5),))
    seen = []
    for _ in range(2):
        simulator = simulate(EmbeddingsWorld(), profile=profile)
        seen.append([ask(simulator, f"text {n}").status_code for n in range(20)])
        assert [ask(simulator, f"text {n}").status_code for n in range(20)] == [200] * 20, "first attempts alone"
    assert seen[0] == seen[1]
    assert set(seen[0]) == {200, 503}


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_can_be_had(name: str, simulate: Callable[..., Simulator[Any]], ask: Ask) -> None:
    simulator = simulate(EmbeddingsWorld(), profile=PROFILES[name])
    assert any(ask(simulator, f"text {n}").status_code == 200 for n in range(3))


def test_an_outage_befalls_it_too(simulate: Callable[..., Simulator[Any]], ask: Ask) -> None:
    simulator = simulate(EmbeddingsWorld(), profile=Profile(outages=(Outage(0, 1000, "502"),)))
    assert ask(simulator, "a").status_code == 502


# --- the command ------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["embeddings"], ["--embeddings"]])
def test_the_command_serves_embeddings_as_its_options_say(words: list[str], ask: Ask) -> None:
    command = [sys.executable, "-u", "-m", "fetcher", "simulate", *words, "--port", "0", "--dimension", "8"]
    process = subprocess.Popen(
        [*command, "--max-batch", "2", "--key", "hush", "--bad-word", "ouch", "--max-tokens", "5"],
        env={"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        said = process.stdout.readline()
        url = re.fullmatch(r"Simulating embeddings at (\S+/v1) \(Ctrl-C ends it\)\n", said)
        assert url, said

        class At:
            url = re.findall(r"http\S+", said)[0]

        key = {"Authorization": "Bearer hush"}
        answers = [ask(At, input, key) for input in ("a", ["a"] * 3, "ouch", "a" * 21)]
        assert [each.status_code for each in answers] == [200, 400, 400, 400]
        assert len(json.loads(answers[0].content)["data"][0]["embedding"]) == 8
        assert ask(At, "a").status_code == 401
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("stac --embeddings", "--embeddings is not for stac"),
        ("rest --max-batch 3", "are for embeddings"),
        ("embeddings --items 7", "not for embeddings"),
        ("--embeddings --gone 0.5", "not for embeddings"),
        ("--embeddings --login", "not for embeddings"),
        ("--embeddings --collections 2", "are for stac"),
    ],
)
def test_options_of_others_are_refused(words: str, said: str) -> None:
    result = CliRunner().invoke(cli, ["simulate", *words.split()])
    assert result.exit_code == 2
    assert said in result.output
