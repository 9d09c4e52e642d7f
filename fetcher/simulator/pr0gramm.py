"""What pr0gramm's API answers, and which requests it does not even look at."""

from __future__ import annotations

import json
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

from fetcher.simulator.profile import Share
from fetcher.simulator.service import Asked
from fetcher.simulator.wire import Body, Refused, Request, parameters_of
from fetcher.simulator.world import ALL_FLAGS, SFW, World

PREFIX = "/api"
TAGS_PER_PAGE = 1000
"""Tags in one answer of /tags/latest; the real number is not known."""

_BLOCKED = (
    b"<html><head><title>Attention Required! | Cloudflare</title></head>"
    b"<body>Sorry, you have been blocked (cloudflare)</body></html>"
)
_NO_PAGE = b"<html><head><title>404 Not Found</title></head><body>404 Not Found</body></html>"
# Parameters of the real listing that change what it lists: to ignore them would be a wrong answer.
_NOT_SIMULATED = frozenset({"tags", "user", "collection", "self", "following", "show_junk"})
# "nsfpRequired" is our choice after the pattern of the others; no client names it.
_REQUIRED = {1: "sfwRequired", 2: "nsfwRequired", 4: "nsflRequired", 8: "nsfpRequired", 16: "polRequired"}


class Pr0grammApi:
    """Answers from a World as pr0gramm does."""

    prefix = PREFIX
    takes_bodies = False
    mishaps: tuple[Share, ...] = ()

    def __init__(self, world: World) -> None:
        self.world = world
        self.seed = world.seed
        self._routes: dict[str, tuple[str, str, Callable[[dict[str, str], int, bool, int], str]]] = {
            f"{PREFIX}/items/info": ("info", "itemId", self._info),
            f"{PREFIX}/items/get": ("list", "", self._list),
            f"{PREFIX}/tags/latest": ("tags", "id", self._tags),
            f"{PREFIX}/user/loggedin": ("loggedin", "", self._logged_in),
        }

    def read(self, request: Request) -> Asked:
        """What a request is about. Raises Refused when it is about nothing."""
        if request.method != "GET":
            # The body, if there is one, is not read: what follows could not be told from a request.
            raise Refused(405, b"", headers={"Allow": "GET"}, final=True)
        if request.headers.has_body:
            raise Refused(400, _error(400, "badRequest", "A GET has no body"), final=True)
        route = self._routes.get(request.path)
        kind = route[0] if route else "other"
        if not request.headers.named:
            raise Refused(403, _BLOCKED, kind=kind)
        if route is None:
            raise Refused(404, _NO_PAGE, kind=kind)
        kind, key_name, answer = route
        parameters = parameters_of(request.query)
        try:
            key = _key(parameters, key_name)
        except Refused as refused:
            refused.kind = kind
            raise

        def answered(logged_in: bool, shift: int) -> Body:
            text = answer(parameters, key, logged_in, shift)
            return Body(f'{text},"rt":{1 + key % 9},"qc":2}}'.encode("ascii"))

        return Asked(kind, key, answered, request.headers.login if self.world.login else None)

    @staticmethod
    def malformed() -> bytes:
        """The body of the answer to what is no request."""
        return _error(400, "badRequest", "Malformed request")

    def _info(self, parameters: dict[str, str], item: int, logged_in: bool, _: int) -> str:
        if "itemId" not in parameters:
            raise _refused(400, "badRequest", "itemId is missing")
        if "flags" in parameters:
            self._flags(parameters, logged_in)
        flag = self.world.flag(item)
        if not flag:
            raise _refused(404, "notFound", "Not found")
        if flag != SFW and not logged_in:
            raise _refused(403, "forbidden", "Not logged in")
        return f'{{{self.world.info_json(item)},"ts":{int(time.time())},"cache":"item:{item}"'

    def _list(self, parameters: dict[str, str], key: int, logged_in: bool, shift: int) -> str:
        if not _NOT_SIMULATED.isdisjoint(parameters):
            raise _refused(400, "notSimulated", "The simulator has no search, users, collections or junk")
        if len({"older", "newer", "id"} & parameters.keys()) > 1:
            raise _refused(400, "badRequest", "One of older, newer and id")
        flags = self._flags(parameters, logged_in)
        promoted = _number(parameters, "promoted", 0)
        if promoted not in (0, 1):
            raise _refused(400, "badRequest", "promoted is 0 or 1")
        world = self.world
        cache = f"stream:{'top' if promoted else 'new'}:{flags}"
        if shift and "id" not in parameters:
            parameters, key = self._shifted(parameters, key, shift, world.ids(flags, promoted=bool(promoted)))
        if "older" in parameters:
            listing = world.page(flags, promoted=bool(promoted), older=key)
            cache += f":o{key}"
        elif "newer" in parameters:
            listing = world.page(flags, promoted=bool(promoted), newer=key)
            cache += f":n{key}"
        elif "id" in parameters:
            listing = world.page(flags, promoted=bool(promoted), around=key)
            cache += f":id{key}"
        else:
            listing = world.page(flags, promoted=bool(promoted))
        now = int(time.time())
        if listing is None:
            flag = world.flag(key)
            error = _REQUIRED[flag] if flag and not flag & flags else "notFound"
            return f'{{"atEnd":false,"atStart":false,"error":"{error}","items":null,"ts":{now},"cache":null'
        start, end = ("true" if touched else "false" for touched in (listing.at_start, listing.at_end))
        items = ",".join(map(world.item_json, listing.ids))
        return f'{{"atEnd":{end},"atStart":{start},"error":null,"items":[{items}],"ts":{now},"cache":"{cache}"'

    @staticmethod
    def _shifted(parameters: dict[str, str], key: int, shift: int, keys: Sequence[int]) -> tuple[dict[str, str], int]:
        """The parameters and key of the same listing, begun `shift` items nearer to where its walk began."""
        if "newer" in parameters:
            at = min(len(keys), bisect_right(keys, key) - shift)
            return parameters, keys[at - 1] if at > 0 else 0
        at = (bisect_left(keys, key) if "older" in parameters else len(keys)) + shift
        if at >= len(keys):
            return {name: value for name, value in parameters.items() if name != "older"}, 0
        return {**parameters, "older": ""}, keys[max(0, at)]

    def _tags(self, _: dict[str, str], above: int, logged_in: bool, __: int) -> str:
        tags = self.world.latest_tags_json(above, TAGS_PER_PAGE, ALL_FLAGS if logged_in else SFW)
        return f'{{"tags":[{tags}],"ts":{int(time.time())},"cache":null'

    def _logged_in(self, _: dict[str, str], __: int, logged_in: bool, ___: int) -> str:
        return f'{{"loggedIn":{"true" if logged_in else "false"},"ts":{int(time.time())},"cache":null'

    @staticmethod
    def _flags(parameters: dict[str, str], logged_in: bool) -> int:
        """The flags asked for, 1 if none are: refused when there is no such flag or a login is missing."""
        flags = _number(parameters, "flags", SFW)
        if not 0 < flags <= ALL_FLAGS:
            raise _refused(400, "badRequest", "No such flags")
        if flags != SFW and not logged_in:
            raise _refused(403, "forbidden", "Not logged in")
        return flags


def _key(parameters: dict[str, str], name: str) -> int:
    """What a request is about: its item, its place in the listing, or 0."""
    if name:
        return _number(parameters, name, 0)
    for name in ("older", "newer", "id"):
        if name in parameters:
            return _number(parameters, name, 0)
    return 0


def _number(parameters: dict[str, str], name: str, default: int) -> int:
    text = parameters.get(name)
    if text is None:
        return default
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise _refused(400, "badRequest", f"{name} is not a number")
    return int(text)


def _error(status: int, error: str, msg: str) -> bytes:
    """An error in JSON with the shape of the API."""
    return json.dumps({"error": error, "code": status, "msg": msg}).encode()


def _refused(status: int, error: str, msg: str) -> Refused:
    return Refused(status, _error(status, error, msg))
