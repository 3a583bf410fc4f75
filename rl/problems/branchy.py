"""Problems of minipy whose programs have conditional statements: its level `branchy`.

A problem says what to return in each of three cases, for example "If the sum of xs is even, return
the maximum of the double of the numbers in xs. Otherwise, if xs has more than 4 numbers, return the
count of the square of the numbers in xs. Otherwise return 7.". An input takes one way through the
program. The tests of every second training problem leave one of the later ways out, so that there
are lines of right programs that no test reaches; those of held-out problems leave out none.

What `rl.problems.minipy` asks for is untouched. Everything is a function of the seed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

from rl.problems.minipy import (
    CONSTANTS,
    ENTRY_POINT,
    MAPS,
    NUM_TESTS,
    REDUCES,
    Numbers,
    Split,
    fenced,
)
from rl.seeds import derive_seed
from rl.types import Message, Prompt, Trace

NUM_HELD_OUT = 48
NUM_WAYS = 3
_NUMBERS, _FEW_NUMBERS = range(-9, 19), range(-3, 10)  # of lists, and of lists in suites
_WAYS = ("# if", "# elif", "# else")
_DRAWS = 300  # of lists, until one takes the way that is wanted


@dataclass(frozen=True, slots=True)
class Guard:
    """What is asked of the list: phrase, expressions on `xs`, and what it means."""

    phrase: str  # may hold {k}
    codes: tuple[str, ...]
    holds: Callable[[Numbers, int], bool]


GUARDS = (
    Guard("xs has more than {k} numbers", ("len(xs) > {k}",), lambda xs, k: len(xs) > k),
    Guard("the sum of xs is even", ("sum(xs) % 2 == 0",), lambda xs, _: sum(xs) % 2 == 0),
    Guard("the sum of xs is greater than {k}", ("sum(xs) > {k}",), lambda xs, k: sum(xs) > k),
    Guard("the first number of xs is negative", ("xs[0] < 0",), lambda xs, _: xs[0] < 0),
    Guard("the last number of xs is less than {k}", ("xs[-1] < {k}",), lambda xs, k: xs[-1] < k),
    Guard("{k} is in xs", ("{k} in xs",), lambda xs, k: k in xs),
)
Combination = tuple[int, int, int]
COMBINATIONS: tuple[Combination, ...] = tuple(
    product(range(len(GUARDS)), range(len(MAPS)), range(len(REDUCES)))
)


@dataclass(frozen=True, slots=True)
class Arm:
    """One case: when it holds, and what is then returned."""

    combination: Combination  # guard, map and reduction
    guard_k: int
    map_k: int

    @property
    def condition(self) -> str:
        """When it holds, in words."""
        return GUARDS[self.combination[0]].phrase.format(k=self.guard_k)

    @property
    def wanted(self) -> str:
        """What is returned, in words."""
        _, change, fold = self.combination
        phrase = MAPS[change].phrase.format(k=self.map_k)
        return f"the {REDUCES[fold].phrase} of the {phrase} of the numbers in xs"

    def program(self, rng: random.Random) -> tuple[str, str]:
        """Condition and result as expressions, in one of their spellings."""
        guard, change, fold = self.combination
        inner = f"{rng.choice(MAPS[change].codes).format(k=self.map_k)} for x in xs"
        result = rng.choice(REDUCES[fold].codes).format(inner=inner, items=f"[{inner}]")
        return rng.choice(GUARDS[guard].codes).format(k=self.guard_k), result

    def holds(self, xs: Numbers) -> bool:
        """Whether an input is of this case."""
        return GUARDS[self.combination[0]].holds(xs, self.guard_k)

    def solve(self, xs: Numbers) -> int | Numbers:
        """The right output in this case."""
        _, change, fold = self.combination
        return REDUCES[fold].fold([MAPS[change].apply(x, self.map_k) for x in xs])


@dataclass(frozen=True, slots=True)
class Spec:
    """What one problem asks for."""

    arms: tuple[Arm, Arm]
    otherwise: int

    @property
    def question(self) -> str:
        """The problem in words.

        >>> Spec((Arm((1, 0, 2), 2, 2), Arm((0, 1, 1), 4, 2)), 7).question
        'If the sum of xs is even, return the maximum of the double of the numbers in xs. \
Otherwise, if xs has more than 4 numbers, return the count of the square of the numbers in xs. \
Otherwise return 7.'
        """
        first, second = self.arms
        return (
            f"If {first.condition}, return {first.wanted}. Otherwise, if {second.condition}, "
            f"return {second.wanted}. Otherwise return {self.otherwise}."
        )

    @property
    def meta(self) -> dict[str, Any]:
        """What it is made of, constants included, and a right program."""
        first, second = self.arms
        return {
            "level": "branchy",
            "combinations": [first.combination, second.combination],
            "constants": [[arm.guard_k, arm.map_k] for arm in self.arms],
            "otherwise": self.otherwise,
            "solution": self.program(random.Random(0)),
        }

    @classmethod
    def of(cls, problem: Prompt) -> Spec:
        """What a problem of this level asks for."""
        meta = json.loads(problem.meta)
        parts = zip(meta["combinations"], meta["constants"], strict=True)
        first, second = (Arm(tuple(combination), *ks) for combination, ks in parts)
        return cls((first, second), meta["otherwise"])

    def program(self, rng: random.Random) -> str:
        """A right program, in one of its spellings.

        >>> spec = Spec((Arm((1, 0, 2), 2, 2), Arm((0, 1, 1), 4, 2)), 7)
        >>> print(spec.program(random.Random(1)))
        def f(xs):
            if sum(xs) % 2 == 0:
                return max(x * 2 for x in xs)
            elif len(xs) > 4:
                return len([x * x for x in xs])
            else:
                return 7
        """
        (if_, then), (elif_, then_) = (arm.program(rng) for arm in self.arms)
        return (
            f"def {ENTRY_POINT}(xs):\n    if {if_}:\n        return {then}\n    elif {elif_}:\n"
            f"        return {then_}\n    else:\n        return {self.otherwise}"
        )

    def way(self, xs: Numbers) -> int:
        """Which case an input is of: 0, 1, or 2 for neither."""
        first, second = self.arms
        return 0 if first.holds(xs) else 1 if second.holds(xs) else 2

    def solve(self, xs: Numbers) -> int | Numbers:
        """The right output."""
        way = self.way(xs)
        return self.otherwise if way == 2 else self.arms[way].solve(xs)

    def trace(self, xs: Numbers, rng: random.Random) -> Trace:
        """What a right program does with an input."""
        return Trace(
            code=self.program(rng), input=f"{ENTRY_POINT}({xs})", output=str(self.solve(xs))
        )

    def draw(
        self, way: int, sizes: range, rng: random.Random, numbers: range = _NUMBERS
    ) -> Numbers | None:
        """A list that takes a way; None where there seems to be none."""
        wanted = [arm.guard_k for arm in self.arms]
        for _ in range(_DRAWS):
            xs = [rng.choice(numbers) for _ in range(rng.choice(sizes))]
            if rng.random() < 0.5:
                xs[rng.randrange(len(xs))] = rng.choice(wanted)
            if self.way(xs) == way:
                return xs
        return None

    def tests(self, rng: random.Random, left_out: int | None) -> str | None:
        """Functional tests as JSON, of every way but one; None where a way cannot be taken."""
        ways = [way for way in range(NUM_WAYS) if way != left_out]
        cases: list[dict[str, object]] = []
        for index in range(NUM_TESTS):
            xs = self.draw(ways[index % len(ways)], range(2, 9), rng)
            if xs is None:
                return None
            cases.append({"input": [xs], "output": self.solve(xs)})
        rng.shuffle(cases)
        return json.dumps(cases)


def held_out_combinations(seed: int = 0) -> frozenset[Combination]:
    """First cases that only the evaluation split asks for, whatever the run's seed."""
    return frozenset(random.Random(seed).sample(COMBINATIONS, NUM_HELD_OUT))


