"""Held-out evaluation: sample on the rollout engines, judge, execute, count.

Programs are executed here, because pass@k is a statement about execution. That is never part of a
reward; both are counted apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from actors.groups.fleet import RayFleet
from conf.errors import first_cause
from conf.schema import EvaluationConfig, ModelConfig
from reward.verify.execute import programs_of, require_decided, verify_persistently
from reward.verify.verdict import ProgramResult, Verifier
from rl.base.console import Console
from rl.recipes.recipe import of_task
from rl.run.evaluate import mean_pass_at
from rl.run.summary import PolicyFigures
from rl.step import FollowUp, sample_and_judge
from rl.types import Ask, JudgedGroup, Prompt, SamplingConfig, Score, Task

MAIN = ""  # the name of the held-out problems that are not one of `data.eval_sets`
_EXECUTED_AT_ONCE = 2  # groups; a verifier has workers of its own


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """What one held-out evaluation found."""

    groups_P: tuple[JudgedGroup, ...]  # scores of programs have the verdict of execution
    num_executed: int  # programs; those that a judge ran are among them

    @property
    def programs_P(self) -> list[JudgedGroup]:
        """The groups that were asked for programs."""
        return of_task(self.groups_P, Task.CODE)

    @property
    def passed_PG(self) -> tuple[tuple[bool, ...], ...]:
        """Whether each program passes all tests."""
        return tuple(tuple(score.passed for score in g.scores_G) for g in self.programs_P)

    @property
    def pass_at_1(self) -> float:
        """Unbiased pass@1."""
        return mean_pass_at(self.passed_PG, 1)

    @property
    def figures(self) -> PolicyFigures:
        """What it says of the policy."""
        scores_PG = [[score.value for score in group.scores_G] for group in self.programs_P]
        return PolicyFigures.of(scores_PG, self.passed_PG)


def evaluation_sampling(
    evaluation: EvaluationConfig, model: ModelConfig, seed: int
) -> SamplingConfig:
    """How held-out problems are sampled."""
    return SamplingConfig(
        group_size=evaluation.num_samples,
        max_tokens=model.max_completion_tokens,
        temperature=evaluation.temperature,
        seed=seed,
        purpose="evaluation",
    )


async def evaluate(  # noqa: PLR0913 - who is asked what, and who runs the answers
    fleet: RayFleet,
    asks: Sequence[Ask],
    verifier: Verifier,
    step: int,
    *,
    follow_up: FollowUp | None = None,
    hide_tests: bool = False,
) -> Evaluation:
    """Sample and judge, and execute programs against their tests while others are sampled.

    `follow_up` says what is asked next about a problem. With `hide_tests` the judge sees problems
    without tests, so that a hybrid asks its model.

    Raises:
        SandboxError: when a program could not be run at all; that is never counted as a failure.
    """
    tested = {ask.prompt.id: ask for ask in asks}
    turns = asyncio.Semaphore(_EXECUTED_AT_ONCE)

    async def with_tests(bundle: Sequence[JudgedGroup]) -> list[JudgedGroup]:
        asked = [_asked(judged, tested) for judged in bundle]
        async with turns:
            return [
                await asyncio.to_thread(execute, judged, verifier)
                if judged.task is Task.CODE
                else judged
                for judged in asked
            ]

    before = verifier.num_executed
    try:
        shown = [_without_tests(ask) for ask in asks] if hide_tests else asks
        groups_P = await sample_and_judge(step, fleet, shown, with_tests, follow_up)
    except BaseExceptionGroup as errors:
        raise first_cause(errors) from errors
    num_executed = verifier.num_executed - before + sum(g.num_executed for g in groups_P)
    return Evaluation(groups_P=groups_P, num_executed=num_executed)


def _asked(judged: JudgedGroup, asks: Mapping[str, Ask]) -> JudgedGroup:
    """The group as it was asked for: with tests, where the judge saw none."""
    ask = asks.get(judged.group.prompt.id, judged.group.ask)
    return replace(judged, group=replace(judged.group, ask=ask))


def _without_tests(ask: Ask) -> Ask:
    untested = replace(ask.problem, tests=None)
    return replace(ask, prompt=replace(ask.prompt, tests=None), problem=untested)


def execute(judged: JudgedGroup, verifier: Verifier) -> JudgedGroup:
    """The same group, with the verdict of the problem's tests on each completion."""
    prompt = judged.group.ask.problem
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


def warn_of_shared(
    train: Sequence[Prompt], held_out: Mapping[str, Sequence[Prompt]], console: Console
) -> None:
    """A problem that is trained on says nothing about others."""
    trained = {prompt.question for prompt in train}
    for name, problems in held_out.items():
        shared = [prompt.id for prompt in problems if prompt.question in trained]
        key = f"data.eval_sets.{name}" if name else "data.eval_path"
        if shared:
            console.warn(
                f"{len(shared)} of {len(problems)} held-out problems are trained on, the first is "
                f"{shared[0]}: pass@1 will look too good (drop them from {key})"
            )
