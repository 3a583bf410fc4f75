"""Suites: several tests of a given program, what they say of it, and what they would notice.

The task of CVeDRL (arXiv 2601.22803). The program is ours, so that what it executes cannot be
forged; an answer is hostile text, of which literals are read as data.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from reward.code.edits import apply, edits
from reward.code.fences import fenced
from reward.code.normal_form import parse
from reward.verify.executed import executed_on
from reward.verify.generated_tests import GeneratedTest, read_asserts, read_tests, text_of
from reward.verify.matrix import Observing, execute_matrix
from rl.types import Message, Prompt, Suite

_MOST_FOUND = 64  # tests, and asserts, of an answer that are looked at
_NUM_MUTANTS = 12

_REQUEST = """This program is given:

{code}

Write up to {num} tests of it: calls of `{name}` and the values that it returns.
```python
assert {name}(...) == ...
```"""


def request_for_suite(problem: Prompt, code: str, num_tests: int) -> Prompt:
    """The question for tests of a program, which must have an entry point.

    >>> problem = Prompt(id="a", messages=(), entry_point="f")
    >>> request_for_suite(problem, "def f(x):\\n    return x", 3).question.splitlines()[7]
    'Write up to 3 tests of it: calls of `f` and the values that it returns.'
    """
    name = problem.entry_point
    asked = _REQUEST.format(code=fenced(code.strip(), "python"), num=num_tests, name=name)
    return Prompt(id=f"{problem.id}#suite", messages=(Message("user", asked),), entry_point=name)


@dataclass(frozen=True, slots=True)
class Claims:
    """The tests of an answer, and how many other asserts it makes."""

    tests: Sequence[GeneratedTest]
    num_unread: int


def read_suite(text: str, problem: Prompt, num_tests: int) -> Claims:
    """The first different tests of an answer; every other assert of it is unread.

    Two tests of one input that expect different values are both tests: one of them is wrong.

    >>> problem = Prompt(id="a", messages=(), entry_point="f")
    >>> read = read_suite("assert f(1) == 2\\nassert f(2) == g(1)\\nassert f(", problem, 6)
    >>> len(read.tests), read.num_unread
    (1, 2)
    """
    found = {text_of(test): test for test in islice(read_tests(text, problem), _MOST_FOUND)}
    tests = dict(islice(found.items(), num_tests))
    asserts = islice(read_asserts(text, problem), _MOST_FOUND)
    claims = {one if isinstance(one, str) else one.text for one in asserts}
    return Claims(list(tests.values()), len(claims - tests.keys()))


def run_suites(
    verifier: Observing, problem: Prompt, code: str, suites_G: Sequence[Claims]
) -> list[Suite]:
    """What each suite says of a program, what it reaches, and which mutants of it it notices.

    Raises SandboxError when a program cannot be run at all, after three attempts.
    """
    tests = [test for suite in suites_G for test in suite.tests]
    mutants = mutants_of(code)
    passed_NM = execute_matrix(verifier, problem, [code, *mutants], tests).passed_NM
    executed_G = executed_on(verifier, problem, [(code, suite.tests) for suite in suites_G])
    found: list[Suite] = []
    start = 0
    for suite, executed in zip(suites_G, executed_G, strict=True):
        own_NM = passed_NM[:, start : start + len(suite.tests)]
        start += len(suite.tests)
        agrees = bool(suite.tests) and bool(own_NM[0].all())
        killed = float(np.mean(~own_NM[1:].all(axis=1))) if agrees and mutants else 0.0
        found.append(
            Suite(
                num_tests=len(suite.tests),
                num_unread=suite.num_unread,
                num_agreeing=int(own_NM[0].sum()),
                coverage=executed.coverage if executed else 0.0,
                killed=killed,
            )
        )
    return found


def mutants_of(code: str, num: int = _NUM_MUTANTS) -> list[str]:
    """Programs that one edit away from this one; the same for the same program."""
    rng = random.Random(0)
    changed = dict.fromkeys(apply(edit, code) for edit in edits(code, rng))
    runnable = [one for one in changed if one != code and parse(one) is not None]
    return rng.sample(runnable, min(num, len(runnable)))


def as_text(tests: Sequence[GeneratedTest]) -> str:
    """A suite as a record shows it."""
    return "\n".join(map(text_of, tests))
