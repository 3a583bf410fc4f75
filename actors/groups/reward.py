"""Reward actors: shards that judge groups, each with its own engine (or its own verifier).

Every shard holds the whole reward model (tensor-parallel inside, if asked for); groups are dealt to
the shard with the fewest groups in flight, so a score never depends on the number of shards.
Extraction, gating, de-duplication and the score cache run in the shard's process, beside the
engine.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar, cast

import ray

from actors.cluster.deadlines import LOST, SharedDeadline, all_of, wait_for
from actors.cluster.gauges import engine_gauges
from actors.engines.specs import EngineSpec
from actors.groups.handles import JudgeHandle, RewardModelHandle
from actors.groups.supervision import Seat, Supervisor
from actors.groups.verifiers import make_verifier
from conf.errors import ProjectError
from conf.imports import load_function
from conf.schema import ExecutionConfig, RewardConfig
from reward.code.extract import ExtractConfig
from reward.judges.bundle import BundleJudge
from reward.judges.judge import (
    Answers,
    ExecutionJudge,
    HybridJudge,
    Judge,
    Judged,
    RewardModelJudge,
)
from reward.judges.scorers import make_scorer
from reward.judges.served import ServedJudge
from reward.judges.summed import MEASURES, Component, MeasureJudge, SumJudge
from reward.model.golden import GoldenScore, compare_with_golden, find_golden_scores
from reward.model.text_path import TextPath
from rl.types import JudgedGroup, Prompt, PromptGroup, Score, Task

T = TypeVar("T")


def extract_config(cfg: RewardConfig) -> ExtractConfig:
    """The part of the configuration that extraction reads."""
    return ExtractConfig(
        rule=cfg.rule,
        rule_args=cfg.rule_args,
        ignore_think=cfg.ignore_think,
        trivial_is_valid=cfg.trivial_is_valid,
    )


def execution_judge(cfg: RewardConfig, sandbox: ExecutionConfig) -> ExecutionJudge:
    """The judge that runs tests, with a sandbox of its own."""
    # One failed test settles a binary reward; a pass rate needs them all.
    early_stop = cfg.early_stop and cfg.execution == "binary"
    verifier = make_verifier(sandbox, cfg.test_timeout_s, early_stop=early_stop)
    return ExecutionJudge(verifier, extract_config(cfg), cfg.execution)


def bundle_judge(programs: Judge, cfg: RewardConfig, sandbox: ExecutionConfig) -> BundleJudge:
    """The judge of all tasks; tests and traces are run in a sandbox of its own."""
    return BundleJudge(programs, lambda: make_verifier(sandbox, cfg.test_timeout_s))


class RewardModelActor:
    """One shard of the reward-model group: a vLLM pooling engine and the judge around it.

    In a hybrid run it executes programs as well, in a sandbox of its own.
    """

    def __init__(
        self,
        name: str,
        spec: EngineSpec,
        tags: Mapping[str, str],
        cfg: RewardConfig,
        sandbox: ExecutionConfig,
    ) -> None:
        from actors.engines.vllm_engine import EngineLoop  # noqa: PLC0415 - never in the driver

        self._name = name
        text_path = TextPath.load(spec.model, cfg.adapter, cfg.max_tokens, system=cfg.system)
        self._loop = EngineLoop(spec, name, engine_gauges(tags, name, spec.model))
        self._reward_model = RewardModelJudge(
            self._loop.score_all,
            text_path,
            extract_config(cfg),
            model_judge(cfg).shaping,
            cfg.cache_size,
            reads=cfg.reads,
        )
        programs = judge_of(cfg, sandbox, self._reward_model)
        self._judge = bundle_judge(programs, cfg, sandbox)
        self._check_golden_scores(spec.model, cfg, text_path)

    def ready(self) -> str:
        """Answer once the engine has scored."""
        self._reward_model.score_problem("ready", ["pass"])
        return self._name

    def judge(
        self, bundle: Sequence[Answers], earlier_codes: Sequence[str]
    ) -> tuple[list[Judged], float]:
        """Judge the groups of one problem; with the time at which the last score was known."""
        return self._judge.judge(bundle, earlier_codes), time.time()

    def judge_many(
        self, groups: Sequence[tuple[Prompt, Sequence[str]]]
    ) -> list[Judged | ProjectError]:
        """Judge several groups in one call; what one fails with is its own result (serving)."""
        return self._reward_model.judge_many(groups)

    def score_problems(
        self, problems: Sequence[tuple[str, Sequence[str | None]]]
    ) -> list[tuple[Score, ...]]:
        """Raw scores of given programs for several problems: no extraction, no gate."""
        return self._reward_model.score_problems(problems)

    def sleep(self) -> None:
        """Give the device to another group (colocated placement)."""
        self._loop.sleep().result()

    def wake(self) -> None:
        """Take the device back."""
        self._loop.wake().result()

    def _check_golden_scores(self, model: str, cfg: RewardConfig, text_path: TextPath) -> None:
        """Compare with scores that plain transformers computed, if there are some."""
        file = find_golden_scores(model, cfg.golden_scores, "reward.golden_scores")
        if file is None:
            return

        def score(probes: Sequence[GoldenScore]) -> list[float]:
            rows = [text_path.encode(probe.question, probe.code).token_ids for probe in probes]
            return self._loop.score_all(rows).result()

        compare_with_golden(file, cfg.dtype, score)


def served_judge(cfg: RewardConfig, _: ExecutionConfig) -> ServedJudge:
    """The judge that asks servers."""
    return ServedJudge(make_scorer(cfg), extract_config(cfg), cfg.shaping)


# Judges without a model, by `reward.kind`, which may also be the path of such a function.
JUDGES: dict[str, Callable[[RewardConfig, ExecutionConfig], Judge]] = {
    "execution": execution_judge,
    "generative": served_judge,
    "remote": served_judge,
}


def judge_of(
    cfg: RewardConfig,
    sandbox: ExecutionConfig,
    reward_model: RewardModelJudge | None = None,
    key: str = "reward.kind",
) -> Judge:
    """The judge of programs that the configuration names; `reward_model` is that of the shard."""
    if cfg.kind == "sum":
        return _sum_judge(cfg, sandbox, reward_model)
    if reward_model is not None and cfg.kind in ("rm", "hybrid"):
        if cfg.kind == "rm":
            return reward_model
        return HybridJudge(reward_model, execution_judge(cfg, sandbox))
    make = JUDGES.get(cfg.kind) or load_function(cfg.kind, key, cfg.args, "reward.kind")
    return make(cfg, sandbox)


def _sum_judge(
    cfg: RewardConfig, sandbox: ExecutionConfig, reward_model: RewardModelJudge | None
) -> SumJudge:
    components: dict[str, Component] = {}
    for name, alone in cfg.judges.items():
        one = (cfg.components or {})[name]
        if one.judge in MEASURES:
            judge: Judge = MeasureJudge(MEASURES[one.judge](one.length), extract_config(cfg))
        else:
            key = f"reward.components.{name}.judge"
            judge = judge_of(alone, sandbox, reward_model, key)
        components[name] = Component(judge, one.weight)
    return SumJudge(components, extract_config(cfg), cfg.disagreement_coef)


def model_judge(cfg: RewardConfig) -> RewardConfig:
    """The settings of the judge that is the shard's reward model."""
    return next((one for one in cfg.judges.values() if one.kind == "rm"), cfg)


