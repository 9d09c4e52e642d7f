"""Filters in CQL2 as text, read into CQL2 as JSON."""

from __future__ import annotations

import re
from typing import Any

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w:.])
    |'(?P<text>(?:[^']|'')*)'
    |"(?P<quoted>[^"]+)"
    |(?P<word>[A-Za-z_:][\w:.]*)
    |(?P<sign><>|<=|>=|[=<>(),]))""",
    re.VERBOSE | re.ASCII,
)
_COMPARISONS = frozenset({"=", "<>", "<", "<=", ">", ">="})
_RESERVED = frozenset({"and", "or", "not", "in", "between", "like", "is", "null", "true", "false"})
_LONGEST = 20_000


def read(text: str) -> Any:
    """The JSON of a filter. Raises ValueError for what is none."""
    if len(text) > _LONGEST:
        raise ValueError("the filter is too long")
    reader = _Reader(text)
    found = reader.expression()
    if reader.kind:
        raise ValueError(f"the filter goes on after its end: {reader.value!r}")
    return found


class _Reader:
    """Reads by recursive descent, one token ahead."""

    def __init__(self, text: str) -> None:
        self._text = text.rstrip()
        self._at = 0
        self._depth = 0
        self.kind: str | None = None
        self.value = ""
        self._step()

    def expression(self) -> Any:
        return self._chain("or", lambda: self._chain("and", self._negation))

    def _chain(self, word: str, part: Any) -> Any:
        args = [part()]
        while self._takes(word):
            args.append(part())
        return args[0] if len(args) == 1 else {"op": word, "args": args}

    def _negation(self) -> Any:
        self._depth += 1
        if self._depth > 50:
            raise ValueError("the filter is nested too deeply")
        try:
            return {"op": "not", "args": [self._negation()]} if self._takes("not") else self._predicate()
        finally:
            self._depth -= 1

    def _predicate(self) -> Any:
        if self._takes_sign("("):
            inner = self.expression()
            self._wants_sign(")")
            return inner
        left = self._operand()
        if isinstance(left, bool) and not (self.kind == "sign" and self.value in _COMPARISONS):
            return left
        if self.kind == "sign" and self.value in _COMPARISONS:
            op = self._step()
            return {"op": op, "args": [left, self._operand()]}
        if self._takes("is"):
            positive = not self._takes("not")
            self._wants("null")
            return _negated({"op": "isNull", "args": [left]}, positive)
        positive = not self._takes("not")
        if self._takes("between"):
            low = self._operand()
            self._wants("and")
            return _negated({"op": "between", "args": [left, low, self._operand()]}, positive)
        if self._takes("like"):
            return _negated({"op": "like", "args": [left, self._operand()]}, positive)
        self._wants("in")
        self._wants_sign("(")
        choices = [self._operand()]
        while self._takes_sign(","):
            choices.append(self._operand())
        self._wants_sign(")")
        return _negated({"op": "in", "args": [left, choices]}, positive)

    def _operand(self) -> Any:
        kind, value = self.kind, self.value
        if kind == "number":
            self._step()
            return float(value) if re.search(r"[.eE]", value) else int(value)
        if kind == "text":
            self._step()
            return value.replace("''", "'")
        if kind == "quoted":
            self._step()
            return {"property": value}
        if kind == "word":
            word = value.lower()
            if word in ("true", "false"):
                self._step()
                return word == "true"
            if word not in _RESERVED:
                self._step()
                if word in ("timestamp", "date") and self._takes_sign("("):
                    moment = self.value
                    if self.kind != "text":
                        raise ValueError(f"{value} needs a text")
                    self._step()
                    self._wants_sign(")")
                    return {word: moment}
                return {"property": value}
        raise ValueError(f"the filter breaks off before {value!r}" if kind else "the filter breaks off")

    def _step(self) -> str:
        """Go on to the next token; returns the present one."""
        passed = self.value
        if self._at >= len(self._text):
            self.kind, self.value = None, ""
            return passed
        found = _TOKEN.match(self._text, self._at)
        if not found:
            raise ValueError(f"the filter cannot be read from {self._text[self._at :][:20]!r}")
        self._at = found.end()
        self.kind = found.lastgroup
        self.value = found[self.kind] if self.kind else ""
        return passed

    def _takes(self, word: str) -> bool:
        if self.kind == "word" and self.value.lower() == word:
            self._step()
            return True
        return False

    def _takes_sign(self, sign: str) -> bool:
        if self.kind == "sign" and self.value == sign:
            self._step()
            return True
        return False

    def _wants(self, word: str) -> None:
        if not self._takes(word):
            raise ValueError(f"the filter lacks {word.upper()} before {self.value!r}")

    def _wants_sign(self, sign: str) -> None:
        if not self._takes_sign(sign):
            raise ValueError(f"the filter lacks {sign} before {self.value!r}")


def _negated(expression: Any, positive: bool) -> Any:
    return expression if positive else {"op": "not", "args": [expression]}
