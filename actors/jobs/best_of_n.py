"""Best-of-N: judge the sampled programs of each problem in every way, then compare the ways.

The first `latency_problems` are judged one after the other with nothing beside them: their stages
are timed. The others only add to the accuracy and are judged side by side. What was found out about
a problem is on the disk before it counts, and is not found out again.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

from actors.cluster.bundles import Needs
from actors.cluster.session import kept, session
from actors.groups.fleet import FleetSpec, start_fleet
from actors.groups.verifiers import check_sandbox, make_verifier
from actors.plan.checks.preflight import preflight
from actors.plan.checks.prompt_checks import check_prompts
from conf.errors import NonFiniteError
from conf.schema import Config
from reward.select.best_of_n import (
    EXECUTE,
    GENERATE,
    OWN_TESTS,
    SCORE,
    STAGED_EXECUTE,
    STAGED_GENERATE,
    Evidence,
    SelectionPlan,
)
from reward.select.select import by_reward_model
from reward.select.store import FoundStore, codes_digest
from reward.verify.execute import program_of, verify_persistently
from reward.verify.generated_tests import (
    GeneratedTest,
    distinct_inputs,
    read_test,
    request_for_test,
    text_of,
)
from reward.verify.matrix import execute_matrix
from reward.verify.verdict import Verifier
from rl.base.console import Console
from rl.interfaces import RolloutFleet
from rl.run.evaluation_store import SampleRow
from rl.types import (
    Ask,
    Message,
    Prompt,
    PromptGroup,
    SamplingConfig,
    Score,
    Task,
)

_WARM_UP = "warm-up"


def check_selection(cfg: Config, selection: SelectionPlan) -> None:
    """Refuse what would fail after the engines have started.

    Raises:
        UserError: prompts that the tester cannot be asked, engines that do not fit, a sandbox that
            is not reached.
    """
    check_prompts(cfg.model, [request_for_test(prompt) for prompt in selection.problems], "tester")
    needs = Needs(rollout=cfg.rollout.engines, reward=cfg.reward.shards)
    preflight(cfg, needs)
    check_sandbox(cfg.sandbox)


def gather_evidence(
    cfg: Config,
    selection: SelectionPlan,
    samples: Mapping[str, Sequence[SampleRow]],
    store: FoundStore[Evidence],
    console: Console,
) -> dict[str, Evidence]:
    """Evidence of every problem, by id: what is on disk, and what is missing.

    Raises:
        SandboxError: when a program cannot be run at all.
        NonFiniteError: when a score is not a number.
    """
    timed = {prompt.id for prompt in selection.problems[: selection.latency_problems]}
    known = store.finished(samples, timed)
    missing = [prompt for prompt in selection.problems if prompt.id not in known]
    if not missing:
        return known
    num_tests = selection.sampling.group_size
    about = f"{len(missing)} problems, {num_tests} tests each by {selection.tester}"
    console.stage("selection", f"{about}, {cfg.reward.model}, {cfg.placement.kind}")

    def keep(evidence: Evidence) -> None:
        store.append(evidence)
        known[evidence.problem_id] = evidence
        console.advance()
        done, total = len(known), len(selection.problems)
        if not console.live and 10 * done // total > 10 * (done - 1) // total:
            console.say(f"problems {done:>5}/{total}")

    async def work() -> None:
        specs = FleetSpec(rollout_model=selection.tester, reward=True)
        async with start_fleet(cfg, specs, "best-of-n") as fleet:
            judge = SelectionJudge(
                selection, (fleet.rollout, fleet.reward), verifier, samples, keep
            )
            with console.steps(len(selection.problems), done=len(known), what="problems"):
                await judge.one_after_the_other([p for p in missing if p.id in timed])
                await judge.side_by_side([p for p in missing if p.id not in timed])

    with (
        kept(store.path, console),
        session(cfg.ray, f"best-of-n-{store.path.stem}") as run,
        make_verifier(cfg.sandbox, selection.test_timeout_s, selection.test_workers) as verifier,
    ):
        run(work())
    return known


class Scoring(Protocol):
    """What is needed of `actors.groups.reward.RewardGroup`."""

    async def score_problem(self, question: str, codes: Sequence[str | None]) -> tuple[Score, ...]:
        """Raw scores of given programs for one problem."""
        ...


@dataclass(slots=True)
class Stopwatch:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body."""
        start_s = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start_s


