"""Requests to the model: one user turn for each problem, the same wording for all data sets."""

from __future__ import annotations

import re

_STDIO = (
    "Write a Python program that solves the problem below. The program reads its input from "
    "standard input and writes its answer to standard output, and prints nothing else.\n\n"
    "{question}\n\n"
    "Answer with one fenced Python code block that holds the whole program:\n"
    "```python\n{body}\n```\n"
)
_STDIO_BODY = "# the whole program"
_STARTER = (
    "Solve the problem below in Python.\n\n"
    "{question}\n\n"
    "Complete this starter code; its names and parameters must stay as they are:\n"
    "```python\n{starter}\n```\n"
    "Answer with one fenced Python code block that holds the completed code and the imports that "
    "it needs.\n"
)
_FUNCTION = (
    "Solve the problem below in Python.\n\n"
    "{question}\n\n"
    "Answer with one fenced Python code block that defines {names} and holds the imports that "
    "it needs.\n"
)
_COMPLETION = (
    "Complete the Python function `{entry_point}`:\n"
    "```python\n{code}\n```\n"
    "Answer with one fenced Python code block that holds the whole function, together with the "
    "imports and helper functions that are given above it.\n"
)
_MBPP = (
    "{text}\nYour code must pass this test:\n{test}\n"
    "Answer with one Python code block that holds the function."
)


def stdio_request(question: str, starter: str = "") -> str:
    """Ask for a program that reads standard input."""
    return _STDIO.format(question=question.strip(), body=starter.strip("\n") or _STDIO_BODY)


def function_request(question: str, names: str, starter: str = "") -> str:
    """Ask for a function, as `names` calls it, from starter code if there is any."""
    if starter.strip():
        return _STARTER.format(question=question.strip(), starter=starter.strip("\n"))
    return _FUNCTION.format(question=question.strip(), names=names)


def completion_request(entry_point: str, code: str) -> str:
    """Ask to complete a function whose head and docstring are given."""
    return _COMPLETION.format(entry_point=entry_point, code=code.strip("\n"))


def mbpp_request(text: str, test: str) -> str:
    """Ask for a function that passes one test that is shown."""
    return _MBPP.format(text=text, test=test)


def bare_statement(request: str) -> str:
    """The problem that one of these requests states, without our wording; other texts as they are.

    >>> bare_statement(mbpp_request("Add 1.", "assert f(1) == 2")), bare_statement("Add 1.")
    ('Add 1.', 'Add 1.')
    """
    found = next(filter(None, (form.fullmatch(request) for form in _FORMS)), None)
    return request if found is None else found["stated"].strip()


def _form(template: str, stated: str) -> re.Pattern[str]:
    """What a template makes; the group `stated` is the problem."""
    fields = {f"{{{stated}}}": "(?P<stated>.*?)"}
    parts = re.split(r"(\{\w+\})", template)  # texts and fields in turns
    forms = (fields.get(part, ".*?") if i % 2 else re.escape(part) for i, part in enumerate(parts))
    return re.compile("".join(forms), re.DOTALL)


_FORMS = (
    _form(_STDIO, "question"),
    _form(_STARTER, "question"),
    _form(_FUNCTION, "question"),
    _form(_MBPP, "text"),
)
