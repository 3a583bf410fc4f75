"""CVeDRL: the policy writes tests of a given program (arXiv 2601.22803).

The program is a known solution, so that a test is right when the program passes it. A suite whose
tests it all passes earns what they cover of its branches, more where the program is difficult; one
with a wrong test loses more, and what cannot be read most, by its share of the suite (ours).
Coverage can be raised by calling more, never by claiming better: how many mutants of the program a
suite notices is measured beside it, and can be rewarded too, which is ours.
"""

from __future__ import annotations

import ast
import io
import json
import keyword
import math
import tokenize
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from conf.errors import UserError
from conf.recipes import CvedrlArgs
from rl.recipes.recipe import Labels, Lesson, Recipe, Setup, State
from rl.types import Ask, FloatArray, Given, JudgedGroup, Prompt, SamplingConfig, Suite, Task

_LARGEST_HALSTEAD = 50.0  # Halstead's difficulty above which a program counts as fully difficult
_UNREAD = -3.0  # below a wrong suite of any program


class Cvedrl(Recipe):
    """A group of suites for each problem; `request` makes the prompt that asks for one."""

    labels: Labels | None = "gold_code"

    def __init__(
        self, setup: Setup, args: CvedrlArgs, request: Callable[[Prompt, str, int], Prompt]
    ) -> None:
        super().__init__(setup)
        self._args = args
        self._request = request

    def ask(self, step: int, problems_P: Sequence[Prompt], state: State) -> Sequence[Ask]:
        """Suites of the known solution of every problem."""
        del step, state
        return [self._ask(problem, self.setup.sampling) for problem in problems_P]

    def exam(self, problems_P: Sequence[Prompt], sampling: SamplingConfig) -> Sequence[Ask]:
        """Programs, as everywhere, and suites."""
        programs = super().exam(problems_P, sampling)
        return [*programs, *(self._ask(problem, sampling) for problem in problems_P)]

    def _ask(self, problem: Prompt, sampling: SamplingConfig) -> Ask:
        code = solution_of(problem)
        given = Given(code=code, num_tests=self._args.num_tests)
        prompt = self._request(problem, code, given.num_tests)
        return Ask(prompt=prompt, problem=problem, sampling=sampling, task=Task.SUITE, given=given)

    def grade(self, bundle: Sequence[JudgedGroup]) -> Sequence[JudgedGroup]:
        """Rewards of the suites, from what was seen of the given program."""
        return [
            replace(group, rewards_G=self._rewards(group)) if group.task is Task.SUITE else group
            for group in bundle
        ]

    def _rewards(self, group: JudgedGroup) -> FloatArray:
        args, given, suites_G = self._args, group.group.ask.given, group.evidence.suites_G
        if given is None or suites_G is None:
            raise ValueError(f"{group.group.prompt.id}: the suites were not run on a program")
        difficulty = difficulty_of(given.code)
        rewards = [reward_of(suite, args, difficulty) for suite in suites_G]
        return np.array(rewards, np.float32)

    def teach(self, step: int, groups_P: Sequence[JudgedGroup], state: State) -> Lesson:
        """One policy-gradient update, with the figures of the suites."""
        lesson = super().teach(step, groups_P, state)
        metrics = {f"task/suite/{name}": value for name, value in _figures(groups_P).items()}
        return replace(lesson, metrics=metrics)

    def mark(self, groups_P: Sequence[JudgedGroup]) -> Mapping[str, float]:
        """The same figures of the held-out problems."""
        return {f"eval/suite_{name}": value for name, value in _figures(groups_P).items()}


def solution_of(problem: Prompt) -> str:
    """The known solution of a problem, a function that tests can call.

    Raises:
        UserError: where there is none.
    """
    code = json.loads(problem.meta).get("solution")
    if not isinstance(code, str) or not problem.entry_point or not _parses(code):
        raise UserError(
            f"recipe=cvedrl: problem {problem.id} has no entry_point, or no `solution` in its meta "
            "that is a program; give rows that have both, or data.level=branchy"
        )
    return code


def _parses(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):
        return False
    return True