class SelectionJudge:
    """Finds out about the programs of a problem whatever a selector may want to know."""

    def __init__(
        self,
        selection: SelectionPlan,
        engines: tuple[RolloutFleet, Scoring],
        verifier: Verifier,
        samples: Mapping[str, Sequence[SampleRow]],
        keep: Callable[[Evidence], None],
    ) -> None:
        self._selection = selection
        self._rollout, self._scoring = engines
        self._verifier = verifier
        self._samples = samples
        self._keep = keep
        self._problems = {prompt.id: prompt for prompt in selection.problems}

    async def one_after_the_other(self, prompts: Sequence[Prompt]) -> None:
        """Judge each problem alone, each stage timed as a selection waits for it."""
        if prompts:
            await self._warm_up(prompts[0])
        for prompt in prompts:
            rows = self._samples[prompt.id]
            watch = Stopwatch()
            evidence = await self._timed(prompt, [row.code for row in rows], watch)
            self._keep(replace(evidence, codes=codes_digest(rows), seconds=watch.seconds))

    async def side_by_side(self, prompts: Sequence[Prompt]) -> None:
        """Judge problems as their tests are complete, while others still generate."""
        if not prompts:
            return
        asks = [_ask(prompt, self._selection.sampling) for prompt in prompts]
        slots = asyncio.Semaphore(2 * self._selection.test_workers)
        async with asyncio.TaskGroup() as judging:
            async for group in self._rollout.generate(asks, 0):
                judging.create_task(self._beside(group, slots))

    async def _beside(self, group: PromptGroup, slots: asyncio.Semaphore) -> None:
        prompt, rows = self._problems[group.prompt.id], self._samples[group.prompt.id]
        codes = [row.code for row in rows]
        async with slots:
            scores = await self._score(prompt, codes)
            evidence = await asyncio.to_thread(self._evidence, prompt, codes, scores, group)
        self._keep(replace(evidence, codes=codes_digest(rows)))

    async def _warm_up(self, prompt: Prompt) -> None:
        """Judge a made-up problem, so that no timed call builds what is built lazily.

        Its text and programs differ from every other: nothing that a cache holds is met again.
        """
        made_up = replace(prompt, id=_WARM_UP, messages=(Message("user", "Warm up."),))
        codes = [row.code and f"{row.code}\n# {_WARM_UP}" for row in self._samples[prompt.id]]
        await self._timed(made_up, codes, Stopwatch())

    async def _timed(self, prompt: Prompt, codes: Sequence[str], watch: Stopwatch) -> Evidence:
        figures = self._selection.figures
        with watch.stage(SCORE):
            scores = await self._score(prompt, codes)
        with watch.stage(GENERATE):
            group = await self._generate(prompt, self._selection.sampling)
        with watch.stage(EXECUTE):
            evidence = await asyncio.to_thread(self._evidence, prompt, codes, scores, group)
        ranking = by_reward_model(evidence.candidates)
        few = replace(self._selection.sampling, group_size=figures.staged_tests, purpose="staged")
        with watch.stage(STAGED_GENERATE):
            group = await self._generate(prompt, few)
        with watch.stage(STAGED_EXECUTE):
            finalists = [codes[index] for index in ranking[: figures.staged_top_k]]
            tests = _tests_of(group, prompt)
            await asyncio.to_thread(execute_matrix, self._verifier, prompt, finalists, tests)
        with watch.stage(OWN_TESTS):
            programs = [program_of(prompt, code) for code in codes]
            await asyncio.to_thread(verify_persistently, self._verifier, programs)
        return evidence

    async def _score(self, prompt: Prompt, codes: Sequence[str]) -> tuple[Score, ...]:
        scores = await self._scoring.score_problem(
            prompt.question, [code or None for code in codes]
        )
        for index, score in enumerate(scores):
            if score.value is not None and not math.isfinite(score.value):
                raise NonFiniteError(
                    f"the reward model gave {score.value} for problem {prompt.id}, sample {index}; "
                    "check dtype and the model's weights"
                )
        return scores

    async def _generate(self, prompt: Prompt, sampling: SamplingConfig) -> PromptGroup:
        asks = [_ask(prompt, sampling)]
        groups = [group async for group in self._rollout.generate(asks, 0)]
        return groups[0]

    def _evidence(
        self, prompt: Prompt, codes: Sequence[str], scores: Sequence[Score], group: PromptGroup
    ) -> Evidence:
        tests = _tests_of(group, prompt)
        matrix = execute_matrix(self._verifier, prompt, codes, tests)
        return Evidence(
            problem_id=prompt.id,
            codes="",
            scores=[score.value for score in scores],
            tests=[text_of(test) for test in tests],
            num_asked=len(group.completions_G),
            num_test_tokens=sum(len(c.token_ids) for c in group.completions_G),
            passed=["".join("01"[int(bit)] for bit in row) for row in matrix.passed_NM],
            outputs=matrix.outputs_NM[:, distinct_inputs(tests)].tolist(),
            num_programs=matrix.num_programs,
            seconds=None,
        )


def _ask(problem: Prompt, sampling: SamplingConfig) -> Ask:
    """Tests of a problem."""
    prompt = request_for_test(problem)
    return Ask(prompt=prompt, problem=problem, sampling=sampling, task=Task.TEST)


def _tests_of(group: PromptGroup, prompt: Prompt) -> list[GeneratedTest]:
    answers = [read_test(completion.text, prompt) for completion in group.completions_G]
    return [test for test in answers if test is not None]
