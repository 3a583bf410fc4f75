"""minipy: small Python problems that a tiny model can learn on two CPU cores.

A problem asks for a reduction of a mapping of the filtered numbers of a list, for example
"Return the sum of the squares of the numbers in xs that are even."; the answer is a fenced function
`f(xs)`. Some (filter, map, reduce) combinations are held out, so that evaluation asks for
combinations that no training problem shows. Everything is a function of the seed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any, Literal, cast

from rl.seeds import derive_seed
from rl.types import Lineup, Message, Prompt, Trace

Split = Literal["train", "eval"]
Numbers = list[int]

NUM_HELD_OUT = 60
NUM_TESTS = 8
NUM_WORKED_OUT = 3  # numbers of a list whose output a tiny model has to work out
CONSTANTS = range(2, 10)
ENTRY_POINT = "f"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which numbers are kept: phrase, expressions on `x`, and what it means."""

    phrase: str  # may hold {k}
    codes: tuple[str, ...]
    keep: Callable[[int, int], bool]


@dataclass(frozen=True, slots=True)
class Map:
    """What becomes of a number."""

    phrase: str
    codes: tuple[str, ...]
    apply: Callable[[int, int], int]


@dataclass(frozen=True, slots=True)
class Reduce:
    """What is returned of the mapped numbers; `{inner}` is a generator, `{items}` a list."""

    phrase: str
    codes: tuple[str, ...]
    fold: Callable[[Numbers], int | Numbers]


FILTERS = (
    Filter("even", ("x % 2 == 0",), lambda x, _: x % 2 == 0),
    Filter("odd", ("x % 2 == 1", "x % 2 != 0"), lambda x, _: x % 2 == 1),
    Filter("positive", ("x > 0",), lambda x, _: x > 0),
    Filter("negative", ("x < 0",), lambda x, _: x < 0),
    Filter("greater than {k}", ("x > {k}",), lambda x, k: x > k),
    Filter("less than {k}", ("x < {k}",), lambda x, k: x < k),
    Filter("divisible by {k}", ("x % {k} == 0",), lambda x, k: x % k == 0),
)
MAPS = (
    Map("double", ("x * 2", "2 * x"), lambda x, _: 2 * x),
    Map("square", ("x * x", "x ** 2"), lambda x, _: x * x),
    Map("negation", ("-x",), lambda x, _: -x),
    Map("absolute value", ("abs(x)",), lambda x, _: abs(x)),
    Map("sum with {k}", ("x + {k}",), lambda x, k: x + k),
    Map("product with {k}", ("x * {k}",), lambda x, k: x * k),
)
REDUCES = (
    Reduce("sum", ("sum({inner})", "sum({items})"), sum),
    Reduce("count", ("len({items})",), len),
    Reduce("maximum", ("max({inner})", "max({items})"), max),
    Reduce("minimum", ("min({inner})", "min({items})"), min),
    Reduce("sorted list", ("sorted({inner})", "sorted({items})"), sorted),
    Reduce("list", ("{items}", "list({inner})"), list),
)
Combination = tuple[int, int, int]
COMBINATIONS: tuple[Combination, ...] = tuple(
    product(range(len(FILTERS)), range(len(MAPS)), range(len(REDUCES)))
)


@dataclass(frozen=True, slots=True)
class Spec:
    """What one problem asks for."""

    combination: Combination
    filter_k: int
    map_k: int

    @property
    def question(self) -> str:
        """The problem in words.

        >>> Spec((4, 1, 0), 5, 2).question
        'Return the sum of the square of the numbers in xs that are greater than 5.'
        """
        keep, change, fold = self.parts
        return (
            f"Return the {fold.phrase} of the {change.phrase.format(k=self.map_k)} of the numbers "
            f"in xs that are {keep.phrase.format(k=self.filter_k)}."
        )

    @property
    def meta(self) -> dict[str, Any]:
        """What it is made of, constants included."""
        return {
            "combination": self.combination,
            "constants": [self.filter_k, self.map_k],
        }

    @classmethod
    def of(cls, problem: Prompt) -> Spec:
        """What a problem of this level asks for; its metadata has to hold the constants."""
        meta = json.loads(problem.meta)
        return cls(cast("Combination", tuple(meta["combination"])), *meta["constants"])

    @property
    def parts(self) -> tuple[Filter, Map, Reduce]:
        """The filter, the map and the reduction."""
        keep, change, fold = self.combination
        return FILTERS[keep], MAPS[change], REDUCES[fold]

    def program(self, rng: random.Random) -> str:
        """A right program, in one of its spellings.

        >>> Spec((2, 3, 1), 2, 2).program(random.Random(0))
        'def f(xs):\\n    return len([abs(x) for x in xs if x > 0])'
        """
        keep, change, fold = self.parts
        condition = rng.choice(keep.codes).format(k=self.filter_k)
        inner = f"{rng.choice(change.codes).format(k=self.map_k)} for x in xs if {condition}"
        body = rng.choice(fold.codes).format(inner=inner, items=f"[{inner}]")
        return f"def {ENTRY_POINT}(xs):\n    return {body}"

    def solve(self, xs: Numbers) -> int | Numbers:
        """The right output."""
        keep, change, fold = self.parts
        return fold.fold([change.apply(x, self.map_k) for x in xs if keep.keep(x, self.filter_k)])

    def tests(self, rng: random.Random) -> str:
        """Functional tests as JSON, with the numbers at which near-misses differ."""
        border = [self.filter_k - 1, self.filter_k, self.filter_k + 1, -self.filter_k, 0, 1, -1]
        keep = FILTERS[self.combination[0]].keep
        kept = [x for x in range(-20, 41) if keep(x, self.filter_k)]
        cases: list[dict[str, object]] = []
        for _ in range(NUM_TESTS):
            xs = rng.sample(border, 4) + rng.sample(kept, 3)
            xs += [rng.randint(-20, 20) for _ in range(2)]
            rng.shuffle(xs)
            cases.append({"input": [xs], "output": self.solve(xs)})
        return json.dumps(cases)


