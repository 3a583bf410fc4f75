"""Held-out evaluation: sample on the rollout engines, judge, execute, count.

Programs are executed here, because pass@k is a statement about execution. That is never part of a
reward; both are counted apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from actors.groups.fleet import RayFleet
from conf.errors import first_cause
from reward.verify.execute import programs_of, require_decided, verify_persistently
from reward.verify.verdict import ProgramResult, Verifier
from rl.run.evaluate import mean_pass_at
from rl.run.summary import PolicyFigures
from rl.step import sample_and_judge
from rl.types import JudgedGroup, Prompt, SamplingConfig, Score

_EXECUTED_AT_ONCE = 2  # groups; a verifier has workers of its own


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
    def pass_at_1(self) -> float:
        """Unbiased pass@1."""
        return mean_pass_at(self.passed_PG, 1)

    @property
    def figures(self) -> PolicyFigures:
        """What it says of the policy."""
        scores_PG = [[score.value for score in group.scores_G] for group in self.groups_P]
        return PolicyFigures.of(scores_PG, self.passed_PG)


async def evaluate(  # noqa: PLR0913 - who is asked what, and who runs the answers
    fleet: RayFleet,
    prompts_P: Sequence[Prompt],
    sampling: SamplingConfig,
    verifier: Verifier,
    step: int,
    *,
    hide_tests: bool = False,
) -> Evaluation:
    """Sample and judge problems, and execute each group against its tests while others are sampled.

    With `hide_tests` the judge sees problems without tests, so that a hybrid asks its model.

    Raises:
        SandboxError: when a program could not be run at all; that is never counted as a failure.
    """
    tested = {prompt.id: prompt for prompt in prompts_P}
    asked_P = [replace(prompt, tests=None) for prompt in prompts_P] if hide_tests else prompts_P
    turns = asyncio.Semaphore(_EXECUTED_AT_ONCE)

    async def with_tests(judged: JudgedGroup) -> JudgedGroup:
        group = replace(judged.group, prompt=tested[judged.group.prompt.id])
        async with turns:
            return await asyncio.to_thread(execute, replace(judged, group=group), verifier)

    before = verifier.num_executed
    try:
        groups_P = await sample_and_judge(step, fleet, asked_P, sampling, with_tests)
    except BaseExceptionGroup as errors:
        raise first_cause(errors) from errors
    num_executed = verifier.num_executed - before + sum(g.num_executed for g in groups_P)
    return Evaluation(groups_P=groups_P, num_executed=num_executed)


def execute(judged: JudgedGroup, verifier: Verifier) -> JudgedGroup:
    """The same group, with the verdict of the problem's tests on each completion."""
    prompt = judged.group.prompt
    results_G = verify_persistently(verifier, programs_of(prompt, judged.extractions_G))
    require_decided(results_G, f"problem {prompt.id}")
    scores_G = map(_with_verdict, judged.scores_G, results_G)
    return replace(judged, scores_G=tuple(scores_G))


def _with_verdict(score: Score, found: ProgramResult) -> Score:
    return replace(
        score,
        verdict=found.verdict,
        num_passed=found.num_passed,
        num_tests=found.num_tests,
    )
