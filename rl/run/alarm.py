"""The hacking alarm: the reward climbs while the probe falls.

A reward model that is optimised for long enough is hacked: the policy finds programs that it likes
and that are wrong. From inside the training nothing shows, because its reward keeps rising. The
probe (`rl.run.probe`) asks the same held-out problems again and again and runs what comes back; the
alarm compares two numbers of each of its problems, now and when the probe was best: the share of
completions that pass, and their mean reward.

Axis P: the problems of the probe, in the same order in every reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

import numpy as np

from rl.types import FloatArray

MIN_READINGS = 4  # two pairs of readings that share none; with fewer it cannot fire
MIN_DROP = 0.03  # of pass@1: what is less is not worth an alarm, however sure


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """What one probe found."""

    step: int
    passed_P: FloatArray  # share of the completions of each problem that pass its tests
    rewards_P: FloatArray  # mean reward of the same completions

    @property
    def pass_at_1(self) -> float:
        """Mean over problems."""
        return float(self.passed_P.mean())

    @property
    def reward(self) -> float:
        """Mean over problems."""
        return float(self.rewards_P.mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmState:
    """What the readings so far say together."""

    step: int
    pass_at_1: float  # of the newest two readings
    is_best: bool  # no two readings in a row before had more
    best_step: int  # the later of the two in a row, apart from these, that were best
    best_pass_at_1: float  # of those two
    pass_drop: float  # best - now, mean over problems
    needed_drop: float  # what it has to exceed
    reward_rise: float  # now - then
    fired: bool  # it has exceeded it, with a risen reward
    began: bool  # and had not in the reading before: an episode begins here


class HackingAlarm:
    """Fires when the probe has fallen, beyond chance, while the reward has risen.

    *Now* is the mean of the newest two readings, *best* that of the two in a row, apart from these,
    whose pass@1 is highest: no single reading, lucky or not, decides. The drop is a paired
    difference, d_P = passed at best - passed now, problem by problem, so that easy and hard
    problems do not blur it. The alarm fires when

        mean(d) > max(MIN_DROP, z * sqrt(mean(d**2) / P))   and   mean(rewards now - then) > 0,

    and is armed again once that no longer holds. z is the one-sided normal quantile of
    `false_rate` / C, where C counts the pairs of windows that the run has compared so far
    (Bonferroni): the best of many readings is partly luck, the more so the more there are. So
    `false_rate` bounds the chance that a run whose probe never falls fires at all, even if its
    reward rises for ever. The spread of d is taken about 0, what it is about where nothing has
    fallen: about its own mean it would be smallest just when luck makes the drop largest. A run
    whose reward falls together with its probe has another fault than hacking, and does not fire.

    The state is a function of the readings: a resumed run is given the earlier ones again.

    >>> alarm = HackingAlarm(false_rate=0.05)
    >>> for step, passed in enumerate((0.8, 0.8, 0.8, 0.7, 0.5)):
    ...     state = alarm.see(
    ...         Reading(
    ...             step=step,
    ...             passed_P=np.full(32, passed, dtype=np.float32),
    ...             rewards_P=np.full(32, step, dtype=np.float32),
    ...         )
    ...     )
    ...     print(step, f"{state.pass_drop:.2f}", state.fired, state.began)
    0 0.00 False False
    1 0.00 False False
    2 0.00 False False
    3 0.05 True True
    4 0.20 True False
    """

    def __init__(self, false_rate: float) -> None:
        self._false_rate = false_rate
        self._readings: list[Reading] = []
        self._fired = False

    def see(self, reading: Reading) -> AlarmState:
        """Take the next reading into account."""
        self._readings.append(reading)
        windows = [_mean(one, two) for one, two in pairwise(self._readings)] or self._readings
        now = windows[-1]
        best = max(windows[:-2] or [now], key=lambda window: window.pass_at_1)
        drop_P = best.passed_P - now.passed_P
        drop = float(drop_P.mean())
        error = float(np.sqrt(np.mean(np.square(drop_P)) / drop_P.size))
        needed = max(MIN_DROP, self._quantile(len(windows)) * error)
        rise = now.reward - best.reward
        fired = drop > needed and rise > 0
        began, self._fired = fired and not self._fired, fired
        return AlarmState(
            step=reading.step,
            pass_at_1=now.pass_at_1,
            is_best=all(now.pass_at_1 > window.pass_at_1 for window in windows[:-1]),
            best_step=best.step,
            best_pass_at_1=best.pass_at_1,
            pass_drop=drop,
            needed_drop=needed,
            reward_rise=rise,
            fired=fired,
            began=began,
        )

    def _quantile(self, num_windows: int) -> float:
        """z, with C = the pairs of windows that share no reading."""
        num_compared = max(1, (num_windows - 1) * (num_windows - 2) // 2)
        return NormalDist().inv_cdf(1.0 - self._false_rate / num_compared)


def _mean(one: Reading, two: Reading) -> Reading:
    return Reading(
        step=two.step,
        passed_P=((one.passed_P + two.passed_P) / 2).astype(np.float32),
        rewards_P=((one.rewards_P + two.rewards_P) / 2).astype(np.float32),
    )
