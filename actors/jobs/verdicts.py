"""Verdicts of a best-of-N: a language model says which of the programs of a problem is right.

It sees the problem and the programs, never a test. The first `latency_problems` are asked about one
after the other with nothing beside them, and timed; the others side by side.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Protocol

from actors.cluster.bundles import Needs
from actors.cluster.session import kept, session
from actors.cluster.signals import run_until_stopped
from actors.groups.fleet import FleetSpec, start_fleet
from actors.plan.checks.preflight import preflight
from actors.plan.checks.prompt_checks import check_prompts
from actors.plan.checks.rehearsal import rehearse
from actors.plan.examples import PolicyTexts
from actors.plan.judging import JudgingPlan, in_words_of_judge, scorer_of
from conf.commands.best_of_n import JudgeArgs
from conf.errors import EngineError, UserError, first_cause
from conf.schema import ModelConfig
from reward.judges.chat import Answer
from reward.judges.generative import GenerativeScorer, share_of
from reward.judges.questions import Questions
from reward.select.best_of_n import JUDGE
from reward.select.knockout import knockout, named_by
from reward.select.store import FoundStore, codes_digest
from reward.select.verdicts import Verdicts
from reward.verify.lineups import read_verdict
from rl.base.console import Console
from rl.interfaces import RolloutFleet
from rl.run.evaluation_store import SampleRow
from rl.seeds import derive_seed
from rl.types import Ask, Finish, Lineup, Message, Prompt, SamplingConfig, Task

_WARM_UP = "warm-up"
_AT_ONCE = 64  # problems that are asked about at the same time


class Asker(Protocol):
    """Whoever has the language model."""

    async def ask(self, questions: Sequence[Prompt]) -> list[Answer | None]:
        """An answer to each question, in their order; None where the text is not taken."""
        ...


class EngineAsker:
    """A model on rollout engines; a question that is too long for it has no answer."""

    def __init__(self, rollout: RolloutFleet, model: ModelConfig, sampling: SamplingConfig) -> None:
        self._rollout = rollout
        self._texts = PolicyTexts(model)
        self._sampling = sampling

    async def ask(self, questions: Sequence[Prompt]) -> list[Answer | None]:
        """One completion of each question that fits."""
        asks = [
            Ask(prompt=question, problem=question, sampling=self._sampling, task=Task.VERDICT)
            for question in questions
            if self._texts.fits(question)
        ]
        found: dict[str, Answer] = {}
        if asks:
            async for group in self._rollout.generate(asks, 0):
                (completion,) = group.completions_G
                ended = completion.finish is Finish.STOP
                found[group.prompt.id] = Answer(completion.text if ended else None)
        return [found.get(question.id) for question in questions]


class ServerAsker:
    """A model behind servers."""

    def __init__(self, scorer: GenerativeScorer, temperature: float) -> None:
        self._scorer = scorer
        self._temperature = temperature

    async def ask(self, questions: Sequence[Prompt]) -> list[Answer | None]:
        """What the servers answer. Raises EngineError where they do not."""
        turns = [question.messages for question in questions]
        try:
            return await asyncio.to_thread(self._scorer.ask, turns, self._temperature)
        except EngineError as error:
            raise in_words_of_judge(error) from error
        except UserError as error:
            raise in_words_of_judge(error) from error


def check_judge(plan: JudgingPlan) -> None:
    """Refuse a judge that would fail once everything else is done.

    Raises:
        UserError: engines that do not fit, prompts that the model cannot be asked, servers that do
            not answer or whose answers cannot be read.
    """
    if plan.engines is not None:
        model = plan.engines.model
        num_tokens = model.max_prompt_tokens + model.max_completion_tokens
        rehearse(model.path, "judge.model", "lm", num_tokens=num_tokens)
        preflight(plan.engines, Needs(rollout=plan.engines.rollout.engines))
        questions = Questions(plan.judge)
        asked = [questions.about(problem, ["pass"], problem.id) for problem in plan.problems]
        check_prompts(model, asked, "judge.model")
        return
    try:
        scorer_of(plan).check()
    except UserError as error:
        raise in_words_of_judge(error) from error


def gather_verdicts(
    plan: JudgingPlan,
    samples: Mapping[str, Sequence[SampleRow]],
    store: FoundStore[Verdicts],
    console: Console,
) -> dict[str, Verdicts]:
    """Verdicts on every problem, by id: what is on disk, and what is missing.

    Raises:
        EngineError: when an engine or all servers fail.
    """
    timed = {prompt.id for prompt in plan.problems[: plan.latency_problems]}
    known = store.finished(samples, timed)
    missing = [prompt for prompt in plan.problems if prompt.id not in known]
    if not missing:
        return known
    where = "servers" if plan.engines is None else plan.engines.placement.kind
    console.stage("judge", f"{len(missing)} problems, {plan.judge.model}, {where}")

    def keep(verdicts: Verdicts) -> None:
        store.append(verdicts)
        known[verdicts.problem_id] = verdicts
        console.advance()

    async def work(asker: Asker) -> None:
        chooser = Chooser(plan, asker, samples, keep)
        with console.steps(len(plan.problems), done=len(known), what="problems"):
            await chooser.one_after_the_other([p for p in missing if p.id in timed])
            await chooser.side_by_side([p for p in missing if p.id not in timed])

    with kept(store.path, console):
        _run(plan, store.path.stem, work)
    return known


def _run(
    plan: JudgingPlan, name: str, work: Callable[[Asker], Coroutine[None, None, None]]
) -> None:
    """Run `work` with whoever has the model."""
    if plan.engines is None:
        asker = ServerAsker(scorer_of(plan), plan.judge.temperature)
        try:
            run_until_stopped(work(asker))
        except BaseExceptionGroup as group:
            raise first_cause(group) from group
        return
    cfg = plan.engines
    sampling = SamplingConfig(
        group_size=1,
        max_tokens=plan.judge.max_tokens,
        temperature=plan.judge.temperature,
        seed=plan.seed,
        purpose="verdicts",
    )

    async def on_engines() -> None:
        async with start_fleet(cfg, FleetSpec(rollout_model=cfg.model.path), "judge") as fleet:
            await work(EngineAsker(fleet.rollout, cfg.model, sampling))

    with session(cfg.ray, f"best-of-n-{name}") as run:
        run(on_engines())


class Chooser:
    """Finds out which programs the language model chooses."""

    def __init__(
        self,
        plan: JudgingPlan,
        asker: Asker,
        samples: Mapping[str, Sequence[SampleRow]],
        keep: Callable[[Verdicts], None],
    ) -> None:
        self._plan = plan
        self._asker = asker
        self._samples = samples
        self._keep = keep
        self._questions = Questions(plan.judge)

    async def one_after_the_other(self, problems: Sequence[Prompt]) -> None:
        """Ask about each problem alone; the choice among all its programs is timed."""
        if problems:  # a made-up one before, so that no timed answer waits for what is built lazily
            made_up = replace(problems[0], id=_WARM_UP, messages=(Message("user", "Warm up."),))
            await self._verdicts(made_up, self._samples[problems[0].id])
        for problem in problems:
            verdicts, seconds = await self._verdicts(problem, self._samples[problem.id])
            self._keep(replace(verdicts, seconds={JUDGE: seconds}))

    async def side_by_side(self, problems: Sequence[Prompt]) -> None:
        """Ask about many problems at once."""
        slots = asyncio.Semaphore(_AT_ONCE)

        async def one(problem: Prompt) -> None:
            async with slots:
                verdicts, _ = await self._verdicts(problem, self._samples[problem.id])
            self._keep(verdicts)

        async with asyncio.TaskGroup() as tasks:
            for problem in problems:
                tasks.create_task(one(problem))

    async def _verdicts(self, problem: Prompt, rows: Sequence[SampleRow]) -> tuple[Verdicts, float]:
        """The verdicts, and the seconds that the choice among all programs took."""
        plan, codes = self._plan, [row.code for row in rows]
        inquiry = Inquiry(plan, self._questions, self._asker, problem, codes)
        start_s = time.perf_counter()
        scores, chosen = None, None
        if plan.judge.read_out == "choice":
            chosen = {str(len(codes)): await inquiry.choice(len(codes))}
        else:
            scores = await inquiry.scores()
        seconds = time.perf_counter() - start_s
        counts = asdict(inquiry.counts)  # before other sizes are asked about
        if chosen is not None:
            others = [size for size in plan.sizes if 1 < size < len(codes)]
            chosen |= {str(size): await inquiry.choice(size) for size in others}
        verdicts = Verdicts(
            problem_id=problem.id,
            codes=codes_digest(rows),
            scores=scores,
            chosen=chosen,
            seconds=None,
            **counts,
        )
        return verdicts, seconds


@dataclass(slots=True)
class Counts:
    """How often the model was asked, and what came of it."""

    num_requests: int = 0
    num_unread: int = 0
    num_choices: int = 0
    num_undecided: int = 0


class Inquiry:
    """What is asked about the N programs of one problem; equal ones count as the first of them.

    "" is no program. The same list is not asked about twice.
    """

    def __init__(
        self,
        plan: JudgingPlan,
        questions: Questions,
        asker: Asker,
        problem: Prompt,
        codes_N: Sequence[str],
    ) -> None:
        self._judge: JudgeArgs = plan.judge
        self._seed = plan.seed
        self._questions = questions
        self._asker = asker
        self._problem = problem
        self._codes_N = codes_N
        self._winners: dict[frozenset[int], int] = {}
        self.counts = Counts()

    def _different(self, size: int) -> list[int]:
        """The first of each different program among the first `size`."""
        first = {code: index for index, code in reversed([*enumerate(self._codes_N[:size])])}
        return sorted(index for code, index in first.items() if code)

    async def scores(self) -> list[float | None]:
        """What is said of each program by itself: the mean of the votes that can be read."""
        different, votes = self._different(len(self._codes_N)), self._judge.votes
        if len(different) < 2:  # there is nothing to choose
            return [None] * len(self._codes_N)
        asked = [(index, vote) for index in different for vote in range(votes)]
        answers = await self._ask([([index], vote) for index, vote in asked])
        read: dict[str, list[float]] = {self._codes_N[index]: [] for index in different}
        for (index, _), answer in zip(asked, answers, strict=True):
            share = share_of(answer, self._judge)
            self.counts.num_unread += share is None
            if share is not None:
                read[self._codes_N[index]].append(share)
        means = {code: sum(shares) / len(shares) for code, shares in read.items() if shares}
        num_best = [*means.values()].count(max(means.values(), default=0.0))
        self.counts.num_choices += 1
        self.counts.num_undecided += num_best != 1
        return [means.get(code) for code in self._codes_N]

    async def choice(self, size: int) -> int:
        """The program that is left of the first `size`; the first where there is none."""
        different = self._different(size)
        seed = derive_seed(self._seed, "lists of a judge", self._problem.id, size)
        longest = self._judge.num_programs
        if not different:
            return 0
        return await knockout(different, longest, random.Random(seed), self._winners_of)

    async def _winners_of(self, lists: Sequence[Sequence[int]]) -> list[int]:
        """Whom the votes on each list name. Each vote begins the list with another program."""
        new = [listed for listed in lists if frozenset(listed) not in self._winners]
        votes = range(self._judge.votes)
        orders = [(_rotated(listed, vote), vote) for listed in new for vote in votes]
        answers = iter(await self._ask(orders))
        for listed in new:
            named = [self._named(_rotated(listed, vote), next(answers)) for vote in votes]
            winner, decided = named_by(listed, named)
            self._winners[frozenset(listed)] = winner
            self.counts.num_choices += 1
            self.counts.num_undecided += not decided
            self.counts.num_unread += named.count(None)
        return [self._winners[frozenset(listed)] for listed in lists]

    def _named(self, order: Sequence[int], answer: Answer | None) -> int | None:
        """The program whose letter an answer states."""
        lineup = Lineup(codes_N=tuple(self._codes_N[index] for index in order))
        text = None if answer is None else answer.text
        letter = None if text is None else read_verdict(text, lineup)
        return None if letter is None else order[lineup.letters_N.index(letter)]

    async def _ask(self, orders: Sequence[tuple[Sequence[int], int]]) -> list[Answer | None]:
        """The answers about lists of programs, each with the number of its vote."""
        self.counts.num_requests += len(orders)
        name = self._problem.id
        return await self._asker.ask(
            [
                self._questions.about(
                    self._problem,
                    [self._codes_N[index] for index in order],
                    f"{name}#judge-{'.'.join(map(str, order))}-{vote}",
                )
                for order, vote in orders
            ]
        )


def _rotated(listed: Sequence[int], by: int) -> list[int]:
    """The list from another place on.

    >>> _rotated([3, 1, 2], 4)
    [1, 2, 3]
    """
    start = by % len(listed)
    return [*listed[start:], *listed[:start]]