def held_out_combinations(seed: int = 0) -> frozenset[Combination]:
    """The combinations that only the evaluation split asks for.

    Fixed by default whatever the run's seed, so that shipped models and new runs share one split.
    """
    return frozenset(random.Random(seed).sample(COMBINATIONS, NUM_HELD_OUT))


def specs(split: Split, num: int, seed: int) -> list[Spec]:
    """Draw `num` specs of a split, without repetition while the split has new ones."""
    held_out = held_out_combinations()
    allowed = [c for c in COMBINATIONS if (c in held_out) == (split == "eval")]
    rng = random.Random(derive_seed(seed, "minipy", split))
    seen: set[str] = set()
    drawn: list[Spec] = []
    attempts = 0
    while len(drawn) < num:
        spec = Spec(rng.choice(allowed), rng.choice(CONSTANTS), rng.choice(CONSTANTS))
        attempts += 1
        if spec.question in seen and attempts < 20 * num:
            continue
        seen.add(spec.question)
        drawn.append(spec)
    return drawn


def make_prompts(split: Split, num: int, seed: int) -> list[Prompt]:
    """Draw `num` problems of a split as prompts with functional tests."""
    return list(_prompts(split, num, seed))


@cache  # a run checks them before it starts
def _prompts(split: Split, num: int, seed: int) -> tuple[Prompt, ...]:
    prompts: list[Prompt] = []
    for index, spec in enumerate(specs(split, num, seed)):
        rng = random.Random(derive_seed(seed, "minipy tests", split, index))
        watched = _short_list(
            spec, NUM_WORKED_OUT, random.Random(derive_seed(seed, "minipy watched", split, index))
        )
        prompts.append(
            Prompt(
                id=f"minipy-{split}-{seed}-{index}",
                messages=(Message("user", spec.question),),
                tests=spec.tests(rng),
                entry_point=ENTRY_POINT,
                source="minipy",
                meta=json.dumps(spec.meta | {"watched": [watched]}),
            )
        )
    return tuple(prompts)


def fenced(code: str) -> str:
    """The answer format that problems expect."""
    return f"```python\n{code}\n```"


def corrupt(spec: Spec, rng: random.Random) -> str:
    """An answer with one fault: another part or constant, a lost character, no fence.

    The replacement is drawn from all, so now and then it changes nothing.
    """
    fault = rng.randrange(6)
    code = _other(spec, fault, rng).program(rng)
    if fault == 4:
        drop = rng.randrange(len(code))
        return fenced(code[:drop] + code[drop + 1 :])
    return code if fault == 5 else fenced(code)


def _other(spec: Spec, fault: int, rng: random.Random) -> Spec:
    """The spec with another filter (0), map (1), reduction (2) or constants (3); else itself."""
    keep, change, fold = spec.combination
    if fault == 0:
        keep = rng.randrange(len(FILTERS))
    elif fault == 1:
        change = rng.randrange(len(MAPS))
    elif fault == 2:
        fold = rng.randrange(len(REDUCES))
    elif fault == 3:
        return Spec(spec.combination, rng.choice(CONSTANTS), rng.choice(CONSTANTS))
    return Spec((keep, change, fold), spec.filter_k, spec.map_k)


