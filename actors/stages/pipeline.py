"""The whole loop: a policy and a reward model from nothing, each stage on the real engines.

    warm start -> RLVR rollouts + on-policy rollouts -> verdicts -> pairs -> reward model

Each stage writes one directory, named by what it depends on: its settings and the stages before it.
A finished stage is never run again; an interrupted one leaves nothing that looks finished.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.groups.fleet import FleetSpec, start_fleet
from actors.groups.verifiers import make_verifier
from actors.plan.problems import load_problems
from actors.stages.rl_run import RlRun, training_sampling
from actors.stages.rm_training import RmTraining, train_reward_model
from actors.stages.training import warm_start
from conf.errors import SaveError
from conf.schema import CheckpointConfig, Config, Device, RewardConfig
from reward.pairs.mining import MiningConfig, mine_pairs
from reward.pairs.near_miss import NearMissConfig, near_miss_pairs
from reward.pairs.pairs import LabelledCode, read_pairs, write_pairs
from reward.pairs.rollout_sources import RolloutFile, iter_codes
from rl.base.best_effort import BestEffort
from rl.base.console import Console
from rl.base.files import replace_directory, replace_file
from rl.loss import PairObjective
from rl.problems import minipy
from rl.run.directory import RolloutFolder, RunDirectory
from rl.types import (
    Ask,
    JudgedGroup,
    Prompt,
)

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Stage:
    """A finished stage."""

    key: str
    directory: Path
    figures: Figures
    seconds: float


class StageCache:
    """Stages by content: the same settings and inputs give the same directory."""

    def __init__(self, root: Path, console: Console) -> None:
        self._root = root
        self._console = console
        self.finished: dict[str, Stage] = {}

    async def run(
        self,
        name: str,
        about: str,
        settings: Mapping[str, Any],
        after: Sequence[Stage],
        build: Callable[[Path], Awaitable[Figures]],
    ) -> Stage:
        """Run `build` into a directory, unless that has been done."""
        identity = json.dumps([name, settings, [s.key for s in after]], sort_keys=True)
        key = hashlib.sha256(identity.encode()).hexdigest()[:16]
        directory = self._root / f"{name}-{key}"
        record = directory / "stage.json"
        if record.is_file():
            self._console.stage(name, f"finished before: {directory}")
        else:
            self._console.stage(name, about)
            partial = directory.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            start_s = time.perf_counter()
            figures = await build(partial)
            seconds = time.perf_counter() - start_s
            done = {"figures": figures, "seconds": seconds, "settings": dict(settings)}
            replace_file(partial / record.name, json.dumps(done, indent=1))
            replace_directory(partial, directory)
        done = json.loads(record.read_text(encoding="utf-8"))
        stage = Stage(key, directory, done["figures"], done["seconds"])
        self.finished[name] = stage
        shown = ", ".join(f"{k} {v:.3f}" for k, v in stage.figures.items())
        self._console.say(f"    {shown}  ({stage.seconds:.0f} s)")
        return stage


class WholeLoop:
    """Builds `policy` and `rm` for one configuration."""

    def __init__(self, cfg: Config, console: Console) -> None:
        self._cfg = cfg
        self._console = console
        self._cache = StageCache(Path(cfg.loop.cache_dir), console)
        self._engine_settings = {
            "seed": cfg.seed,
            "model": dataclasses.asdict(dataclasses.replace(cfg.model, path="")),
            "data": dataclasses.asdict(cfg.data),
        }

    async def run(self) -> tuple[Path, Path, dict[str, Stage]]:
        """Run all stages; returns the directories of policy and reward model."""
        warm = await self._warm_start()
        rlvr = await self._rlvr(warm) if self._cfg.loop.rlvr_steps else None
        sampled = await self._sample(warm)
        pairs = await self._pairs(rlvr, sampled)
        reward_model = await self._reward_model(warm, pairs)
        return warm.directory, reward_model.directory, self._cache.finished

    # --- the stages ------------------------------------------------------------------------------

    async def _warm_start(self) -> Stage:
        cfg, loop = self._cfg, self._cfg.loop
        settings = self._engine_settings | _fields(loop, "warm_")

        async def build(directory: Path) -> Figures:
            answers = list(
                minipy.warm_start_answers(loop.warm_examples, loop.warm_corrupt, cfg.seed)
            )
            return await warm_start(cfg, answers, directory, self._console)

        about = f"{loop.warm_steps} supervised steps on {loop.warm_examples} answers, ~3 min"
        return await self._cache.run("warm_start", about, settings, [], build)

    async def _rlvr(self, warm: Stage) -> Stage:
        cfg = self._cfg
        rlvr_cfg = dataclasses.replace(
            cfg,
            name=f"{cfg.name}-rlvr",  # its gauges are not those of the RL that follows
            trackers=(),
            model=dataclasses.replace(cfg.model, path=str(warm.directory)),
            reward=_by_tests(cfg.reward),
            algorithm=dataclasses.replace(
                cfg.algorithm, num_steps=cfg.loop.rlvr_steps, kl_coef=0.0, max_staleness=0
            ),
            checkpoint=CheckpointConfig(minutes=0, rollouts_every=1),
            probe=dataclasses.replace(cfg.probe, every=0),
            resume="never",
        )
        settings = self._engine_settings | {
            "algorithm": dataclasses.asdict(rlvr_cfg.algorithm),
            "lr": [cfg.policy.lr, cfg.policy.warmup_steps, cfg.policy.lr_schedule],
        }

        async def build(directory: Path) -> Figures:
            effort = BestEffort(self._console.warn)
            result = await RlRun(rlvr_cfg, directory, self._console, effort).run()
            if effort.missing:  # the rollouts are what the next stages learn from
                raise SaveError(f"{directory}: {', '.join(effort.missing)} cannot be written")
            shutil.rmtree(RunDirectory(directory).hf)
            figures = {
                "base_pass@1": result.base.pass_at_1,
                "final_pass@1": result.final.pass_at_1,
                "oracle_pass@8": result.base.oracle,
            }
            return {name: value for name, value in figures.items() if value is not None}

        about = f"{cfg.loop.rlvr_steps} steps with the execution reward, for their rollouts, ~4 min"
        return await self._cache.run("rlvr", about, settings, [warm], build)

    async def _sample(self, warm: Stage) -> Stage:
        """On-policy rollouts of the warm-start policy, on training and on held-out problems."""
        cfg, loop = self._cfg, self._cfg.loop
        settings = self._engine_settings | {
            "prompts": loop.rollout_prompts,
            "eval_prompts": loop.rm_eval_prompts,
            "group_size": cfg.algorithm.group_size,
        }

        async def build(directory: Path) -> Figures:
            train = minipy.make_prompts("train", loop.rollout_prompts, cfg.seed + 1)
            # Held-out combinations, but not the problems of the test split.
            held_out = minipy.make_prompts("eval", loop.rm_eval_prompts, cfg.seed + 1)
            engines = _sampling_engines(cfg.rollout.engines, cfg.placement.device)
            execution = dataclasses.replace(
                cfg,
                rollout=dataclasses.replace(cfg.rollout, engines=engines),
                reward=_by_tests(cfg.reward),
            )
            specs = FleetSpec(rollout_model=str(warm.directory), reward=True)
            async with start_fleet(execution, specs, "sample") as fleet:
                for name, prompts in (("train", train), ("held_out", held_out)):
                    labelled = await self._label(fleet, prompts)
                    _write_labelled(directory / f"{name}.json", labelled)
            passed = [code.passed for code in labelled]
            return {"num_programs": float(len(passed)), "pass_rate": sum(passed) / len(passed)}

        about = f"{loop.rollout_prompts} problems x {cfg.algorithm.group_size} answers, ~2 min"
        return await self._cache.run("sample", about, settings, [warm], build)

    async def _label(self, fleet: Any, prompts: Sequence[Prompt]) -> list[LabelledCode]:  # noqa: ANN401
        cfg = self._cfg
        sampling = training_sampling(cfg.algorithm, cfg.model, cfg.rollout, cfg.seed)
        sampling = dataclasses.replace(sampling, purpose="pairs")
        asks = [Ask.code(prompt, sampling) for prompt in prompts]
        labelled: list[LabelledCode] = []
        async for group in fleet.rollout.generate(asks, 0):
            (judged,) = await fleet.reward.judge([group])
            labelled += _labelled(judged)
        return labelled

    async def _pairs(self, rlvr: Stage | None, sampled: Stage) -> Stage:
        cfg, loop = self._cfg, self._cfg.loop
        settings = {
            "seed": cfg.seed,
            "pairs": loop.pairs_per_prompt,
            "mutants": loop.mutants_per_prompt,
            "swaps": loop.swaps_per_prompt,
        }

        async def build(directory: Path) -> Figures:
            prompts = {p.id: p for p in self._train_prompts()}
            labelled = _read_labelled(sampled.directory / "train.json")
            if rlvr is not None:
                labelled += _read_trajectory(RunDirectory(rlvr.directory))
            mining = MiningConfig(per_prompt=loop.pairs_per_prompt, seed=cfg.seed)
            mined = mine_pairs(labelled, mining)
            with make_verifier(cfg.sandbox, cfg.evaluation.test_timeout_s, workers=2) as verifier:
                harder = await asyncio.to_thread(
                    near_miss_pairs,
                    labelled,
                    prompts,
                    verifier,
                    NearMissConfig(
                        mutants_per_prompt=loop.mutants_per_prompt,
                        swaps_per_prompt=loop.swaps_per_prompt,
                        seed=cfg.seed,
                    ),
                )
            write_pairs(directory / "train.parquet", [*mined, *harder])
            held_out = mine_pairs(_read_labelled(sampled.directory / "held_out.json"), mining)
            write_pairs(directory / "held_out.parquet", held_out)
            return {
                "num_mined": float(len(mined)),
                "num_near_miss": float(len(harder)),
                "num_held_out": float(len(held_out)),
            }

        after = [sampled] if rlvr is None else [rlvr, sampled]
        about = "verified preference pairs, ~1 min"
        return await self._cache.run("pairs", about, settings, after, build)

    async def _reward_model(self, warm: Stage, pairs: Stage) -> Stage:
        cfg, loop = self._cfg, self._cfg.loop
        settings = (
            self._engine_settings
            | _fields(loop, "rm_")
            | {
                "adapter": cfg.reward.adapter,
                "max_tokens": cfg.reward.max_tokens,
            }
        )

        async def build(directory: Path) -> Figures:
            job = RmTraining(
                model=str(warm.directory),
                directory=directory,
                train=tuple(read_pairs(pairs.directory / "train.parquet")),
                validation=tuple(read_pairs(pairs.directory / "held_out.parquet")),
                objective=PairObjective(centring=loop.rm_centring),
                lr=loop.rm_lr,
                epochs=loop.rm_epochs,
                batch_pairs=loop.rm_batch,
                settings=settings,
            )
            result = await train_reward_model(cfg, job, self._console)
            assert result.validation is not None, "every problem of the test split has pairs"
            return {**result.training, "rm_pair_accuracy": result.validation.accuracy}

        about = f"Bradley-Terry, {loop.rm_epochs} epochs, ~3 min"
        return await self._cache.run("reward_model", about, settings, [warm, pairs], build)

    def _train_prompts(self) -> list[Prompt]:
        """Every training problem that a rollout may come from."""
        sampled = minipy.make_prompts("train", self._cfg.loop.rollout_prompts, self._cfg.seed + 1)
        return [*load_problems(self._cfg.data, self._cfg.seed)[0], *sampled]


def _by_tests(reward: RewardConfig) -> RewardConfig:
    """The judges of the stages before there is a reward model: right or wrong, by execution."""
    return dataclasses.replace(reward, kind="execution", execution="binary")


def _sampling_engines(engines: int, device: Device) -> int:
    """Engines of a stage that trains nothing: on CPUs, one more of each in the policy's place."""
    return engines * (2 if device == "cpu" else 1)


