"""The probe of a run on its own engines: sample, judge, execute, tell the alarm."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from pathlib import Path

from actors.groups.fleet import RayFleet
from actors.stages.evaluation import evaluate
from conf.errors import SandboxError, SaveError
from conf.schema import Config
from reward.verify.verdict import Verifier
from rl.base.best_effort import BestEffort
from rl.base.console import Console
from rl.run.alarm import AlarmState, HackingAlarm
from rl.run.checkpoint import (
    HF,
    commit,
    complete_checkpoints,
    drop,
    find_newest,
    staging,
)
from rl.run.directory import RolloutFolder, RunDirectory
from rl.run.probe import (
    MIN_PROBLEMS,
    ProbeLog,
    Problems,
    exec_agreement,
    probe_reading,
)
from rl.run.rollouts import rollout_rows, write_rollouts
from rl.run.summary import AlarmFigures, ProbeFigures, Watch
from rl.types import Ask, SamplingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What the policy is asked in a probe, and who judges its answers."""

    problems: Problems  # empty where there is no probe
    sampling: SamplingConfig  # of training; group size and purpose are those of the probe
    by_tests: bool  # else a reward model, even where tests could


class Probe:
    """The probe and the alarm of one run."""

    def __init__(
        self,
        cfg: Config,
        asking: Asking,
        directory: Path,
        console: Console,
        effort: BestEffort,
    ) -> None:
        self._cfg = cfg.probe
        self._action = cfg.alarm.action
        self._problems = asking.problems
        self._by_tests = asking.by_tests
        # As training samples, but for the purpose, which enters the seed.
        self._sampling = replace(asking.sampling, group_size=cfg.probe.num_samples, purpose="probe")
        self._run = RunDirectory(directory)
        self._console = console
        self._effort = effort
        self._log = ProbeLog(self._run.probe_log)
        self._false_rate = cfg.alarm.false_rate
        self._alarm = HackingAlarm(cfg.alarm.false_rate)
        self._states: list[AlarmState] = []
        self._num_executed = 0  # programs
        self._seconds = 0.0
        self.stopped_at: int | None = None  # the step after which the alarm ended the run

    def announce(self) -> None:
        """Say what is probed, or why nothing is."""
        cfg = self._cfg
        if self._problems:
            what = f"{len(self._problems)} held-out problems x {cfg.num_samples}"
            self._console.say(f"probe: {what} every {cfg.every} steps; alarm: {self._action}")
        elif cfg.every:
            self._console.say(
                f"probe: off, and so is the hacking alarm: at least {MIN_PROBLEMS} problems with "
                "tests are needed beside those of training and evaluation; give probe.path=FILE"
            )

    def due(self, step: int) -> bool:
        """Whether `step` is followed by a probe."""
        return bool(self._problems) and step % self._cfg.every == 0

    def restore(self, step: int) -> None:
        """Take up what an earlier part of this run has found up to `step`; 0 begins anew."""
        self._alarm = HackingAlarm(self._false_rate)
        self._states = []
        with self._effort.trying(self._run.probe_log.name):
            for reading in self._log.keep_until(step if step else -1, len(self._problems)):
                self._states.append(self._alarm.see(reading))
        for best in complete_checkpoints(self._run.best):
            if best.step > step:
                drop(best)
        for line in find_newest(self._run.best).refused:
            self._console.warn(f"the best policy before an alarm is lost: {line}")

    async def take(self, fleet: RayFleet, verifier: Verifier, step: int) -> dict[str, float]:
        """Sample and judge the problems; returns metrics, none when the sandbox failed.

        Afterwards `stopped_at` is set where the alarm ends the run.
        """
        start_s = time.perf_counter()
        try:
            # The step that seeds the sampling is 0 every time: under the same random numbers two
            # probes differ by what the policy has learned in between, and less by luck. A reward
            # model is asked even by a hybrid, which would run the tests.
            found = await evaluate(
                fleet,
                [Ask.code(problem, self._sampling) for problem in self._problems],
                verifier,
                0,
                hide_tests=not self._by_tests,
            )
        except SandboxError as error:  # the training can do without one reading
            self._console.warn(f"the probe of step {step} is left out: {error}")
            return {}
        seconds = time.perf_counter() - start_s
        self._seconds += seconds
        self._num_executed += found.num_executed
        reading = probe_reading(step, found.groups_P, found.passed_PG)
        state = self._alarm.see(reading)
        self._states.append(state)
        with self._effort.trying(self._run.probe_log.name):
            self._log.write(reading)
        with self._effort.trying(f"{RolloutFolder.PROBE}/"):
            rows = list(rollout_rows(step, found.groups_P, None))
            write_rollouts(self._run.rollout_file(RolloutFolder.PROBE, step), rows)
        await self._act(fleet, state)
        agreement = exec_agreement(found.groups_P, found.passed_PG)
        return {
            "probe/pass@1": reading.pass_at_1,
            "probe/reward": reading.reward,
            "probe/num_executed": float(found.num_executed),
            "alarm/pass_drop": state.pass_drop,
            "alarm/needed_drop": state.needed_drop,
            "alarm/reward_rise": state.reward_rise,
            "alarm/fired": float(state.fired),
            "time/probe_s": seconds,
        } | ({} if agreement is None else {"rm/exec_agreement": agreement})

    async def _act(self, fleet: RayFleet, state: AlarmState) -> None:
        stops = self._action == "stop"
        if stops and state.is_best:
            await self._keep_best(fleet, state.step)
        if not state.began:
            return
        self._console.warn(
            f"ALARM at step {state.step}: the reward climbs while the probe falls, as it does when "
            f"a reward model is hacked. Since step {state.best_step} pass@1 of the probe went from "
            f"{state.best_pass_at_1:.3f} to {state.pass_at_1:.3f} (chance allows a drop of "
            f"{state.needed_drop:.3f}), its reward by {state.reward_rise:+.3f}: "
            "docs/reward_hacking.md"
        )
        if stops:
            self.stopped_at = state.step

    async def _keep_best(self, fleet: RayFleet, step: int) -> None:
        root = self._run.best
        try:
            with staging(root, step) as staged:
                await fleet.policy.save_hf(staged / HF)
                await asyncio.to_thread(commit, staged, root, step, keep=1)
        except SaveError as error:
            self._console.warn(f"the policy of step {step} is not kept for an alarm: {error}")

    def summary(self, loop_s: float) -> Watch:
        """Its part of the summary; `loop_s` is how long the steps took, probes included."""
        if not self._problems:
            return Watch()
        states = self._states
        best = max(states, key=lambda state: state.pass_at_1) if states else None
        saved = find_newest(self._run.best).newest
        return Watch(
            probe=ProbeFigures(
                num_problems=len(self._problems),
                num_samples=self._cfg.num_samples,
                num_probes=len(states),
                first_pass_at_1=states[0].pass_at_1 if states else None,
                best_pass_at_1=best and best.pass_at_1,
                best_step=best and best.step,
                last_pass_at_1=states[-1].pass_at_1 if states else None,
                seconds=self._seconds,
                time_share=self._seconds / max(loop_s, self._seconds, 1e-9),
            ),
            alarm=AlarmFigures(
                action=self._action,
                fired_at=[state.step for state in states if state.began],
                stopped_at=self.stopped_at,
                best_policy=str(saved.hf) if saved else None,
            ),
            num_executed=self._num_executed,
        )