def _training_specs(num: int, rng: random.Random) -> Iterator[Spec]:
    """Draw specs of combinations that are not held out, each when it is asked for."""
    held_out = held_out_combinations()
    allowed = [c for c in COMBINATIONS if c not in held_out]
    for _ in range(num):
        yield Spec(rng.choice(allowed), rng.choice(CONSTANTS), rng.choice(CONSTANTS))


def warm_start_answers(num: int, corrupted: float, seed: int) -> Iterable[tuple[str, str]]:
    """Yield (question, answer) pairs of training problems; a share of the answers is corrupted."""
    rng = random.Random(derive_seed(seed, "minipy warm start"))
    for spec in _training_specs(num, rng):
        answer = corrupt(spec, rng) if rng.random() < corrupted else fenced(spec.program(rng))
        yield spec.question, answer


def warm_start_tests(num: int, seed: int, num_numbers: int = 4) -> Iterator[tuple[Prompt, str]]:
    """Yield (problem, test) pairs of training problems, for a model that writes tests.

    A test is an assert statement after the steps that lead to its output. Lists are shorter than
    those of `Spec.tests`: a tiny model has to work the output out.
    """
    rng = random.Random(derive_seed(seed, "minipy warm start of tests"))
    for index, spec in enumerate(_training_specs(num, rng)):
        xs = _short_list(spec, num_numbers, rng)
        lines = [
            f"xs = {xs}",
            *_worked_out(spec, xs),
            f"assert {ENTRY_POINT}({xs}) == {spec.solve(xs)}",
        ]
        prompt = Prompt(
            id=f"test-{index}",
            messages=(Message("user", spec.question),),
            tests=json.dumps([{"input": [xs], "output": spec.solve(xs)}]),
            entry_point=ENTRY_POINT,
        )
        yield prompt, "\n".join(lines)


def warm_start_traces(num: int, seed: int, num_numbers: int) -> Iterator[tuple[Trace, str]]:
    """Yield (trace, answer) pairs of right programs, for a model that says what programs return."""
    rng = random.Random(derive_seed(seed, "minipy warm start of traces"))
    for spec in _training_specs(num, rng):
        xs = _short_list(spec, num_numbers, rng)
        output = str(spec.solve(xs))
        call = f"{ENTRY_POINT}({xs})"
        trace = Trace(code=spec.program(rng), input=call, output=output)
        yield trace, "\n".join([*_worked_out(spec, xs), f"output = {output}"])


def _short_list(spec: Spec, num: int, rng: random.Random) -> Numbers:
    """Two numbers near the border, the others such as are kept."""
    border = [spec.filter_k - 1, spec.filter_k, spec.filter_k + 1, -spec.filter_k, 0, 1, -1]
    keep = spec.parts[0].keep
    xs = rng.sample([x for x in range(-9, 19) if keep(x, spec.filter_k)], num - 2)
    xs += rng.sample(border, 2)
    rng.shuffle(xs)
    return xs


def _worked_out(spec: Spec, xs: Numbers) -> list[str]:
    """The steps that lead to the output."""
    keep, change, _ = spec.parts
    kept = [x for x in xs if keep.keep(x, spec.filter_k)]
    return [f"kept = {kept}", f"mapped = {[change.apply(x, spec.map_k) for x in kept]}"]


def warm_start_lineups(
    num: int, seed: int, sizes: Sequence[int]
) -> Iterator[tuple[Prompt, Lineup, str]]:
    """Yield (problem, lineup, line of its right program), for a model that chooses among programs.

    A wrong program differs in one part or constant, and in the output of a test.
    """
    rng = random.Random(derive_seed(seed, "minipy warm start of lineups"))
    for index, spec in enumerate(_training_specs(num, rng)):
        inputs: list[Numbers] = [case["input"][0] for case in json.loads(spec.tests(rng))]
        size = rng.choice(sizes)
        right = spec.program(rng)
        rates = {right: 1.0}
        while len(rates) < size:
            other = _other(spec, rng.randrange(4), rng)
            rate = sum(_agrees(spec, other, xs) for xs in inputs) / len(inputs)
            if rate < 1.0:
                rates.setdefault(other.program(rng), rate)
        codes = rng.sample([*rates], size)
        prompt = Prompt(id=f"lineup-{index}", messages=(Message("user", spec.question),))
        lineup = Lineup(codes_N=tuple(codes), pass_rates_N=tuple(rates[code] for code in codes))
        yield prompt, lineup, right.split("\n")[-1].strip()


def _agrees(spec: Spec, other: Spec, xs: Numbers) -> bool:
    try:
        return other.solve(xs) == spec.solve(xs)
    except ValueError:  # the largest of no numbers
        return False