def _fields(config: object, prefix: str) -> dict[str, Any]:
    """The fields of a stage, by the prefix of their names."""
    values = dataclasses.asdict(config)  # pyright: ignore[reportArgumentType]  # a dataclass
    return {name: value for name, value in values.items() if name.startswith(prefix)}


def _labelled(judged: JudgedGroup) -> list[LabelledCode]:
    """The judged programs of one problem; execution has scored them 1 or 0."""
    prompt = judged.group.prompt
    return [
        LabelledCode(
            prompt_id=prompt.id,
            question=prompt.question,
            code=extraction.code,
            passed=score.passed,
            tests_passed=None,
        )
        for extraction, score in zip(judged.extractions_G, judged.scores_G, strict=True)
        if extraction.valid and not score.unjudged
    ]


def _read_trajectory(run: RunDirectory) -> list[LabelledCode]:
    """The valid programs of an execution-reward run."""
    return [
        code.labelled()
        for file in sorted(run.rollouts(RolloutFolder.TRAINING).glob("*.parquet"))
        for code in iter_codes(RolloutFile(file, "rlvr"))
        if code.verdict is None or code.verdict.is_label
    ]


def _write_labelled(path: Path, labelled: Sequence[LabelledCode]) -> None:
    replace_file(path, json.dumps([dataclasses.asdict(code) for code in labelled]))


def _read_labelled(path: Path) -> list[LabelledCode]:
    return [LabelledCode(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
