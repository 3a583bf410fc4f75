"""Evaluate a policy on a benchmark: rollout actors sample, the driver executes, figures at the end.

Every group is verified while others are still generated, and its samples are on the disk before
it counts. An interrupted evaluation goes on after its last finished group; because a seed depends
on the problem and not on what was sampled before, it ends with the figures of an uninterrupted one.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.cluster.cluster import cluster
from actors.cluster.placement import Needs
from actors.cluster.signals import run_until_stopped
from actors.groups.fleet import Specs, start_fleet
from actors.groups.verifiers import check_sandbox, make_verifier
from actors.plan.checks import preflight
from actors.plan.prompt_checks import Asking, Split, check_splits
from actors.plan.text_checks import check_policy_texts
from conf.errors import ProjectError, first_cause
from conf.schema import Config
from reward.code.extract import ExtractConfig, extract
from reward.verify.execute import Verifying, programs_of, require_decided, verify_persistently
from reward.verify.verdict import Judgement
from rl.base.console import Console
from rl.base.versions import installed_versions
from rl.interfaces import RolloutFleet
from rl.run.benchmark import (
    BenchmarkFigures,
    benchmark_figures,
    count_rows,
    figure_rows,
    figures_json,
    part_rows,
)
from rl.run.evaluation_store import (
    Outcome,
    SampleRow,
    SampleStore,
    Settings,
    outcomes_of,
    problem_digest,
    replace_file,
)
from rl.types import Prompt, RolloutGroup, SamplingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """What is evaluated, and how."""

    name: str
    problems: tuple[Prompt, ...]
    sampling: SamplingConfig
    extraction: ExtractConfig
    ks: tuple[int, ...]
    test_timeout_s: float  # wall clock of one test
    test_workers: int  # programs that run at once
    settings: Settings  # whatever a sample and its verdict depend on, but for the problem
    resume: bool


Outcomes = dict[str, tuple[Outcome, ...]]  # by problem id


def run_benchmark(cfg: Config, benchmark: Benchmark, output: Path) -> None:
    """Evaluate, write `output` and show its figures; samples are kept beside it.

    Raises:
        UserError: before anything is started or written, when the prompts do not fit the model,
            the machine cannot hold the engines, or the samples on disk are of other settings.
        SandboxError: when a program cannot be run at all; that is never counted as a failure.
    """
    start_s = time.perf_counter()
    store = SampleStore(output, benchmark.sampling.group_size)
    outcomes: Outcomes = {}
    if benchmark.resume:
        outcomes = store.finished(benchmark.settings, benchmark.problems)
    num_resumed = len(outcomes)
    missing = [prompt for prompt in benchmark.problems if prompt.id not in outcomes]
    if missing:
        check_prompts(cfg, missing)
        preflight(cfg, Needs(rollout=cfg.rollout.engines))
        check_sandbox(cfg.sandbox)
    store.begin(benchmark.settings, anew=not benchmark.resume)
    console = Console()
    if num_resumed:
        console.say(f"resumed: {num_resumed} of {len(benchmark.problems)} problems are finished")
    run = BenchmarkRun(benchmark, store, console, outcomes)
    if missing:
        _sample(cfg, run, missing, console)
    figures = benchmark_figures(benchmark.problems, outcomes, benchmark.ks, benchmark.sampling.seed)
    result = {
        "benchmark": benchmark.name,
        "model": cfg.model.path,
        "num_samples": benchmark.sampling.group_size,
        **figures_json(figures, benchmark.ks),
        "settings": dict(benchmark.settings),
        "versions": installed_versions(),
        "wall_s": time.perf_counter() - start_s,
        "tokens_per_s": run.tokens_per_s,
        "num_resumed": num_resumed,
    }
    replace_file(output, json.dumps(result, indent=2) + "\n")
    show_figures(console, benchmark, figures)
    console.say("")
    console.say(f"figures   {output}")
    console.say(f"samples   {store.path}")


def check_prompts(
    cfg: Config, prompts_P: Sequence[Prompt], key: str = "model", template: str = "chat_template"
) -> None:
    """Refuse prompts that the policy cannot be asked, before an engine starts.

    `key` and `template` are what the command calls the model and its chat template.

    Raises:
        UserError: for a tokenizer or a template that does not say what it is given, naming the
            problems whose turns it refuses, or those that are too long.
    """
    check_policy_texts(cfg, {}, key, template)
    asking = Asking(
        model=cfg.model.path,
        chat_template=cfg.model.chat_template,
        max_prompt_tokens=cfg.model.max_prompt_tokens,
        model_key=key,
        template_key=template,
        limit_key="max_prompt_tokens",
    )
    check_splits(asking, [Split(key="max_prompt_tokens", prompts=prompts_P)])


def _sample(cfg: Config, run: BenchmarkRun, missing: Sequence[Prompt], console: Console) -> None:
    """Start the engines, sample and verify what is missing, end the engines."""
    about = f"{len(missing)} problems x {run.benchmark.sampling.group_size} answers"
    console.stage(
        "evaluation", f"{run.benchmark.name}: {about}, {cfg.model.path}, {cfg.placement.kind}"
    )

    async def work() -> None:
        async with start_fleet(cfg, Specs(rollout_model=cfg.model.path), "evaluate") as fleet:
            await run.sample(fleet.rollout, verifier, missing)

    try:
        with (
            cluster(cfg, f"evaluate-{run.samples.stem}"),
            make_verifier(
                cfg.sandbox, run.benchmark.test_timeout_s, run.benchmark.test_workers
            ) as verifier,
        ):
            run_until_stopped(work())
    except (BaseExceptionGroup, ProjectError) as error:
        cause = first_cause(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(cause, ProjectError) and run.samples.exists():
            console.say(f"stopped; the same command goes on from {run.samples}")
        raise cause from error


class BenchmarkRun:
    """Samples and verifies groups, keeps every sample, and counts."""

    def __init__(
        self, benchmark: Benchmark, store: SampleStore, console: Console, outcomes: Outcomes
    ) -> None:
        self.benchmark = benchmark
        self.samples = store.path
        self._store = store
        self._console = console
        self._outcomes = outcomes  # grows with each finished group
        self._num_right = sum(o.passed for group in outcomes.values() for o in group)
        self._num_tokens = 0
        self._sampling_s = 0.0

    @property
    def tokens_per_s(self) -> float | None:
        """Sampled tokens per second of sampling; None when nothing was sampled."""
        return self._num_tokens / self._sampling_s if self._sampling_s else None

    async def sample(
        self, rollout: RolloutFleet, verifier: Verifying, problems: Sequence[Prompt]
    ) -> None:
        """Sample these problems; each group is verified as soon as it is complete."""
        slots = asyncio.Semaphore(2 * self.benchmark.test_workers)
        start_s = time.perf_counter()
        total = len(self.benchmark.problems)
        with self._console.steps(total, done=total - len(problems), what="groups"):
            async with asyncio.TaskGroup() as judging:
                groups = rollout.generate(problems, self.benchmark.sampling, 0)
                async for group in groups:
                    self._sampling_s = time.perf_counter() - start_s
                    self._num_tokens += sum(len(c.token_ids) for c in group.completions_G)
                    judging.create_task(self._judge(group, verifier, slots))

    async def _judge(
        self, group: RolloutGroup, verifier: Verifying, slots: asyncio.Semaphore
    ) -> None:
        async with slots:
            rows, judgements = await asyncio.to_thread(
                judge_group, group, self.benchmark.extraction, verifier
            )
        self._store.append(rows)
        require_decided(judgements, f"problem {group.prompt.id}")
        self._count(group.prompt.id, rows)

    def _count(self, problem_id: str, rows: Sequence[SampleRow]) -> None:
        self._outcomes[problem_id] = outcomes_of(rows)
        self._num_right += sum(row.outcome.passed for row in rows)
        done, total = len(self._outcomes), len(self.benchmark.problems)
        share = self._num_right / (done * self.benchmark.sampling.group_size)
        self._console.advance()
        self._console.note(f"pass@1 {share:.3f}")
        tenth = 10 * done // total > 10 * (done - 1) // total
        if tenth and not self._console.live:
            self._console.say(f"groups {done:>5}/{total}  pass@1 {share:.3f}")


def judge_group(
    group: RolloutGroup, extraction: ExtractConfig, verifier: Verifying
) -> tuple[list[SampleRow], list[Judgement]]:
    """Extract the programs of a group, run them, and make the rows that are kept."""
    prompt = group.prompt
    extractions_G = [extract(completion.text, extraction) for completion in group.completions_G]
    judgements_G = verify_persistently(verifier, programs_of(prompt, extractions_G))
    turns = [{"role": m.role, "content": m.content} for m in prompt.messages]
    digest = problem_digest(prompt)
    rows = [
        SampleRow(
            problem_id=prompt.id,
            problem=digest,
            sample_idx=completion.sample_idx,
            prompt=turns,
            text=completion.text,
            code=extracted.code,
            reason=extracted.reason.value,
            verdict=judgement.verdict.value,
            num_passed=judgement.num_passed,
            num_tests=judgement.num_tests,
            seconds=judgement.seconds,
            detail=judgement.detail if extracted.valid else extracted.detail,
            finish=completion.finish.value,
            num_tokens=len(completion.token_ids),
        )
        for completion, extracted, judgement in zip(
            group.completions_G, extractions_G, judgements_G, strict=True
        )
    ]
    return rows, judgements_G


def show_figures(console: Console, benchmark: Benchmark, figures: BenchmarkFigures) -> None:
    """The tables at the end."""
    num_samples, ks = benchmark.sampling.group_size, benchmark.ks
    title = f"{benchmark.name}, {len(benchmark.problems)} problems x {num_samples} samples"
    interval = "95 % interval over problems"
    rows = figure_rows(figures.total, num_samples, ks)
    console.table(title, rows, ("figure", "value", interval))
    columns = ("problems", *(f"pass@{k}" for k in ks))
    for name, parts in (("difficulty", figures.by_difficulty), ("source", figures.by_source)):
        if len(parts) > 1:
            console.table(f"by {name}", part_rows(parts, ks), (name, *columns))
    for name, counts in (
        ("verdict", figures.verdicts),
        ("extraction", figures.reasons),
        ("finish", figures.finishes),
    ):
        console.table("", count_rows(counts), (name, "samples", "share"))
