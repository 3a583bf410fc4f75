"""Checkpoints of an RL run: the one it goes on from, when the next is due, and one at a signal."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from actors.engines.adapters import check_base
from actors.groups.trainer import TrainGroup
from conf.errors import ProjectError, SaveError
from conf.schema import Config
from reward.model.files import is_local
from rl.base.console import Console
from rl.base.files import replace_json
from rl.recipes.recipe import History, State
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
from rl.run.timeline import Timeline

STATES = "recipe.json"  # of the recipe, by step
_STOP_S = 60.0  # that a run which a signal ends gives its ranks to write the last step


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
        # Of adapters a checkpoint has no whole policy, which is as large as the base.
        self._adapts = cfg.policy.lora.rank > 0
        self._base = cfg.model.path
        self._root = root
        self._timeline = timeline
        self._console = console
        self._before_commit = before_commit
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
        self, policy: TrainGroup, step: int, history: History, *, ends: bool
    ) -> None:
        """Save a step when a checkpoint is due, or when the run ends with it."""
        self._complete, self._num_updates = step, policy.num_updates_begun
        if not ends and not self._due(step):
            return
        saving = asyncio.ensure_future(self._try_to_save(policy, step, history))
        try:
            await asyncio.shield(saving)
        except asyncio.CancelledError:  # nobody can call ranks back that have begun to write
            await self._in_time(saving)
            raise

    async def save_at_stop(self, policy: TrainGroup, history: History) -> None:
        """Save the last complete step of a run that a signal ends, where the ranks still hold it.

        Its weights are gone as soon as the next step has begun to change them.
        """
        step = self._complete
        if step == self._tried:
            return
        if policy.num_updates_begun != self._num_updates:
            self._console.say(f"step {step} is not saved: the next has begun to change the weights")
            return
        self._console.say(f"saving step {step} before the end; a second signal ends it at once")
        await self._in_time(self._save(policy, step, history))

    def _due(self, step: int) -> bool:
        every, minutes = self._cfg.every, self._cfg.minutes
        if every and step % every == 0:
            return True
        return minutes > 0 and time.monotonic() - self._saved_s > 60 * minutes

    async def _try_to_save(self, policy: TrainGroup, step: int, history: History) -> None:
        """Save a step; a disk that does not take it costs this checkpoint, and not the run."""
        try:
            await self._save(policy, step, history)
        except SaveError as error:
            self._console.warn(f"step {step} is not saved: {error}; {GOES_ON}")

    async def _save(self, policy: TrainGroup, step: int, history: History) -> None:
        self._tried = step
        self._saved_s = time.monotonic()
        states = {str(known): state for known, state in history.states.items()}
        with staging(self._root, step) as staged, self._timeline.span("checkpoint", step):
            await policy.save_checkpoint(staged)
            if self._adapts:
                await policy.save_adapter(staged / ADAPTER)
            else:
                await policy.save_hf(staged / HF)
            replace_json(staged / STATES, states)
            self._before_commit()
            await asyncio.to_thread(commit, staged, self._root, step, self._cfg.keep)
        self._saved_s = time.monotonic()

    async def _in_time(self, saving: Awaitable[None]) -> None:
        """Wait for it, but not for long; the run ends whatever becomes of it."""
        try:
            async with asyncio.timeout(_STOP_S):
                await saving
        except (ProjectError, OSError) as error:  # a TimeoutError is an OSError
            why = str(error) or f"the ranks did not answer within {_STOP_S:g} s"
            self._console.warn(f"step {self._complete} is not saved: {why}")


def read_states(checkpoint: Checkpoint) -> dict[int, State]:
    """The states of the recipe by step; none in a checkpoint of before there were any."""
    path = checkpoint.directory / STATES
    if not path.is_file():
        return {}
    return {int(step): state for step, state in json.loads(path.read_text("utf-8")).items()}