class JudgeActor:
    """One shard of a reward without a model, such as the problem's own tests."""

    def __init__(self, name: str, cfg: RewardConfig, sandbox: ExecutionConfig) -> None:
        self._name = name
        self._judge = bundle_judge(judge_of(cfg, sandbox), cfg, sandbox)

    def ready(self) -> str:
        """Answer once the shard can judge."""
        return self._name

    def judge(
        self, bundle: Sequence[Answers], earlier_codes: Sequence[str]
    ) -> tuple[list[Judged], float]:
        """Judge the groups of one problem; with the time at which it was done."""
        return self._judge.judge(bundle, earlier_codes), time.time()


class RewardGroup:
    """The reward group as the driver sees it.

    A shard holds no state but a cache: what was on one that is lost is asked again, of another
    where there is one, while the lost one starts anew.
    """

    def __init__(
        self,
        seats: Sequence[Seat[JudgeHandle]],
        deadline_s: float,
        supervisor: Supervisor,
    ) -> None:
        self.seats = tuple(seats)
        self._waits = [SharedDeadline(deadline_s) for _ in self.seats]
        self._supervisor = supervisor

    async def start(self) -> None:
        """Wait until every shard works."""
        await all_of(map(self._admit, self.seats))

    async def judge(
        self, groups: Sequence[PromptGroup], earlier: Sequence[JudgedGroup] = ()
    ) -> tuple[JudgedGroup, ...]:
        """Judge the groups of one problem; `earlier` ones were judged before."""
        programs = [group for group in earlier if group.task is Task.CODE]
        earlier_codes = [e.code for group in programs for e in group.extractions_G]
        bundle = [Answers.of(group) for group in groups]
        found, shard, scored_s = await self.judge_answers(bundle, earlier_codes)
        return tuple(
            JudgedGroup(
                group=group,
                extractions_G=judged.extractions_G,
                scores_G=judged.scores_G,
                rewards_G=judged.rewards_G,
                judge=judged.judge,
                actor=f"reward-{shard}",
                scored_s=scored_s,
                num_executed=judged.num_executed,
                evidence=judged.evidence,
                parts=judged.parts,
            )
            for group, judged in zip(groups, found, strict=True)
        )

    async def judge_answers(
        self, bundle: Sequence[Answers], earlier_codes: Sequence[str] = ()
    ) -> tuple[list[Judged], int, float]:
        """Judge answers about one problem on the shard with the fewest problems in flight.

        Returns the judgements, the shard, and the time at which the last score was known.
        """
        (judged, scored_s), shard = await self._ask(
            lambda handle: handle.judge.remote(bundle, earlier_codes),
            f"the judgement of problem {bundle[0].problem.id}",
        )
        return judged, shard, scored_s

    async def score_problem(self, question: str, codes: Sequence[str | None]) -> tuple[Score, ...]:
        """Raw scores of given programs for one problem."""
        return (await self.score_problems([(question, codes)]))[0]

    async def score_problems(
        self, problems: Sequence[tuple[str, Sequence[str | None]]]
    ) -> list[tuple[Score, ...]]:
        """Raw scores of given programs for several problems, by the shard with the least in flight.

        They go to the engine as one batch, and are answered together: one deadline for all.
        """
        scores, _ = await self._ask(
            lambda handle: cast("RewardModelHandle", handle).score_problems.remote(problems),
            "scores",
        )
        return scores

    async def _ask(self, ask: Callable[[JudgeHandle], Awaitable[T]], what: str) -> tuple[T, int]:
        """The answer of the shard with the fewest calls in flight, and which shard that is."""
        shard = self._least_busy()
        seat, wait = self.seats[shard], self._waits[shard]
        await self._admit(seat)
        handle = seat.handle
        try:
            return await wait.wait_for(ask(handle), f"{what} by {seat.name}"), shard
        except LOST as why:
            seat.lose(handle, why)
        self._supervisor.note("fault/asked_again")
        _, answer = await all_of((self._admit(seat), self._ask(ask, what)))
        return cast("tuple[T, int]", answer)

    def _least_busy(self) -> int:
        """Of the shards that work; of all, while none does."""
        working = [shard for shard, seat in enumerate(self.seats) if seat.admitted]
        return min(
            working or range(len(self.seats)), key=lambda shard: self._waits[shard].num_waiting
        )

    async def _admit(self, seat: Seat[JudgeHandle]) -> None:
        async def start(handle: JudgeHandle) -> None:
            what = f"the start of {seat.name}"
            await wait_for(handle.ready.remote(), self._supervisor.start_deadline_s, what)

        await self._supervisor.admit(seat, start)


RemoteRewardModelActor = ray.remote(RewardModelActor)
RemoteJudgeActor = ray.remote(JudgeActor)
