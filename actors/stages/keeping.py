"""Checkpoints of an RL run: the one it goes on from, when the next is due, and one at a signal.

A checkpoint of an asynchronous run also holds the batches that were sampled ahead of it, with an
older policy: a run that goes on could not sample them again.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from actors.engines.adapters import check_base
from actors.groups.trainer import TrainGroup
from conf.errors import ProjectError, SaveError, first_cause
from conf.schema import Config
from reward.model.files import is_local
from rl.base.console import Console
from rl.base.files import replace_json
from rl.loop import Buffer
from rl.recipes.recipe import History, Recipe, State
from rl.run.checkpoint import (
    ADAPTER,
    GOES_ON,
    HF,
    Checkpoint,
    Found,
    commit,
    find_resumable,
    staging,
)
from rl.run.rollouts import RECIPES, read_groups, rollout_rows, write_rollouts
from rl.run.timeline import Timeline
from rl.step import Batch

STATES = "recipe.json"  # of the recipe, by step
AHEAD = "ahead"  # directory of a rollout file for each step that was sampled ahead
LEFT_OUT = "left_out.json"  # in it: what is not in rollout files
_THE_END = "the end; a second signal ends the run at once"


class RunCheckpoints:
    """The checkpoints of one run. They are checked here, before any engine is started.

    Raises:
        UserError: when the run is to go on, and no checkpoint is as it was written, or its adapters
            were trained on another base.
    """

    def __init__(
        self,
        cfg: Config,
        root: Path,
        timeline: Timeline,
        console: Console,
        before_commit: Callable[[], None],
    ) -> None:
        """`before_commit` sees that what a resumed run needs beside a checkpoint is on the disk."""
        self._cfg = cfg.checkpoint
        self._keeps_ahead = cfg.algorithm.max_staleness > 0 and cfg.recipe in RECIPES
        # Of adapters a checkpoint has no whole policy, which is as large as the base.
        self._adapts = cfg.policy.lora.rank > 0
        self._base = cfg.model.path
        self._root = root
        self._timeline = timeline
        self._console = console
        self._before_commit = before_commit
        self._took: dict[str, float] = {}  # what the next line of the metrics says of saving
        self.stops = False  # the run ends after this step, because a signal has come
        self._take_up(find_resumable(root) if cfg.resume != "never" else Found(None))

    def go_back(self) -> None:
        """Go on from the newest checkpoint on the disk, with ranks that have begun no update.

        Raises:
            UserError: when there are checkpoints, and none is as it was written.
        """
        self._take_up(find_resumable(self._root))

    def _take_up(self, found: Found) -> None:
        for line in found.refused:
            self._console.warn(line)
        if found.newest is not None and self._adapts and is_local(self._base):
            check_base(found.newest.directory, self._base)
        self.newest = found.newest
        self._saved_s = time.monotonic()
        self._tried = self._complete = found.newest.step if found.newest else 0
        self._num_updates = 0  # that had begun when `_complete` was

    async def after_step(
        self, policy: TrainGroup, step: int, history: History, buffer: Buffer, *, ends: bool
    ) -> None:
        """Save a step when a checkpoint is due, or when the run ends with it."""
        self._complete, self._num_updates = step, policy.num_updates_begun
        if not ends and not self._due(step):
            return
        ahead = () if ends or not self._keeps_ahead else await buffer.ahead_of(step)
        saving = asyncio.ensure_future(self._try_to_save(policy, step, history, ahead))
        try:
            await asyncio.shield(saving)
        except asyncio.CancelledError:  # nobody can call ranks back that have begun to write
            await self._in_time(step, saving)
            raise

    async def save_at_stop(
        self, steps: asyncio.Future[int], policy: TrainGroup, history: History
    ) -> None:
        """Save the last step of a run that a signal ends; `steps` are those that it takes.

        One that has begun to change the weights is finished first, for those of the step before it
        are gone. What is being sampled, also ahead, is not waited for.
        """
        if policy.num_updates_begun != self._num_updates:
            self.stops = True
            begun = self._complete + 1
            self._console.say(f"finishing step {begun} before {_THE_END}")
            await self._in_time(begun, steps)
            return
        steps.cancel()
        await asyncio.gather(steps, return_exceptions=True)
        if self._complete != self._tried:
            self._console.say(f"saving step {self._complete} before {_THE_END}")
            await self._in_time(self._complete, self._save(policy, self._complete, history, ()))

    def metrics(self) -> dict[str, float]:
        """What saving has taken since this was asked last; nothing where nothing was saved."""
        took, self._took = self._took, {}
        return took

    def _due(self, step: int) -> bool:
        every, minutes = self._cfg.every, self._cfg.minutes
        if every and step % every == 0:
            return True
        return minutes > 0 and time.monotonic() - self._saved_s > 60 * minutes

    async def _try_to_save(
        self, policy: TrainGroup, step: int, history: History, ahead: Sequence[Batch]
    ) -> None:
        """Save a step; a disk that does not take it costs this checkpoint, and not the run."""
        try:
            await self._save(policy, step, history, ahead)
        except SaveError as error:
            self._console.warn(f"step {step} is not saved: {error}; {GOES_ON}")

    async def _save(
        self, policy: TrainGroup, step: int, history: History, ahead: Sequence[Batch]
    ) -> None:
        self._tried = step
        begun_s = self._saved_s = time.monotonic()
        states = {str(known): state for known, state in history.states.items()}
        with staging(self._root, step) as staged, self._timeline.span("checkpoint", step):
            await policy.save_checkpoint(staged)
            if self._adapts:
                await policy.save_adapter(staged / ADAPTER)
            else:
                await policy.save_hf(staged / HF)
            replace_json(staged / STATES, states)
            if ahead:
                await asyncio.to_thread(write_ahead, staged / AHEAD, step + 1, ahead)
            self._before_commit()
            await asyncio.to_thread(commit, staged, self._root, step, self._cfg.keep)
        self._saved_s = time.monotonic()
        self._took = {"time/checkpoint_s": self._saved_s - begun_s}

    async def _in_time(self, step: int, saving: Awaitable[object]) -> None:
        """Wait for a step to be saved, but not for long; the run ends whatever becomes of it."""
        limit_s = self._cfg.stop_s
        try:
            async with asyncio.timeout(limit_s):
                await saving
        except TimeoutError:
            why = f"that takes longer than checkpoint.stop_s={limit_s:g} s"
        except BaseExceptionGroup as group:
            why = str(first_cause(group))
        except (ProjectError, OSError) as error:
            why = str(error)
        else:
            return
        self._console.warn(f"step {step} is not saved: {why}")


def write_ahead(directory: Path, first_step: int, batches: Sequence[Batch]) -> None:
    """Write the batches that were sampled ahead, those of `first_step` and what follows."""
    directory.mkdir()
    left_out: dict[str, dict[str, int]] = {}
    for step, batch in enumerate(batches, first_step):
        rows = list(rollout_rows(step, batch.groups_P, batch.lesson.advantages_PG))
        write_rollouts(directory / f"{step}.parquet", rows, batch.groups_P)
        left_out[str(step)] = {"num_flat": batch.num_flat, "num_dropped": batch.num_dropped}
    replace_json(directory / LEFT_OUT, left_out)


def read_ahead(
    checkpoint: Checkpoint, recipe: Recipe, history: History, weights: Mapping[str, float]
) -> list[Batch]:
    """The batches that were sampled ahead of a checkpoint; none where it holds none.

    `weights` are those of the judges of a sum, by their names.
    """
    path = checkpoint.directory / AHEAD / LEFT_OUT
    if not path.is_file():
        return []
    found: list[Batch] = []
    for name, left_out in json.loads(path.read_text("utf-8")).items():
        step = int(name)
        groups_P = tuple(read_groups(path.with_name(f"{step}.parquet"), weights))
        lesson = recipe.teach(step, groups_P, history.seen_by(step))
        found.append(Batch(groups_P=groups_P, lesson=lesson, started_s=None, **left_out))
    return found


def read_states(checkpoint: Checkpoint) -> dict[int, State]:
    """The states of the recipe by step; none in a checkpoint of before there were any."""
    path = checkpoint.directory / STATES
    if not path.is_file():
        return {}
    return {int(step): state for step, state in json.loads(path.read_text("utf-8")).items()}
