"""Inputs and outputs of the published forms -> the canonical tests of a program or a function."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from rl.problems.datasets.requests import function_request, stdio_request
from rl.problems.datasets.rows import RuleError, any_text, as_dict, as_list, from_json

_STDIO_KINDS = ("stdin", "stdin_stdout", "stdio")
_JSON_LINES_KIND = "functional"  # LiveCodeBench: one JSON line for each argument
_ARGUMENTS_KIND = "function_call"  # SYNTHETIC-1: a list of arguments, the result often in a list


@dataclass(frozen=True, slots=True)
class Suite:
    """Tests as the canonical row stores them."""

    tests: str  # JSON
    entry_point: str | None  # None when programs read standard input
    num_tests: int

    def request(self, question: str, starter: str = "") -> str:
        """What to ask for, so that the answer can be tested."""
        if self.entry_point is None:
            return stdio_request(question, starter)
        return function_request(question, f"the function `{self.entry_point}`", starter)


def stdio_suite(inputs: object, outputs: object) -> Suite:
    """Tests of a program, from texts or lists of lines."""
    pairs = _pairs(inputs, outputs)
    return _suite([_case(_lines(i), _lines(o)) for i, o in pairs], None)


def call_suite(entry_point: object, inputs: object, outputs: object, starter: str = "") -> Suite:
    """Tests of a function, from lists of arguments and results (the form of APPS and TACO).

    Most of these data sets put each result into a list of its own; `unwrapped` takes it out.
    """
    pairs = _pairs(inputs, outputs)
    name = _name(entry_point)
    values = unwrapped([output for _, output in pairs], name, starter)
    cases = [_case(_arguments(i), v) for (i, _), v in zip(pairs, values, strict=True)]
    return _suite(cases, name)


def columns_suite(value: object, starter: str = "") -> Suite:
    """Tests of {"inputs": [...], "outputs": [...]}, of a function when there is a "fn_name"."""
    columns = as_dict(value)
    for name in ("inputs", "outputs"):
        if name not in columns:
            raise RuleError(f'must have "{name}"', sorted(columns))
    inputs, outputs, fn_name = columns["inputs"], columns["outputs"], columns.get("fn_name")
    if fn_name is None or fn_name == "":
        return stdio_suite(inputs, outputs)
    return call_suite(fn_name, inputs, outputs, starter)


def list_suite(value: object, fn_name: object = None, starter: str = "") -> Suite:
    """Tests of a list of {"input", "output"}, whose kind is given by "testtype" or "type".

    The function's name is `fn_name`, or stands in the cases (`fn_name`, `metadata.func_name`).
    """
    cases = [as_dict(case) for case in as_list(value)]
    if not cases:
        raise RuleError("must hold at least one test", value)
    for idx, case in enumerate(cases):
        if not {"input", "output"} <= case.keys():
            raise RuleError(f'test {idx} needs "input" and "output"', case)
    kind = _kind(cases, fn_name)
    inputs, outputs = [case["input"] for case in cases], [case["output"] for case in cases]
    if kind in _STDIO_KINDS:
        return stdio_suite(inputs, outputs)
    name = fn_name or cases[0].get("fn_name") or _metadata(cases[0]).get("func_name")
    if kind == _ARGUMENTS_KIND:
        return call_suite(name, *_parsed(inputs, outputs), starter)
    parsed = [_case(_json_lines(i), _json_value(o)) for i, o in zip(inputs, outputs, strict=True)]
    return _suite(parsed, _name(name))


def unwrapped(outputs: Sequence[Any], entry_point: str, starter: str) -> list[Any]:
    """Take each result out of its list of one, when every result of the problem is in one.

    The exception is a function whose declared result is a list, while what is inside is none.

    >>> unwrapped([[3], [4]], "f", ""), unwrapped([3, 4], "f", "")
    ([3, 4], [3, 4])
    >>> unwrapped([[3], [4]], "f", "def f(x: int) -> List[int]:")
    [[3], [4]]
    """
    if not all(_is_list_of_one(output) for output in outputs):
        return list(outputs)
    head = re.search(rf"def\s+{re.escape(entry_point)}\s*\([^)]*\)\s*->\s*([\w.]+)", starter)
    returns_list = head is not None and head[1].lower().endswith("list")
    if returns_list and not all(isinstance(output[0], list) for output in outputs):
        return list(outputs)
    return [output[0] for output in outputs]


def _is_list_of_one(value: object) -> bool:
    return isinstance(value, list) and len(cast("list[Any]", value)) == 1


def _suite(cases: list[dict[str, Any]], entry_point: str | None) -> Suite:
    if not cases:
        raise RuleError("must hold at least one test", cases)
    return Suite(json.dumps(cases), entry_point, len(cases))


def _case(given: object, expected: object) -> dict[str, Any]:
    return {"input": given, "output": expected}


def _pairs(inputs: object, outputs: object) -> list[tuple[Any, Any]]:
    given, expected = as_list(inputs), as_list(outputs)
    if len(given) != len(expected):
        raise RuleError(
            "inputs and outputs must be equally many",
            f"{len(given)} inputs, {len(expected)} outputs",
        )
    return list(zip(given, expected, strict=True))


def _lines(value: object) -> str:
    if isinstance(value, list):
        return "\n".join(any_text(line) for line in cast("list[Any]", value))
    if not isinstance(value, str):
        raise RuleError("input and output of a program must be text or a list of lines", value)
    return value


def _arguments(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise RuleError("input of a function must be the list of its arguments", value)
    return cast("list[Any]", value)


def _name(value: object) -> str:
    if not isinstance(value, str) or not value.isidentifier():
        raise RuleError("tests of a function need its name", value)
    return value


def _kind(cases: Sequence[dict[str, Any]], fn_name: object) -> str:
    default = _STDIO_KINDS[0] if not fn_name else _JSON_LINES_KIND
    kinds = {str(case.get("testtype") or case.get("type") or default) for case in cases}
    kinds = {_STDIO_KINDS[0] if kind in _STDIO_KINDS else kind for kind in kinds}
    if len(kinds) > 1:
        raise RuleError("all tests of a problem must be of one kind", sorted(kinds))
    kind = kinds.pop()
    known = (*_STDIO_KINDS, _JSON_LINES_KIND, _ARGUMENTS_KIND)
    if kind not in known:
        raise RuleError(f"the kind of a test must be one of {', '.join(known)}", kind)
    return kind


def _metadata(case: dict[str, Any]) -> dict[str, Any]:
    value = case.get("metadata")
    return as_dict(from_json(value)) if value else {}


def _parsed(inputs: list[Any], outputs: list[Any]) -> tuple[list[Any], list[Any]]:
    """Parse what a columnar file had to store as text: the arguments of a call and its result."""
    if not all(isinstance(value, str) for value in inputs):
        return inputs, outputs
    return [_json_value(value) for value in inputs], [_json_value(value) for value in outputs]


def _json_lines(value: object) -> list[Any]:
    text = any_text(value).strip("\n")
    return [_json_value(line) for line in text.split("\n")] if text.strip() else []


def _json_value(value: object) -> Any:  # noqa: ANN401 - any JSON value
    if not isinstance(value, str):
        raise RuleError("input and output of a function must be JSON text", value)
    return from_json(value)
