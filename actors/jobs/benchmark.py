"""Evaluate a policy on a benchmark: rollout actors sample, the driver executes, figures at the end.

Every group is verified while others are still generated, and its samples are on the disk before
it counts. An interrupted evaluation goes on after its last finished group; because a seed depends
on the problem and not on what was sampled before, it ends with the figures of an uninterrupted one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from actors.cluster.bundles import Needs
from actors.cluster.session import kept, session
from actors.groups.fleet import FleetSpec, start_fleet
from actors.groups.verifiers import check_sandbox, make_verifier
from actors.plan.checks.preflight import preflight
from actors.plan.checks.prompt_checks import check_prompts
from actors.plan.evaluation import num_cores
from conf.commands.benchmark import EvaluationArgs
from conf.schema import Config, ModelConfig
from reward.code.extract import ExtractConfig, extract
from reward.model.files import is_local
from reward.verify.execute import Verifying, programs_of, require_decided, verify_persistently
from reward.verify.verdict import ProgramResult
from rl.base.console import Console
from rl.base.files import replace_json
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
)
from rl.text.hub_files import model_digest
from rl.types import (
    Ask,
    Prompt,
    PromptGroup,
    SamplingConfig,
)


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


def plan_benchmark(
    args: EvaluationArgs, model: ModelConfig, problems: tuple[Prompt, ...], ks: tuple[int, ...]
) -> Benchmark:
    """What is evaluated and how, from arguments that were checked."""
    template = model.chat_template
    return Benchmark(
        name=args.benchmark,
        problems=problems,
        sampling=SamplingConfig(
            group_size=args.num_samples,
            max_tokens=model.max_completion_tokens,
            temperature=args.temperature,
            top_p=args.top_p,
            top_k=args.top_k,
            seed=args.seed,
            purpose="evaluation",
        ),
        # The clock is a second bound of extraction, beside its count of work; a figure must not
        # depend on how busy the machine is.
        extraction=ExtractConfig(rule=args.rule, deadline_s=60.0),
        ks=ks,
        test_timeout_s=args.test_timeout_s,
        test_workers=args.test_workers or max(1, num_cores() // 2),
        settings={
            "benchmark": args.benchmark,
            "model": model_digest(Path(args.model)) if is_local(args.model) else args.model,
            "chat_template": template and blake2b(template.encode(), digest_size=8).hexdigest(),
            "dtype": model.dtype,
            "num_samples": args.num_samples,
            "temperature": args.temperature,
            "top_p": args.top_p,
            "top_k": args.top_k,
            "max_tokens": model.max_completion_tokens,
            "max_prompt_tokens": model.max_prompt_tokens,
            "seed": args.seed,
            "rule": args.rule,
            "test_timeout_s": args.test_timeout_s,
            "protocol": args.protocol,
            "tolerance": args.tolerance,
        },
        resume=args.resume == "auto",
    )


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
        check_prompts(cfg.model, missing)
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
    replace_json(output, result)
    show_figures(console, benchmark, figures)
    console.say("")
    console.say(f"figures   {output}")
    console.say(f"samples   {store.path}")


def _sample(cfg: Config, run: BenchmarkRun, missing: Sequence[Prompt], console: Console) -> None:
    """Start the engines, sample and verify what is missing, end the engines."""
    about = f"{len(missing)} problems x {run.benchmark.sampling.group_size} answers"
    console.stage(
        "evaluation", f"{run.benchmark.name}: {about}, {cfg.model.path}, {cfg.placement.kind}"
    )

    async def work() -> None:
        async with start_fleet(cfg, FleetSpec(rollout_model=cfg.model.path), "evaluate") as fleet:
            await run.sample(fleet.rollout, verifier, missing)

    with (
        kept(run.samples, console),
        session(cfg.ray, f"evaluate-{run.samples.stem}") as run_in_session,
        make_verifier(
            cfg.sandbox, run.benchmark.test_timeout_s, run.benchmark.test_workers
        ) as verifier,
    ):
        run_in_session(work())


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
                asks = [Ask.code(problem, self.benchmark.sampling) for problem in problems]
                groups = rollout.generate(asks, 0)
                async for group in groups:
                    self._sampling_s = time.perf_counter() - start_s
                    self._num_tokens += sum(len(c.token_ids) for c in group.completions_G)
                    judging.create_task(self._judge(group, verifier, slots))

    async def _judge(
        self, group: PromptGroup, verifier: Verifying, slots: asyncio.Semaphore
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
    group: PromptGroup, extraction: ExtractConfig, verifier: Verifying
) -> tuple[list[SampleRow], list[ProgramResult]]:
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
            verdict=judgement.verdict,
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
