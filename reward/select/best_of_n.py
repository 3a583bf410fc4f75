"""Best-of-N: what was found out about the programs of each problem, and the figures it gives.

Axes: P problems, N programs of each, M generated tests, Q sizes of subsets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reward.select.select import (
    BoolArray,
    Candidates,
    Vote,
    by_generated_tests,
    by_reward_model,
    codet,
    mbr_exec,
    oracle_curve,
    random_curve,
    ranking_curve,
    staged,
    vote_curve,
)
from reward.select.verdicts import Verdicts
from rl.run.evaluate import bootstrap_intervals
from rl.run.evaluation_store import Settings
from rl.types import Prompt, SamplingConfig

# Stages of a selection, timed one by one. Those of GENERATION decode tests.
SCORE, GENERATE, EXECUTE = "score", "generate", "execute"
STAGED_GENERATE, STAGED_EXECUTE, OWN_TESTS = "staged_generate", "staged_execute", "own_tests"
JUDGE = "judge"
GENERATION = frozenset([GENERATE, STAGED_GENERATE])

# The methods in the order of the table: name for people, and the stages that a selection waits for.
# That of a language model is there where one is asked.
METHODS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "random": ("random", ()),
    "mbr_exec": ("MBR-exec", (GENERATE, EXECUTE)),
    "codet": ("CodeT", (GENERATE, EXECUTE)),
    "generated_tests": ("generated tests", (GENERATE, EXECUTE)),
    "staged": ("staged", (SCORE, STAGED_GENERATE, STAGED_EXECUTE)),
    "reward_model": ("reward model", (SCORE,)),
    "judge": ("judge", (JUDGE,)),
    "own_tests": ("own tests", (OWN_TESTS,)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was found out about the N programs of one problem; a line of `evidence.jsonl`."""

    problem_id: str
    codes: str  # digest of the programs
    scores: list[float | None]  # of the reward model; None where there is no program
    tests: list[str]  # the generated tests that could be read, as text
    num_asked: int  # tests
    num_test_tokens: int
    passed: list[str]  # of each program a "1" for each test that it passes, else "0"
    outputs: list[list[int]]  # of each program its outputs on the distinct inputs; see Candidates
    num_programs: int  # that were run
    seconds: dict[str, float] | None  # by stage; None when other problems were judged beside it

    @property
    def candidates(self) -> Candidates:
        """As selectors see it."""
        scores = [-math.inf if score is None else score for score in self.scores]
        num_tests = len(self.tests)
        bits = [[bit == "1" for bit in row] for row in self.passed]
        return Candidates(
            valid_N=np.array([score is not None for score in self.scores]),
            scores_N=np.array(scores, dtype=np.float64),
            passed_NM=np.array(bits, dtype=np.bool_).reshape(len(scores), num_tests),
            outputs_NI=np.array(self.outputs, dtype=np.int32).reshape(len(scores), -1),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionSettings:
    """What the figures depend on beside the evidence."""

    sizes: tuple[int, ...]  # of the curves, ascending; the last is N
    staged_top_k: int
    staged_tests: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionPlan:
    """What is judged, and how."""

    benchmark: str
    problems: tuple[Prompt, ...]
    tester: str  # directory or hub id
    sampling: SamplingConfig  # of the generated tests; group_size of them
    figures: SelectionSettings
    latency_problems: int
    test_timeout_s: float
    test_workers: int  # programs that run at once
    settings: Settings  # whatever the evidence depends on, but for problems and programs


def sizes_up_to(num_samples: int) -> tuple[int, ...]:
    """Powers of two, and the number itself.

    >>> sizes_up_to(12)
    (1, 2, 4, 8, 12)
    """
    powers = (2**exponent for exponent in range(num_samples.bit_length()))
    return tuple(sorted({*(size for size in powers if size <= num_samples), num_samples}))


def curves(
    evidence: Evidence,
    correct_N: BoolArray,
    settings: SelectionSettings,
    verdicts: Verdicts | None = None,
) -> dict[str, list[float]]:
    """Expected accuracy of each method on one problem, for each size, in the order of the table."""
    candidates, sizes = evidence.candidates, settings.sizes
    identity = (settings.seed, evidence.problem_id)

    def by_stages(part: Candidates) -> int:
        return staged(part, settings.staged_top_k, settings.staged_tests)

    votes: dict[str, Vote] = {"mbr_exec": mbr_exec, "codet": codet, "staged": by_stages}
    rankings = {"generated_tests": by_generated_tests, "reward_model": by_reward_model}
    found = {
        "random": random_curve(correct_N, sizes),
        "own_tests": oracle_curve(correct_N, sizes),
        **{n: ranking_curve(r(candidates), correct_N, sizes) for n, r in rankings.items()},
        **{n: vote_curve(v, candidates, correct_N, sizes, identity) for n, v in votes.items()},
    }
    if verdicts is not None:
        found["judge"] = verdicts.curve(candidates.valid_N, correct_N, sizes)
    return {name: found[name] for name in METHODS if name in found}


def accuracy_figures(
    curves_P: Sequence[Mapping[str, Sequence[float]]], settings: SelectionSettings
) -> dict[str, Any]:
    """Accuracy of each method over N, with 95 % intervals; and how far each is from the oracle."""
    methods = [*curves_P[0]]
    values_MPQ = np.array([[problem[name] for problem in curves_P] for name in methods])
    values_RP = np.moveaxis(values_MPQ, 1, 2).reshape(-1, len(curves_P))
    gaps_MP = values_MPQ[-1, :, -1] - values_MPQ[:, :, -1]  # own_tests is the last
    intervals = bootstrap_intervals(np.concatenate([values_RP, gaps_MP]), settings.seed)
    means_R = values_RP.mean(axis=1).reshape(len(methods), -1)
    num_sizes = len(settings.sizes)
    figures: dict[str, Any] = {}
    for index, name in enumerate(methods):
        own = intervals[index * num_sizes : (index + 1) * num_sizes]
        figures[name] = {
            "accuracy": float(means_R[index, -1]),
            "interval": list(own[-1]),
            "below_own_tests": float(gaps_MP[index].mean()),
            "below_own_tests_interval": list(intervals[len(values_RP) + index]),
            "curve": {
                str(n): float(v) for n, v in zip(settings.sizes, means_R[index], strict=True)
            },
            "curve_intervals": {str(n): list(i) for n, i in zip(settings.sizes, own, strict=True)},
        }
    return figures


def latency(seconds: Mapping[str, float], method: str, *, with_generation: bool) -> float:
    """Seconds that one selection waits for, from the seconds of its stages.

    >>> stages = {"score": 0.1, "generate": 2.0, "execute": 0.5}
    >>> latency(stages, "codet", with_generation=True)
    2.5
    >>> latency(stages, "codet", with_generation=False)
    0.5
    """
    stages = METHODS[method][1]
    return float(sum(seconds[s] for s in stages if with_generation or s not in GENERATION))


def latency_figures(seconds_P: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Median and 95th percentile over problems of each method, and how often the RM's they are."""
    figures: dict[str, Any] = {}
    methods = [name for name, (_, stages) in METHODS.items() if {*stages} <= {*seconds_P[0]}]
    for name in methods:
        figures[name] = {
            label: _quantiles([latency(s, name, with_generation=counted) for s in seconds_P])
            for label, counted in (
                ("latency_s", True),
                ("latency_without_generation_s", False),
            )
        }
    floor = figures["reward_model"]["latency_s"]
    for name in methods:
        for label in ("latency_s", "latency_without_generation_s"):
            ratios = {
                q: v / floor[q] if floor[q] else None for q, v in figures[name][label].items()
            }
            figures[name][label.replace("latency", "slower_than_rm").removesuffix("_s")] = ratios
    return figures


def figures_of_tests(
    evidence_P: Sequence[Evidence], correct_PN: Sequence[BoolArray]
) -> dict[str, float | int | None]:
    """How good the generated tests are. A test is right when every right program passes it (CURE).

    Only problems with a right program say which tests are right.
    """
    judged = [
        np.asarray(evidence.candidates.passed_NM[correct].all(axis=0))
        for evidence, correct in zip(evidence_P, correct_PN, strict=True)
        if correct.any()
    ]
    num_judged = sum(rows.size for rows in judged)
    num_asked = sum(e.num_asked for e in evidence_P)
    num_tokens = sum(e.num_test_tokens for e in evidence_P)
    return {
        "asked": num_asked,
        "read": sum(len(e.tests) for e in evidence_P),
        "right": float(sum(rows.sum() for rows in judged)) / num_judged if num_judged else None,
        "tokens_per_test": num_tokens / num_asked if num_asked else None,
        "programs_run": sum(e.num_programs for e in evidence_P),
    }


def _quantiles(values_P: Sequence[float]) -> dict[str, float]:
    array: NDArray[np.float64] = np.asarray(values_P)
    return {"p50": float(np.quantile(array, 0.5)), "p95": float(np.quantile(array, 0.95))}
