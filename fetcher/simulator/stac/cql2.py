"""Filters in CQL2 (as JSON) and in the older query language, made into functions that judge an item.

Judged is by three values, as CQL2 has it: a comparison with what is null or absent is neither true nor false.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from fetcher.simulator.stac import times
from fetcher.simulator.stac.items import MOMENTS, Facts

Verdict = bool | None
Judge = Callable[[Facts], Verdict]
_Value = Callable[[Facts], Any]

_DEEPEST = 50
_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_QUERY_COMPARISONS = {"eq": "=", "neq": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
_QUERY_TEXTS: Mapping[str, Callable[[str, str], bool]] = {
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "contains": operator.contains,
}


def judge_of(expression: Any, depth: int = 0) -> Judge:
    """The function that judges by a CQL2 expression. Raises ValueError for one that is wrong or too much for us."""
    if isinstance(expression, bool):
        return lambda _: expression
    if depth > _DEEPEST:
        raise ValueError("the filter is nested too deeply")
    if not isinstance(expression, dict) or not isinstance(expression.get("args"), list):
        raise ValueError(f"not a filter expression: {_short(expression)}")
    op, args = str(expression.get("op")).lower(), expression["args"]
    if op in ("and", "or"):
        if len(args) < 2:
            raise ValueError(f"{op} needs two arguments at least")
        return _together(op == "and", [judge_of(each, depth + 1) for each in args])
    if op == "not":
        return _opposite(judge_of(_only(op, args, 1)[0], depth + 1))
    if op in _COMPARISONS:
        left, right = _only(op, args, 2)
        return _comparison(_COMPARISONS[op], _value(left, right), _value(right, left))
    if op == "isnull":
        value = _value(_only(op, args, 1)[0])
        return lambda facts: value(facts) is None
    if op == "between":
        # Drafts of CQL2 had the two bounds in a list of their own.
        if len(args) == 2 and isinstance(args[1], list):
            args = [args[0], *args[1]]
        what, low, high = _only(op, args, 3)
        value = _value(what)
        return _together(
            True,
            [_comparison(operator.ge, value, _value(low, what)), _comparison(operator.le, value, _value(high, what))],
        )
    if op == "in":
        what, choices = _only(op, args, 2)
        if not isinstance(choices, list) or not choices:
            raise ValueError("in needs a list")
        value = _value(what)
        return _together(False, [_comparison(operator.eq, value, _value(each, what)) for each in choices])
    if op == "like":
        what, pattern = _only(op, args, 2)
        if not isinstance(pattern, str):
            raise ValueError("like needs a pattern")
        return _like(_value(what), pattern)
    raise ValueError(f"the filter operator {_short(op)} is not supported")


def query_judge_of(query: Any) -> Judge:
    """The function that judges by an object of the query extension. Raises ValueError for one that is wrong."""
    if not isinstance(query, dict):
        raise ValueError("query is not an object")
    judges: list[Judge] = []
    for name, tests in query.items():
        if not isinstance(tests, dict):
            raise ValueError(f"query of {_short(name)} is not an object")
        left = {"property": name}
        for op, wanted in tests.items():
            if op in _QUERY_COMPARISONS:
                judges.append(judge_of({"op": _QUERY_COMPARISONS[op], "args": [left, wanted]}))
            elif op == "in":
                judges.append(judge_of({"op": "in", "args": [left, wanted]}))
            elif op in _QUERY_TEXTS and isinstance(wanted, str):
                judges.append(_text_test(_QUERY_TEXTS[op], _value(left), wanted))
            else:
                raise ValueError(f"the query operator {_short(op)} is not supported")
    return _together(True, judges)


def _only(op: str, args: list[Any], count: int) -> list[Any]:
    if len(args) != count:
        raise ValueError(f"{op} needs {count} arguments")
    return args


def _value(operand: Any, other: Any = None) -> _Value:
    """What an operand is for an item; a text beside a moment is read as one."""
    if isinstance(operand, dict):
        if isinstance(operand.get("property"), str):
            name = operand["property"]
            return lambda facts: facts.value(name)
        moment = operand.get("timestamp")
        if isinstance(moment, str):
            return _constant(times.read(moment))
        day = operand.get("date")
        if isinstance(day, str):
            return _constant(times.read(f"{day}T00:00:00Z"))
    elif isinstance(operand, str):
        name = other.get("property") if isinstance(other, dict) else None
        return _constant(times.read(operand) if str(name).removeprefix("properties.") in MOMENTS else operand)
    elif isinstance(operand, bool | int | float):
        return _constant(operand)
    raise ValueError(f"not an operand: {_short(operand)}")


def _constant(value: Any) -> _Value:
    return lambda _: value


def _comparison(test: Callable[[Any, Any], bool], left: _Value, right: _Value) -> Judge:
    def judge(facts: Facts) -> Verdict:
        one, other = left(facts), right(facts)
        if one is None or other is None or isinstance(one, str) != isinstance(other, str):
            return None
        return test(one, other)

    return judge


def _together(every: bool, judges: list[Judge]) -> Judge:
    """And, or with `every` false or."""

    def judge(facts: Facts) -> Verdict:
        verdict: Verdict = every
        for each in judges:
            found = each(facts)
            if found is (not every):
                return found
            if found is None:
                verdict = None
        return verdict

    return judge


def _opposite(judge: Judge) -> Judge:
    def opposite(facts: Facts) -> Verdict:
        verdict = judge(facts)
        return None if verdict is None else not verdict

    return opposite


def _like(value: _Value, pattern: str) -> Judge:
    wild = {"%": ".*", "_": "."}
    shape = re.compile("".join(wild.get(each) or re.escape(each) for each in pattern), re.DOTALL)
    return _text_test(lambda text, _: shape.fullmatch(text) is not None, value, pattern)


def _text_test(test: Callable[[str, str], bool], value: _Value, wanted: str) -> Judge:
    def judge(facts: Facts) -> Verdict:
        found = value(facts)
        return test(found, wanted) if isinstance(found, str) else None

    return judge


def _short(value: Any) -> str:
    return repr(value)[:60]
