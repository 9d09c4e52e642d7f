"""What a simulated embeddings API answers: `POST /v1/embeddings` and `GET /v1/models`, as OpenAI's."""

from __future__ import annotations

import json
import struct
from binascii import b2a_base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import Any
from zlib import crc32

import msgspec

from fetcher.simulator.embeddings.world import EmbeddingsWorld
from fetcher.simulator.faults import Answer
from fetcher.simulator.limiter import Allowance
from fetcher.simulator.profile import Share
from fetcher.simulator.service import Asked
from fetcher.simulator.wire import Body, Refused, Request

PREFIX = "/v1"


class EmbeddingsApi:
    """Answers from an EmbeddingsWorld."""

    prefix = PREFIX
    takes_bodies = True
    mishaps: tuple[Share, ...] = ()

    def __init__(self, world: EmbeddingsWorld) -> None:
        self.world = world
        self.seed = world.seed

    def read(self, request: Request) -> Asked:
        """What a request is about. Raises Refused when it is about nothing, or without the key."""
        kind, method = {"/embeddings": ("embeddings", "POST"), "/models": ("models", "GET")}.get(
            request.path.removeprefix(PREFIX) if request.path.startswith(PREFIX) else "", ("other", "")
        )
        if not method:
            raise Refused(404, error(f"Unknown request URL: {request.method} {request.path}"), kind=kind)
        if request.method != method:
            raise Refused(405, error(f"Not allowed to {request.method} on {request.path}"), kind=kind)
        if self.world.key is not None and request.headers.fields.get("authorization") != f"Bearer {self.world.key}":
            raise Refused(401, error("Incorrect API key provided", code="invalid_api_key"), kind=kind)
        answer: Callable[[], Body] = self._models
        if kind == "embeddings":

            def answer() -> Body:
                return self._embeddings(request.body)

        return Asked(kind, crc32(request.body), lambda _logged_in, _shift: answer())

    @staticmethod
    def malformed() -> bytes:
        """The body of the answer to what is no request."""
        return error("malformed request")

    def limited(self, refusal: Answer, allowance: Allowance) -> Answer:
        """A refusal for asking too much in this API's words; a Retry-After that it has already stays."""
        headers = {"Retry-After": str(ceil(allowance.wait)), "retry-after-ms": str(ceil(allowance.wait * 1000))}
        if refusal.headers:
            headers = dict(refusal.headers)
        body = error("Rate limit reached for requests", type="requests", code="rate_limit_exceeded")
        return replace(refusal, headers={**headers, **self.allowed(allowance)}, body=body)

    @staticmethod
    def allowed(allowance: Allowance) -> Mapping[str, str]:
        """The headers that say how much may still be asked."""
        return {
            "x-ratelimit-limit-requests": str(allowance.most),
            "x-ratelimit-remaining-requests": str(allowance.left),
            "x-ratelimit-reset-requests": _go_duration(allowance.reset),
        }

    def _models(self) -> Body:
        model = {"id": self.world.model, "object": "model", "created": 1_700_000_000, "owned_by": "fetcher"}
        return Body(json.dumps({"object": "list", "data": [model]}).encode())

    def _embeddings(self, body: bytes) -> Body:
        world = self.world
        asked = _decoded(body)
        if asked.get("model") != world.model:
            message = f"The model `{asked.get('model')!s:.60}` does not exist or you do not have access to it."
            raise Refused(404, error(message, code="model_not_found"))
        texts = self._texts(asked.get("input"))
        dimensions = asked.get("dimensions", world.dimension)
        if type(dimensions) is not int or not 1 <= dimensions <= world.dimension:
            raise _refused(f"dimensions must be from 1 to {world.dimension}", "dimensions")
        encoding = asked.get("encoding_format", "float")
        if encoding not in ("float", "base64"):
            raise _refused("encoding_format must be float or base64", "encoding_format")
        vectors = world.vectors(texts, dimensions)
        if encoding == "base64":
            shown = [b'"%b"' % b2a_base64(each, newline=False) for each in vectors]
        else:
            shown = [msgspec.json.encode(struct.unpack(f"<{dimensions}f", each)) for each in vectors]
        data = b",".join(
            [b'{"object":"embedding","index":%d,"embedding":%b}' % numbered for numbered in enumerate(shown)]
        )
        tokens = sum(map(world.tokens, texts))
        return Body(
            b'{"object":"list","data":[%b],"model":%b,"usage":{"prompt_tokens":%d,"total_tokens":%d}}'
            % (data, json.dumps(world.model).encode(), tokens, tokens)
        )

    def _texts(self, given: Any) -> Sequence[str]:
        world = self.world
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
            raise _refused("'$.input' is invalid: a text or a list of texts, none of them empty", "input")
        if len(texts) > world.max_batch:
            raise _refused(f"'$.input' is too long: at most {world.max_batch} texts, not {len(texts)}", "input")
        for number, text in enumerate(texts):
            if len(text) * 4 > world.max_tokens * 4 and world.tokens(text) > world.max_tokens:
                raise _refused(
                    f"Invalid 'input[{number}]': maximum context length is {world.max_tokens} tokens,"
                    f" and this text has {world.tokens(text)}",
                    "input",
                )
            if world.is_bad(text):
                raise _refused(f"Invalid 'input[{number}]': this text cannot be embedded", "input")
        return texts


def error(
    message: str, *, type: str = "invalid_request_error", param: str | None = None, code: str | None = None
) -> bytes:
    """The body of an error in the shape of OpenAI's."""
    return json.dumps({"error": {"message": message, "type": type, "param": param, "code": code}}).encode()


def _refused(message: str, param: str) -> Refused:
    return Refused(400, error(message, param=param))


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        data = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise Refused(400, error("We could not parse the JSON body of your request."))
    return data


def _go_duration(seconds: float) -> str:
    """Such as 20ms, 1.5s or 6m0s."""
    if seconds < 1:
        return f"{ceil(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    return f"{int(minutes)}m{rest:g}s" if minutes else f"{rest:g}s"
