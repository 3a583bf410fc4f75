"""Train a reward model: Bradley-Terry on the ZeRO-3 ranks, with validation, best model and resume.

The order of the pairs is a function of the seed, and a checkpoint holds weights, optimizer and
step; so a run that was killed and resumed ends with the weights of one that was not.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from actors.cluster.session import session
from actors.cluster.signals import how_to_go_on
from actors.groups.fleet import FleetSpec, start_fleet
from actors.groups.trainer import TrainGroup
from actors.plan.layout.model_shape import ModelShape
from actors.plan.rm_recipe import check_settings, epochs_of_size, settings_of
from actors.stages.training import OfflinePlan, offline_spec, score_pairs, train_offline
from conf.commands.train_rm import TrainRmArgs
from conf.errors import DataError, SaveError, StoppedError
from conf.schema import Config, PolicyConfig, RewardConfig
from reward.model.labels import check_one_label
from reward.model.read_out import choose_padding
from reward.model.text_path import TextPath
from reward.model.written import check_written
from reward.pairs.pairs import Pair
from reward.train.card import reward_model_card
from reward.train.pair_batches import (
    EncodedPairs,
    ValidationFigures,
    encode_pairs,
    golden_probes,
    shuffled_batches,
    validation_figures,
    write_golden_scores,
)
from rl.base.console import Console
from rl.base.files import replace_file, replace_json, replacing_directory, sync
from rl.base.versions import installed_versions
from rl.loss import PairObjective
from rl.packing import shares
from rl.run.checkpoint import GOES_ON, commit, find_newest, staging
from rl.run.directory import RunDirectory
from rl.text.hub_files import model_config
from rl.text.tokenizer import embedding_rows, tokenizer_note
from rl.types import UpdateReport

_STATE_FILE = "training.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RmTraining:
    """What `train_reward_model` does; the ranks and their budget are those of the configuration."""

    model: str  # that it starts from: a causal language model or a sequence classifier
    directory: Path  # of the result; checkpoints and the best model so far are kept in it meanwhile
    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    objective: PairObjective
    lr: float
    epochs: int
    batch_pairs: int  # of one optimizer step
    evaluate_every: int = 0  # steps; 0 evaluates at the end only
    checkpoint_every: int = 0  # steps; 0 keeps none
    keep: int = 2  # checkpoints
    resume: bool = False
    settings: Mapping[str, Any]  # whatever the result depends on; a resumed training must match


def plan_training(
    args: TrainRmArgs,
    cfg: Config,
    shape: ModelShape | None,
    train: list[Pair],
    validation: list[Pair],
) -> RmTraining:
    """The training that is asked for; what the arguments leave open goes by the base."""
    epochs = args.epochs or epochs_of_size(None if shape is None else shape.num_parameters)
    steps = epochs * max(1, len(train) // args.batch_pairs)
    return RmTraining(
        model=args.model,
        directory=Path(args.output),
        train=tuple(train),
        validation=tuple(validation),
        objective=PairObjective(margin=args.margin, centring=args.centring, lm_coef=args.lm_coef),
        lr=cfg.policy.lr,
        epochs=epochs,
        batch_pairs=args.batch_pairs,
        evaluate_every=args.evaluate_every or max(1, steps // 8),
        checkpoint_every=args.checkpoint_every,
        resume=args.resume == "auto",
        settings=settings_of(
            replace(args, epochs=epochs), cfg.policy, cfg.reward, train, validation
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RmResult:
    """Figures of a training; `best_step` is the one whose weights were kept."""

    training: dict[str, float]  # means of the last tenth of the steps of this call
    validation: ValidationFigures | None  # of the best step
    history: dict[int, ValidationFigures]  # by step; 0 is before the first one
    best_step: int
    num_steps: int
    num_truncated: int  # training pairs that the context cuts, and that were left out
    shared_share: float  # of the tokens of both programs of a pair
    shares_prefix: bool


async def train_reward_model(cfg: Config, job: RmTraining, console: Console) -> RmResult:
    """Train, and leave a Hugging Face directory with golden scores in `job.directory`.

    Raises:
        DataError: when no pair fits the context.
    """
    text_path = base_text_path(cfg.reward, job.model)
    train = encode_pairs(job.train, text_path, with_lm=job.objective.lm_coef > 0)
    if not train.pairs:
        raise DataError(
            f"data: each of {len(job.train)} pairs is longer than "
            f"max_tokens={cfg.reward.max_tokens}; raise max_tokens"
        )
    validation = encode_pairs(job.validation, text_path)
    run = _Training(job, _Encoded(train, validation), cfg.policy, cfg.seed, console)
    spec = replace(
        offline_spec(cfg, job.model, job.lr, run.num_steps),
        head="score_lm" if job.objective.lm_coef > 0 else "score",
        dtype=cfg.reward.dtype,
        pad_token_id=padding_of(text_path, job.model),
    )
    async with start_fleet(cfg, FleetSpec(train=spec), "reward-model") as fleet:
        result = await run.run(fleet.policy)
    check_written(job.directory)
    write_golden_scores(job.directory, text_path, golden_probes(validation.pairs or train.pairs))
    return result


def check_base(reward: RewardConfig, model: str) -> None:
    """Refuse a base of which no reward model can be made that others read right."""
    text_path = base_text_path(reward, model)
    padding_of(text_path, model)
    note = tokenizer_note(model, "model")
    if note is not None:
        Console().say(note)


def padding_of(text_path: TextPath, model: str) -> int:
    """The token that the reward model pads with; its chat template never ends with it."""
    rows = embedding_rows(model_config(model))
    return choose_padding(text_path.tokenizer, text_path.last_ids(), rows, "model")


def base_text_path(reward: RewardConfig, model: str) -> TextPath:
    """How the reward model that is made of a base will read; refuses a base that cannot.

    It is read at its last token, whatever the base pads with: `choose_padding` goes by that.
    """
    check_one_label(model_config(model), model, "model")
    return TextPath.load(
        model,
        reward.adapter,
        reward.max_tokens,
        system=reward.system,
        key="model",
        reads_last=True,
    )


def run_training(cfg: Config, job: RmTraining, record: Path) -> RmResult:
    """Train in a Ray cluster; figures, settings and a card are left beside the weights."""
    console = Console()
    start_s = time.perf_counter()
    check_base(cfg.reward, job.model)
    record.unlink(missing_ok=True)  # of an earlier training; this one is not finished
    try:
        with session(cfg.ray, f"rm-{job.directory.name}") as run:
            result = run(train_reward_model(cfg, job, console))
    except StoppedError as error:
        advice = how_to_go_on(RunDirectory(job.directory).checkpoints, "checkpoint_every")
        raise StoppedError(f"{error}; {advice}") from error
    facts = {
        "base": job.model,
        "num_pairs": {"train": len(job.train), "validation": len(job.validation)},
        "num_truncated": result.num_truncated,
        "negatives": dict(Counter(pair.source for pair in job.train)),
        "num_steps": result.num_steps,
        "best_step": result.best_step,
        "validation": None if result.validation is None else asdict(result.validation),
        "history": {step: asdict(figures) for step, figures in result.history.items()},
        "training": result.training,
        "prefix": {"shared": result.shares_prefix, "share": result.shared_share},
        "settings": dict(job.settings),
        "versions": installed_versions(),
        "wall_s": time.perf_counter() - start_s,
    }
    replace_file(job.directory / "README.md", reward_model_card(facts))
    replace_json(record, facts, indent=1)
    _show(console, result, job.directory)
    return result


def _show(console: Console, result: RmResult, directory: Path) -> None:
    found = result.validation
    if found is not None:
        low, high = found.accuracy_interval
        rows = [
            ("accuracy", f"{found.accuracy:.4f}", f"of {found.num_pairs} validation pairs"),
            ("  interval", f"{low:.3f} - {high:.3f}", "95 %, by resampling problems"),
            ("  untrained", f"{result.history[0].accuracy:.4f}", "before the first step"),
            *(
                (f"  {source}", f"{value:.4f}", "by where the negative comes from")
                for source, value in found.accuracy_by_source.items()
            ),
            ("ties", f"{found.ties:.4f}", "equal scores; they count as wrong"),
            ("loss", f"{found.loss:.4f}", "-log sigmoid(chosen - rejected)"),
            ("best step", str(result.best_step), f"of {result.num_steps}; its weights were kept"),
        ]
        console.table("reward model", rows)
        if said := result.history[0].undone_by(found):
            console.warn(said)
    console.say(f"\nreward model   {directory}")


class _Encoded(NamedTuple):
    """The pairs of a training as token ids."""

    train: EncodedPairs
    validation: EncodedPairs


class _Training:
    def __init__(
        self, job: RmTraining, pairs: _Encoded, policy: PolicyConfig, seed: int, console: Console
    ) -> None:
        self._job = job
        self._policy = policy
        self._seed = seed
        self._console = console
        self._train, self._validation = pairs
        self._batch_pairs = min(job.batch_pairs, len(pairs.train.pairs))
        self.num_steps = job.epochs * (len(pairs.train.pairs) // self._batch_pairs)
        self._history: dict[int, ValidationFigures] = {}
        self._best_step = 0

    async def run(self, trainer: TrainGroup) -> RmResult:
        """All steps that have not been done yet, then the best weights into the directory."""
        job = self._job
        self._shares = shares(trainer.packing, self._train.shared_share)
        await trainer.check_shared(job.directory, "output")
        first_step = await self._resume(trainer)
        self._console.stage("reward model", self._about())
        if first_step == 1:
            await self._validate(trainer, 0)
        batches = shuffled_batches(
            self._train.samples, self._batch_pairs, job.epochs, self._seed, group_of=2
        )
        plan = OfflinePlan(
            batches=itertools.islice(batches, first_step - 1, None),
            num_steps=self.num_steps,
            group_of=2,
            readout="last_and_lm" if job.objective.lm_coef > 0 else "last",
            show="rm/loss",
            objective=job.objective,
            first_step=first_step,
        )

        async def after(step: int, _: UpdateReport) -> None:
            if step == self.num_steps or (job.evaluate_every and step % job.evaluate_every == 0):
                await self._keep_best(trainer, step)
            if job.checkpoint_every and step % job.checkpoint_every == 0:
                await self._try_to_save(trainer, step)

        training = await train_offline(trainer, plan, self._policy, self._console, after)
        self._publish_best()
        return RmResult(
            training=training,
            validation=self._history.get(self._best_step),
            history=self._history,
            best_step=self._best_step,
            num_steps=self.num_steps,
            num_truncated=self._train.num_truncated,
            shared_share=self._train.shared_share,
            shares_prefix=self._shares,
        )

    def _about(self) -> str:
        train, validation = self._train, self._validation
        left_out = f" ({train.num_truncated} too long)" if train.num_truncated else ""
        sharing = f", prefixes shared: {train.shared_share:.0%} fewer tokens" * self._shares
        return (
            f"{len(train.pairs)} pairs{left_out}, {len(validation.pairs)} for validation, "
            f"{self.num_steps} steps of {self._batch_pairs}{sharing}"
        )

    async def _validate(self, trainer: TrainGroup, step: int) -> None:
        if not self._validation.pairs:
            return
        scores = await score_pairs(trainer, self._validation.samples)
        figures = validation_figures(scores, self._validation.pairs)
        self._history[step] = figures
        self._console.say(
            f"step {step:>4}/{self.num_steps}  validation accuracy {figures.accuracy:.4f}  "
            f"loss {figures.loss:.4f}"
        )

    async def _keep_best(self, trainer: TrainGroup, step: int) -> None:
        """Validate, and keep the weights when they are the best so far."""
        await self._validate(trainer, step)
        best, now = self._history.get(self._best_step), self._history.get(step)
        if self._best_step and best is not None and now is not None and best.rank >= now.rank:
            return
        try:
            with replacing_directory(self._best_directory(step)) as staged:
                await trainer.save_hf(staged)
        except SaveError as error:
            if step == self.num_steps:
                raise
            self._console.warn(f"the weights of step {step} are not kept: {error}")
            return
        shutil.rmtree(self._best_directory(self._best_step), ignore_errors=True)
        self._best_step = step

    def _best_directory(self, step: int) -> Path:
        return self._job.directory / f"best-{step:06d}"

    def _publish_best(self) -> None:
        """Move the best weights to where the result belongs, and drop what training needed."""
        source, target = self._best_directory(self._best_step), self._job.directory
        for stale in target.glob("*.safetensors*"):  # of an earlier training, with other shards
            stale.unlink()
        for item in source.iterdir():
            item.replace(target / item.name)
        source.rmdir()
        sync(target)
        shutil.rmtree(RunDirectory(target).checkpoints, ignore_errors=True)

    async def _try_to_save(self, trainer: TrainGroup, step: int) -> None:
        """Save a step; a disk that does not take it costs this checkpoint, not the training."""
        root = RunDirectory(self._job.directory).checkpoints
        try:
            with staging(root, step) as staged:
                await trainer.save_checkpoint(staged)
                self._write_state(staged)
                await asyncio.to_thread(commit, staged, root, step, self._job.keep)
        except SaveError as error:
            self._console.warn(f"step {step} is not saved: {error}; {GOES_ON}")

    def _write_state(self, staged: Path) -> None:
        """Put what only the driver knows beside the files of the ranks."""
        state = {
            "settings": dict(self._job.settings),
            "best_step": self._best_step,
            "history": {number: asdict(figures) for number, figures in self._history.items()},
        }
        (staged / _STATE_FILE).write_text(json.dumps(state), encoding="utf-8")
        if self._best_step:  # a later best replaces it beside the checkpoints, not in here
            best = self._best_directory(self._best_step)
            shutil.copytree(best, staged / best.name)

    async def _resume(self, trainer: TrainGroup) -> int:
        """Load the newest checkpoint, if asked for; returns the first step to take."""
        for left in self._job.directory.glob("best-*"):
            shutil.rmtree(left)
        root = RunDirectory(self._job.directory).checkpoints
        newest, refused = find_newest(root) if self._job.resume else (None, ())
        if newest is None:
            shutil.rmtree(root, ignore_errors=True)
            return 1
        for line in refused:
            self._console.warn(line)
        state: dict[str, Any] = json.loads((newest.directory / _STATE_FILE).read_text("utf-8"))
        if changed := check_settings(state["settings"], self._job.settings, newest.directory):
            self._console.stage("resume", changed)
        await trainer.load_checkpoint(newest.directory)
        self._best_step = state["best_step"]
        self._history = {
            int(step): ValidationFigures(**figures) for step, figures in state["history"].items()
        }
        if self._best_step:
            best = self._best_directory(self._best_step)
            shutil.copytree(newest.directory / best.name, best)
        self._console.say(f"resumed from {newest.directory} after step {newest.step}")
        return newest.step + 1