def reward_of(suite: Suite, args: CvedrlArgs, difficulty: float) -> float:
    """What a suite earns: the mean, by their shares, of its tests and of what cannot be read, -3.

    >>> good = Suite(num_tests=2, num_agreeing=2, coverage=1.0, killed=0.5)
    >>> reward_of(good, CvedrlArgs(), 0.25), reward_of(replace(good, num_unread=2), CvedrlArgs(), 1)
    (1.25, -0.5)
    >>> reward_of(replace(good, num_agreeing=1), CvedrlArgs(), 0.25)
    -1.75
    """
    if not suite.num_tests:
        return _UNREAD
    read = _worth(suite, args, difficulty) + args.killed_weight * suite.killed
    return read + suite.unread_share * (_UNREAD - read)


def _worth(suite: Suite, args: CvedrlArgs, difficulty: float) -> float:
    """What the tests of a suite earn, without its mutants."""
    graded = args.reward == "difficulty"
    if not suite.agrees:
        return -1.0 - (1.0 - difficulty) * graded
    covered = 1.0
    if args.reward != "agreement":
        covered = math.expm1(args.exponent * suite.coverage) / math.expm1(args.exponent)
    return covered * (1.0 + difficulty * graded)


def difficulty_of(code: str) -> float:
    """Difficulty of a program in [0, 1]: the mean, by product, of Halstead's and of the index.

    Halstead's difficulty is (operators / 2) (all operands / different operands), here divided by 50
    and cut at 1, which is ours. The other part is 1 minus the maintainability index over 100.

    >>> 0 < difficulty_of("def f(x):\\n    return x") < difficulty_of(
    ...     "def f(x, y):\\n    if x > y and x:\\n        return x * y\\n    return y - x"
    ... )
    True
    """
    operators, operands, num_lines = _words(code)
    different = len(set(operators)) + len(set(operands))
    if not operators or not operands:
        return 0.0
    halstead = len(set(operators)) / 2 * len(operands) / len(set(operands))
    volume = (len(operators) + len(operands)) * math.log2(different)
    decisions = 1 + sum(word in _DECISIONS for word in operators)
    index = 171 - 5.2 * math.log(volume) - 0.23 * decisions - 16.2 * math.log(num_lines)
    maintainable = min(100.0, max(0.0, index * 100 / 171))
    return math.sqrt(min(1.0, halstead / _LARGEST_HALSTEAD) * (1 - maintainable / 100))


_DECISIONS = frozenset({"if", "elif", "for", "while", "and", "or", "except", "case"})
_OPERANDS = (tokenize.NAME, tokenize.NUMBER, tokenize.STRING)


def _words(code: str) -> tuple[list[str], list[str], int]:
    """Operators and operands of a program, as Halstead counts them, and lines with something."""
    tokens = list(tokenize.generate_tokens(io.StringIO(code).readline))
    is_operand = [t.type in _OPERANDS and not keyword.iskeyword(t.string) for t in tokens]
    operators = [
        token.string
        for token, other in zip(tokens, is_operand, strict=True)
        if not other and token.type in (tokenize.OP, tokenize.NAME)
    ]
    operands = [token.string for token, one in zip(tokens, is_operand, strict=True) if one]
    return operators, operands, max(1, sum(bool(line.strip()) for line in code.split("\n")))


def _figures(groups_P: Sequence[JudgedGroup]) -> dict[str, float]:
    """What suites are worth; coverage and mutants are those of right ones."""
    suites = [suite for group in groups_P for suite in group.evidence.suites_G or ()]
    if not suites:
        return {}
    right = [suite for suite in suites if suite.agrees]
    figures = {
        "readable": float(np.mean([suite.num_tests > 0 for suite in suites])),
        "right": float(np.mean([suite.agrees for suite in suites])),
        "unread": float(np.mean([suite.unread_share for suite in suites])),
        "num_tests": float(np.mean([suite.num_tests for suite in suites])),
        "tests_right": sum(s.num_agreeing for s in suites)
        / max(1, sum(s.num_tests for s in suites)),
    }
    if right:
        figures["coverage"] = float(np.mean([suite.coverage for suite in right]))
        figures["killed"] = float(np.mean([suite.killed for suite in right]))
    return figures
