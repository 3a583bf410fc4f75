"""Near-miss negatives: programs that look right for a problem and are not.

Rollouts of a decent policy hold few of them, yet a policy that is optimised against a reward model
finds exactly these: a wrong constant, a wrong comparison, a program that solves the neighbouring
problem. Two sources are used, and every candidate is executed: only what fails is a negative.

- mutants: one small edit of a passing program;
- swaps: a passing program of another problem, every second one the nearest of a few.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reward.code.edits import Edit, apply, edits
from reward.code.normal_form import normalise, num_other_words, parse, words_of
from reward.pairs.pairs import LabelledCode, Pair, pair_of
from reward.verify.execute import program_of, verify_persistently
from reward.verify.verdict import ProgramResult, Verifier
from rl.seeds import derive_seed
from rl.types import Prompt, Verdict

_NUM_NEAREST = 16  # passing programs of other problems, of which the nearest is taken
_DECIDED = (Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR)


@dataclass(frozen=True, slots=True, kw_only=True)
class NearMissConfig:
    """How many near-miss negatives are made for one problem."""

    mutants_per_prompt: int
    swaps_per_prompt: int
    seed: int


@dataclass(frozen=True, slots=True)
class _Candidate:
    positive: LabelledCode
    code: str
    source: str


def near_miss_pairs(
    labelled: Sequence[LabelledCode],
    prompts: Mapping[str, Prompt],
    verifier: Verifier,
    cfg: NearMissConfig,
    donors: Sequence[LabelledCode] | None = None,
) -> list[Pair]:
    """Pairs of a passing program and a verified near-miss of it, for every solved problem.

    `donors` are passing programs of other problems; None takes one of each problem in `labelled`.
    """
    solved: dict[str, list[LabelledCode]] = defaultdict(list)
    for code in labelled:
        if code.passed and code.prompt_id in prompts:
            solved[code.prompt_id].append(code)
    if donors is None:
        donors = [codes[0] for codes in solved.values()]
    candidates: list[_Candidate] = []
    for prompt_id, codes in solved.items():
        rng = random.Random(derive_seed(cfg.seed, "near miss", prompt_id))
        candidates += _candidates(codes, donors, rng, cfg)
    programs = [program_of(prompts[c.positive.prompt_id], c.code) for c in candidates]
    judgements = verify_persistently(verifier, programs)
    return [
        _pair(candidate, judgement)
        for candidate, judgement in zip(candidates, judgements, strict=True)
        if judgement.verdict in _DECIDED
    ]


def _candidates(
    codes: Sequence[LabelledCode],
    donors: Sequence[LabelledCode],
    rng: random.Random,
    cfg: NearMissConfig,
) -> list[_Candidate]:
    found: list[_Candidate] = []
    seen = {normalise(code.code) for code in codes}

    def add(positive: LabelledCode, code: str, source: str) -> None:
        key = normalise(code)
        if key not in seen:
            seen.add(key)
            found.append(_Candidate(positive, code, source))

    for _ in range(cfg.mutants_per_prompt):
        positive = rng.choice(codes)
        for mutant in mutants(positive.code, rng, 1):
            add(positive, mutant, "mutant")
    for swap in range(cfg.swaps_per_prompt if donors else 0):
        positive = rng.choice(codes)
        some = rng.sample(donors, min(len(donors), _NUM_NEAREST if swap % 2 else 1))
        words = words_of(normalise(positive.code))
        nearest = min(some, key=lambda d: num_other_words(words, words_of(normalise(d.code))))
        add(positive, nearest.code, "swap")
    return found


def _pair(candidate: _Candidate, judgement: ProgramResult) -> Pair:
    wrong = replace(
        candidate.positive,
        code=candidate.code,
        passed=False,
        tests_passed=judgement.num_passed / max(1, judgement.num_tests),
        source=candidate.source,
    )
    return pair_of(candidate.positive, wrong)


def mutants(code: str, rng: random.Random, n: int) -> list[str]:
    """Return up to `n` different programs, each one small edit away from `code`.

    Kinds of edit are drawn evenly: a constant, a comparison, an operator, a reduction, a negated or
    dropped condition, an expression replaced by a part of itself, a wrong variable. Every result
    parses and differs from `code` after `normalise`; some still do the same, so a result is a
    wrong program only once execution says so.
    """
    code = code.replace("\r\n", "\n").replace("\r", "\n")
    by_kind: dict[str, list[Edit]] = defaultdict(list)
    for edit in edits(code, rng):
        by_kind[edit.kind].append(edit)
    seen = {normalise(code)}
    found: list[str] = []
    while by_kind and len(found) < n:
        kind = rng.choice(sorted(by_kind))
        edit = by_kind[kind].pop(rng.randrange(len(by_kind[kind])))
        if not by_kind[kind]:
            del by_kind[kind]
        mutant = apply(edit, code)
        key = normalise(mutant)
        if key not in seen and parse(mutant) is not None:
            seen.add(key)
            found.append(mutant)
    return found