def specs(split: Split, rng: random.Random) -> Iterator[Spec]:
    """Draw specs of a split without end; the guards of the two cases differ."""
    held_out = held_out_combinations()
    allowed = [c for c in COMBINATIONS if (c in held_out) == (split == "eval")]
    while True:
        first = rng.choice(allowed)
        second = rng.choice([c for c in COMBINATIONS if c[0] != first[0] and c not in held_out])
        ks = [rng.choice(CONSTANTS) for _ in range(5)]
        yield Spec((Arm(first, ks[0], ks[1]), Arm(second, ks[2], ks[3])), ks[4])


def make_prompts(split: Split, num: int, seed: int) -> list[Prompt]:
    """Draw `num` problems of a split as prompts with functional tests."""
    return list(_prompts(split, num, seed))


@cache  # a run checks them before it starts
def _prompts(split: Split, num: int, seed: int) -> tuple[Prompt, ...]:
    rng = random.Random(derive_seed(seed, "branchy", split))
    prompts: list[Prompt] = []
    asked: set[str] = set()
    for spec in specs(split, rng):
        index = len(prompts)
        if index == num:
            break
        left_out = 1 + index // 2 % 2 if split == "train" and index % 2 else None
        tests = None if spec.question in asked else spec.tests(rng, left_out)
        if tests is None:
            continue
        asked.add(spec.question)
        prompts.append(
            Prompt(
                id=f"branchy-{split}-{seed}-{index}",
                messages=(Message("user", spec.question),),
                tests=tests,
                entry_point=ENTRY_POINT,
                source="minipy",
                meta=json.dumps(spec.meta | {"left_out": left_out}),
            )
        )
    return tuple(prompts)


