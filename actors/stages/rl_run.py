"""One RL run: prompts, fleet, evaluation before, the loop, evaluation after, what stays on disk."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.cluster.cluster import starts_ray
from actors.engines.profiling import traces
from actors.groups.fleet import FleetSpec, RayFleet, policy_spec, start_fleet
from actors.groups.self_check import check_engines, check_mismatch, is_strict
from actors.groups.verifiers import make_verifier
from actors.observe.dashboard import provision
from actors.observe.watchers import make_watchers
from actors.plan.problems import (
    load_eval_sets,
    load_problems,
    make_sampler,
    probe_problems,
    source_of,
)
from actors.stages.evaluation import (
    MAIN,
    Evaluation,
    evaluate,
    evaluation_sampling,
    warn_of_shared,
)
from actors.stages.keeping import RunCheckpoints, read_ahead, read_states
from actors.stages.probe import Asking, Probe
from actors.stages.recipes import check_asks, labels_of, make_recipe, num_updates
from conf.errors import LostPolicyError, is_lost_policy
from conf.schema import AlgorithmConfig, Config, ModelConfig, RolloutConfig
from reward.model.written import check_written
from rl.base.best_effort import BestEffort
from rl.base.console import Console
from rl.base.files import replacing_directory
from rl.base.jsonlines import read_lines
from rl.loop import Buffer, LoopConfig, run_loop
from rl.metrics import FAULTS, read_metrics, source_metrics
from rl.recipes.recipe import History
from rl.report.live import LiveReport
from rl.run.before import read_before
from rl.run.checkpoint import Checkpoint
from rl.run.directory import RolloutFolder, RunDirectory
from rl.run.rollouts import rollout_rows, sample_rows, write_rollouts
from rl.run.summary import PolicyFigures, SetFigures, Watch
from rl.run.timeline import Timeline
from rl.step import Batch
from rl.types import SamplingConfig, StepReport


@dataclass(frozen=True, slots=True, kw_only=True)
class RlResult:
    """Figures of a run; shares unless the name says otherwise."""

    base: PolicyFigures
    final: PolicyFigures
    sets: Mapping[str, SetFigures]  # of `data.eval_sets`
    num_problems: int  # held-out ones, of the main set
    labels: str  # what it learned from
    num_steps: int  # the last step
    valid_rate_first: float | None  # None where no step was run
    valid_rate_last: float | None
    executed_for_reward: int  # programs
    executed_for_evaluation: int  # programs
    partition: list[dict[str, int]]
    start_s: float  # until every engine was ready
    watch: Watch


def training_sampling(
    algorithm: AlgorithmConfig, model: ModelConfig, rollout: RolloutConfig, seed: int
) -> SamplingConfig:
    """How the problems of a step are sampled."""
    return SamplingConfig(
        group_size=algorithm.group_size,
        max_tokens=model.max_completion_tokens,
        temperature=rollout.temperature,
        top_p=rollout.top_p,
        top_k=rollout.top_k,
        seed=seed,
    )


def loop_config(algorithm: AlgorithmConfig, first_step: int = 1) -> LoopConfig:
    """What the loop needs of the configuration."""
    return LoopConfig(
        num_steps=algorithm.num_steps,
        prompts_per_step=algorithm.prompts_per_step,
        max_staleness=algorithm.max_staleness,
        first_step=first_step,
        min_spread=algorithm.min_spread,
        num_refills=algorithm.num_refills,
    )


class RlRun:
    """One run in one directory; `report`, where there is one, shows it while it goes on."""

    def __init__(
        self,
        cfg: Config,
        directory: Path,
        console: Console,
        effort: BestEffort,
        report: LiveReport | None = None,
    ) -> None:
        self._cfg = cfg
        self._effort = effort
        self._run = RunDirectory(directory)
        self._console = console
        self._report = report
        sampling = training_sampling(cfg.algorithm, cfg.model, cfg.rollout, cfg.seed)
        self._recipe = make_recipe(cfg, sampling)
        self._sink = make_watchers(cfg, directory, effort)
        self._timeline = Timeline(self._run.timeline, effort)
        self._checkpoints = RunCheckpoints(
            cfg, self._run.checkpoints, self._timeline, console, self._sink.flush
        )
        self._verifier = make_verifier(cfg.sandbox, cfg.evaluation.test_timeout_s, workers=2)
        train, held_out = load_problems(cfg.data, cfg.seed)
        self._held_out = {MAIN: held_out, **load_eval_sets(cfg.data)}
        self._train, probed = probe_problems(
            cfg.probe, cfg.data, cfg.algorithm.prompts_per_step, train, held_out
        )
        warn_of_shared(self._train, self._held_out, console)
        check_asks(self._recipe, self._train, [p for one in self._held_out.values() for p in one])
        self._sources = source_of(cfg.data)
        self._sampler = make_sampler(cfg, self._train, self._sources)
        asking = Asking(problems=probed, sampling=sampling, by_tests=cfg.reward.by_tests)
        self._probe = Probe(cfg, asking, directory, console, effort)
        self._executed_for_evaluation = 0

    async def run(self) -> RlResult:
        """Run to the end and leave the final model in `hf/`."""
        cfg = self._cfg
        total_updates = num_updates(cfg.algorithm, self._recipe)
        specs = FleetSpec(
            rollout_model=cfg.model.path,
            reward=True,
            train=policy_spec(cfg, total_updates, reference=self._recipe.needs_reference),
        )
        self._console.stage(
            "engines",
            f"{cfg.rollout.engines} rollout, {cfg.reward.shards} reward, {cfg.policy.ranks} policy",
        )
        start_s = time.perf_counter()
        with self._verifier, self._sink:
            async with start_fleet(cfg, specs, f"{cfg.experiment}-{cfg.name}") as fleet:
                started_s = time.perf_counter() - start_s
                if starts_ray(cfg.ray):  # on a cluster that is the business of `launch/grafana.py`
                    with self._effort.trying("the dashboard"):
                        provision()
                return await self._train_and_evaluate(fleet, started_s)

    async def _train_and_evaluate(self, fleet: RayFleet, started_s: float) -> RlResult:
        """All steps; when the policy is lost they go on from the newest checkpoint."""
        while True:
            try:
                return await self._go_on(fleet, started_s)
            except (LostPolicyError, BaseExceptionGroup) as error:
                if not is_lost_policy(error):
                    raise
            await self._recover(fleet)

    async def _recover(self, fleet: RayFleet) -> None:
        """Rebuild the ranks, and go back to the newest checkpoint of this run."""
        while True:
            try:
                await fleet.policy.rebuild()
            except LostPolicyError:
                continue
            break
        self._checkpoints.go_back()
        self._executed_for_evaluation = 0
        newest = self._checkpoints.newest
        for line in read_lines(self._run.metrics):
            if line.value["step"] > (newest.step if newest else 0):  # its losses stay
                for name in line.fields.keys() & FAULTS:
                    fleet.note(name, int(line.value[name]))

    async def _go_on(self, fleet: RayFleet, started_s: float) -> RlResult:
        """From the newest checkpoint, or the initial policy, to the end."""
        cfg = self._cfg
        newest = self._checkpoints.newest
        await fleet.policy.check_shared(self._run.root, "output_dir")
        self._timeline.forget_after(newest.step if newest else 0)
        partition = await fleet.policy.partition_reports()
        base = {name: await self._before(fleet, newest, name) for name in self._held_out}
        first_step, history, ahead = await self._resume(fleet, newest)
        num_steps = cfg.algorithm.num_steps
        named = "" if cfg.recipe == "grpo" else f"recipe: {cfg.recipe}, "
        about = f"{num_steps} steps, {named}reward: {cfg.reward.kind}{self._judged()}"
        self._console.stage("rl", f"{about}; labels: {labels_of(self._recipe, cfg.reward)}")
        self._probe.announce()
        if first_step == 1 and self._probe.due(0):
            await self._take_probe(fleet, 0)
        loop_start_s = time.perf_counter()
        with self._console.steps(num_steps, first_step - 1):
            last_step = await self._take_steps(fleet, first_step, history, ahead)
        loop_s = time.perf_counter() - loop_start_s
        final: dict[str, PolicyFigures] = {}
        for name in self._held_out:
            self._console.stage("evaluation", f"{self._named(name)}, after")
            final[name] = self._figures(await self._evaluate(fleet, last_step, name))
        await self._save_model(fleet)
        steps = read_metrics(self._run.metrics)  # those before a resumption too
        return RlResult(
            base=base[MAIN],
            final=final[MAIN],
            sets={
                name: SetFigures(num_problems=len(problems), base=base[name], final=final[name])
                for name, problems in self._held_out.items()
                if name != MAIN
            },
            num_problems=len(self._held_out[MAIN]),
            labels=labels_of(self._recipe, cfg.reward),
            num_steps=last_step,
            valid_rate_first=steps[0].get("reward/valid_rate") if steps else None,
            valid_rate_last=steps[-1].get("reward/valid_rate") if steps else None,
            executed_for_reward=sum(int(step.get("reward/num_executed", 0)) for step in steps),
            executed_for_evaluation=self._executed_for_evaluation,
            partition=partition,
            start_s=started_s,
            watch=self._probe.summary(loop_s),
        )

    async def _save_model(self, fleet: RayFleet) -> None:
        """Leave the policy in `hf/`, read back before it appears; adapters in `adapter/` too."""
        with replacing_directory(self._run.hf) as staged:
            await fleet.policy.save_hf(staged)
            await asyncio.to_thread(check_written, staged)
        if self._cfg.policy.lora.rank:
            with replacing_directory(self._run.adapter) as staged:
                await fleet.policy.save_adapter(staged)

    async def _take_steps(
        self, fleet: RayFleet, first_step: int, history: History, ahead: Sequence[Batch]
    ) -> int:
        cfg = loop_config(self._cfg.algorithm, first_step)
        buffer = Buffer(cfg, ahead)
        steps = asyncio.ensure_future(
            run_loop(
                fleet,
                self._sampler,
                self._recipe,
                cfg,
                history=history,
                after=lambda report, batch: self._after_step(fleet, history, buffer, report, batch),
                buffer=buffer,
            )
        )
        try:
            return await asyncio.shield(steps)
        except asyncio.CancelledError:
            await self._checkpoints.save_at_stop(steps, fleet.policy, history)
            raise

    def _judged(self) -> str:
        """Which problems the judge of the run decides by which means, where that is a question."""
        reward = self._cfg.reward
        if reward.kind == "execution":
            return f" ({reward.execution})"
        if reward.kind == "sum":
            parts = (f"{one.weight:g} {name}" for name, one in (reward.components or {}).items())
            return f" ({', '.join(parts)}; {reward.combine})"
        if reward.kind != "hybrid":
            return ""
        num_tested = sum(prompt.tests is not None for prompt in self._train)
        return f" ({reward.execution} tests for {num_tested} of {len(self._train)} problems)"

    def _named(self, name: str) -> str:
        """A set of held-out problems, in words."""
        return f"{len(self._held_out[name])} held-out problems{f' of {name}' if name else ''}"

    async def _before(self, fleet: RayFleet, newest: Checkpoint | None, name: str) -> PolicyFigures:
        """What the initial policy can do: measured, or read back by a run that goes on."""
        about = f"{self._named(name)}, before"
        path = self._run.rollout_file(RolloutFolder.EVALUATION, 0, name)
        asked = self._held_out[name], self._cfg.evaluation.num_samples
        if newest is not None and (stored := read_before(path, *asked)) is not None:
            self._console.stage("evaluation", f"{about}: read from {path}")
            self._executed_for_evaluation += stored.num_executed
            return stored.figures
        self._console.stage("evaluation", about)
        return self._figures(await self._evaluate(fleet, 0, name))

    def _figures(self, evaluation: Evaluation) -> PolicyFigures:
        return dataclasses.replace(evaluation.figures, marks=self._recipe.mark(evaluation.groups_P))

    async def _resume(
        self, fleet: RayFleet, newest: Checkpoint | None
    ) -> tuple[int, History, list[Batch]]:
        """Load the checkpoint: the first step to run, the states, what was sampled ahead."""
        max_staleness = self._cfg.algorithm.max_staleness
        if newest is None:
            self._sink.forget_after(0)  # an earlier run may have ended before its first checkpoint
            self._probe.restore(0)
            return 1, History({0: self._recipe.start()}, max_staleness), []
        await fleet.policy.load_checkpoint(newest.directory)
        await fleet.policy.publish(newest.step)
        self._sink.forget_after(newest.step)
        self._probe.restore(newest.step)
        self._console.say(f"resumed from {newest.directory} after step {newest.step}")
        states = read_states(newest) or {newest.step: self._recipe.start()}
        history = History(states, max_staleness)
        weights = self._cfg.reward.weights
        ahead = read_ahead(newest, self._recipe, history, weights) if max_staleness else []
        return newest.step + 1, history, ahead

    async def _after_step(
        self, fleet: RayFleet, history: History, buffer: Buffer, report: StepReport, batch: Batch
    ) -> bool:
        cfg, step = self._cfg, report.step
        self._timeline.step(report, batch, published_s=time.time())
        found = source_metrics(batch.groups_P, self._sources)
        if cfg.evaluation.every and step % cfg.evaluation.every == 0:
            found |= await self._evaluate_all(fleet, step)
        if self._probe.due(step):
            found |= await self._take_probe(fleet, step)
        found |= {**fleet.faults(), **self._checkpoints.metrics()}
        report = dataclasses.replace(report, metrics={**report.metrics, **found})
        self._sink.write(report)
        self._console.step(report, cfg.algorithm.num_steps)
        await self._self_check(fleet, report)
        if step in (cfg.policy.profile_steps or ()):
            self._say_profiled(step)
        if batch.groups_P:
            self._keep_rollouts(step, batch)
        if self._report is not None:
            self._report.after_step(step)
        ends = self._checkpoints.stops or self._probe.stopped_at == step
        await self._checkpoints.after_step(fleet.policy, step, history, buffer, ends=ends)
        return ends

    def _say_profiled(self, step: int) -> None:
        """Where the traces of a step are, or that there are none."""
        if found := traces(self._run.profile, step):
            self._console.say(f"profile of step {step}: {', '.join(map(str, found))}")
        else:
            self._console.warn(f"no profile of step {step} was written; the log of a rank says why")

    async def _self_check(self, fleet: RayFleet, report: StepReport) -> None:
        """See that the engines still sample from the policy, as `rollout/mismatch_kl` tells."""
        cfg, step = self._cfg, report.step
        stale = cfg.algorithm.max_staleness > 0 or self._recipe.replays
        if is_strict(cfg.self_check, cfg.rollout, stale=stale):
            check_mismatch(cfg.self_check, cfg.model.dtype, step, report.metrics)
        if step == 1 and stale:
            await check_engines(cfg, fleet.rollout, fleet.policy, step, "the weights of step 1")

    async def _take_probe(self, fleet: RayFleet, step: int) -> dict[str, float]:
        with self._timeline.span("probe", step):
            return await self._probe.take(fleet, self._verifier, step)

    def _keep_rollouts(self, step: int, batch: Batch) -> None:
        cfg = self._cfg
        writes = (every := cfg.checkpoint.rollouts_every) > 0 and step % every == 0
        if not (writes or cfg.tracker_rows):
            return
        rows = list(rollout_rows(step, batch.groups_P, batch.lesson.advantages_PG))
        if cfg.tracker_rows:
            self._sink.show(sample_rows(rows, cfg.tracker_rows, cfg.seed))
        if writes:
            with self._effort.trying(f"{RolloutFolder.TRAINING}/"):
                path = self._run.rollout_file(RolloutFolder.TRAINING, step)
                write_rollouts(path, rows, batch.groups_P if cfg.checkpoint.rollout_tokens else ())

    async def _evaluate_all(self, fleet: RayFleet, step: int) -> dict[str, float]:
        """Metrics of the held-out problems; marks of the recipe are those of the main ones."""
        found: dict[str, float] = {}
        for name in self._held_out:
            evaluation = await self._evaluate(fleet, step, name)
            found[f"eval/{name}/pass@1" if name else "eval/pass@1"] = evaluation.pass_at_1
            if name == MAIN:
                found |= self._recipe.mark(evaluation.groups_P)
        return found

    async def _evaluate(self, fleet: RayFleet, step: int, name: str) -> Evaluation:
        cfg = self._cfg
        sampling = evaluation_sampling(cfg.evaluation, cfg.model, cfg.seed)
        with self._timeline.span("evaluate", step):
            asks = self._recipe.exam(self._held_out[name], sampling)
            evaluation = await evaluate(
                fleet,
                asks,
                self._verifier,
                step,
                follow_up=lambda bundle: self._recipe.examine(bundle, sampling),
            )
        self._executed_for_evaluation += evaluation.num_executed
        with self._effort.trying(f"{RolloutFolder.EVALUATION}/"):
            rows = list(rollout_rows(step, evaluation.groups_P, None))
            write_rollouts(self._run.rollout_file(RolloutFolder.EVALUATION, step, name), rows)
        return evaluation
