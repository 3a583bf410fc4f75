"""Held-out evaluation: sample on the rollout engines, judge, execute, count.

Programs are executed here, because pass@k is a statement about execution. That is never part of a
reward; both are counted apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from actors.groups.fleet import RayFleet
from reward.verify.execute import programs_of, require_decided, verify_persistently
from reward.verify.verdict import ProgramResult, Verifier
from rl.run.evaluate import best_of_n, pass_at_k
from rl.step import sample_and_judge
from rl.types import JudgedGroup, Prompt, SamplingConfig, Score


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """What one held-out evaluation found."""

    groups_P: tuple[JudgedGroup, ...]  # each score with the verdict of execution beside it
    num_executed: int  # programs; those that a judge ran are among them

    @property
    def passed_PG(self) -> tuple[tuple[bool, ...], ...]:
        """Whether each completion passes all tests."""
        return tuple(tuple(score.passed for score in g.scores_G) for g in self.groups_P)

    @property
    def num_samples(self) -> int:
        """Completions per problem."""
        return len(self.passed_PG[0])

    @property
    def pass_at_1(self) -> float:
        """Unbiased pass@1."""
        return self.pass_at(1)

    def pass_at(self, k: int) -> float:
        """Unbiased pass@k, mean over problems."""
        return float(np.mean([pass_at_k(len(p), sum(p), k) for p in self.passed_PG]))

    @property
    def best_of(self) -> float:
        """Share of problems whose completion with the highest score passes."""
        scores = [[s.value for s in g.scores_G] for g in self.groups_P]
        return best_of_n(scores, self.passed_PG)

    @property
    def valid_rate(self) -> float:
        """Share of completions with code to judge."""
        return float(np.mean([e.valid for g in self.groups_P for e in g.extractions_G]))


async def evaluate(
    fleet: RayFleet,
    prompts_P: Sequence[Prompt],
    sampling: SamplingConfig,
    verifier: Verifier,
    step: int,
) -> Evaluation:
    """Sample and judge held-out problems, then execute the programs against their tests.

    Raises:
        SandboxError: when a program could not be run at all; that is never counted as a failure.
    """
    return await run_tests(await sample_and_judge(step, fleet, prompts_P, sampling), verifier)


async def run_tests(groups_P: tuple[JudgedGroup, ...], verifier: Verifier) -> Evaluation:
    """Execute judged completions against the tests of their problems; raises as `evaluate` does."""
    before = verifier.num_executed
    executed_P = await asyncio.to_thread(execute, groups_P, verifier)
    num_executed = verifier.num_executed - before + sum(g.num_executed for g in groups_P)
    return Evaluation(groups_P=executed_P, num_executed=num_executed)


def execute(groups_P: Sequence[JudgedGroup], verifier: Verifier) -> tuple[JudgedGroup, ...]:
    """The same groups, with the verdict of the problem's tests on each completion."""
    programs = [p for g in groups_P for p in programs_of(g.group.prompt, g.extractions_G)]
    judgements = verify_persistently(verifier, programs)
    require_decided(judgements, f"{len(groups_P)} problems")
    flat = iter(judgements)
    return tuple(
        replace(g, scores_G=tuple(_with_verdict(s, next(flat)) for s in g.scores_G))
        for g in groups_P
    )


def _with_verdict(score: Score, found: ProgramResult) -> Score:
    return replace(
        score,
        verdict=found.verdict,
        num_passed=found.num_passed,
        num_tests=found.num_tests,
    )