def warm_start_suites(num: int, most: int, seed: int) -> Iterator[tuple[str, str]]:
    """Yield (program, suite) pairs of training problems: right tests of ways drawn at random.

    A comment says which way a test takes, and lists are short: a tiny model has to work it out.
    """
    rng = random.Random(derive_seed(seed, "branchy warm start of suites"))
    for spec in specs("train", rng):
        if num == 0:
            return
        ways = [rng.randrange(NUM_WAYS) for _ in range(rng.randint(1, most))]
        tests: dict[str, str] = {}
        for way in ways:
            xs = spec.draw(way, range(2, 4), rng, _FEW_NUMBERS)
            if xs is not None:
                tests[f"assert {ENTRY_POINT}({xs}) == {spec.solve(xs)}"] = _WAYS[way]
        lines = [f"{way}\n{test}" for test, way in tests.items()]
        if lines:
            num -= 1
            yield spec.program(rng), fenced("\n".join(lines))


def corrupt(spec: Spec, rng: random.Random) -> str:
    """A program with one fault: another part of a case, another constant, cases exchanged."""
    first, second = spec.arms
    other, _ = next(specs("train", rng)).arms
    fault = rng.randrange(5)
    if fault == 0:
        spec = Spec(
            (Arm((other.combination[0], *first.combination[1:]), 2, first.map_k), second), 0
        )
    elif fault == 1:
        spec = Spec((first, Arm((second.combination[0], *other.combination[1:]), 3, 4)), 1)
    elif fault == 2:
        spec = Spec((second, first), spec.otherwise)
    elif fault == 3:
        spec = Spec((other, second), spec.otherwise)
    else:
        spec = Spec((first, second), rng.choice(CONSTANTS))
    return spec.program(rng)


def warm_start_answers(num: int, corrupted: float, seed: int) -> Iterator[tuple[str, str]]:
    """Yield (question, answer) pairs of training problems; a share of the answers is corrupted."""
    rng = random.Random(derive_seed(seed, "branchy warm start"))
    drawn = specs("train", rng)
    for _ in range(num):
        spec = next(drawn)
        code = corrupt(spec, rng) if rng.random() < corrupted else spec.program(rng)
        yield spec.question, fenced(code)
