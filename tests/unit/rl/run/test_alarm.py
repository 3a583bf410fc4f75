"""The alarm fires on a hacked run, soon enough, and on nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from rl.run.alarm import MIN_READINGS, AlarmState, HackingAlarm, Reading

pytestmark = pytest.mark.unit

NUM_PROBLEMS, NUM_SAMPLES = 64, 4
RISE = list(np.linspace(0.65, 0.88, 6))


def readings(
    curve: Sequence[float], rewards: Sequence[float], seed: int, num_problems: int = NUM_PROBLEMS
) -> list[Reading]:
    """Probes of problems of unequal difficulty, each completion drawn anew: the worst case."""
    rng = np.random.default_rng(seed)
    easier_P = rng.normal(0.0, 1.5, num_problems)
    found: list[Reading] = []
    for step, (passed, reward) in enumerate(zip(curve, rewards, strict=True)):
        right_P = rng.binomial(NUM_SAMPLES, _chances(easier_P, passed)) / NUM_SAMPLES
        noise_P = rng.normal(0.0, 0.3, num_problems)
        found.append(
            Reading(
                step=step,
                passed_P=right_P.astype(np.float32),
                rewards_P=(reward + noise_P).astype(np.float32),
            )
        )
    return found


def _chances(easier_P: np.ndarray, mean: float) -> np.ndarray:
    """Chances to pass whose mean is `mean`, in the order of `easier_P`."""
    low, high = -20.0, 20.0
    for _ in range(40):
        middle = (low + high) / 2
        chances = 1 / (1 + np.exp(-(easier_P + middle)))
        low, high = (middle, high) if chances.mean() < mean else (low, middle)
    return 1 / (1 + np.exp(-(easier_P + low)))


def see(found: Sequence[Reading], false_rate: float = 0.05) -> list[AlarmState]:
    alarm = HackingAlarm(false_rate)
    return [alarm.see(reading) for reading in found]


def flat(values: Sequence[tuple[float, float]]) -> list[Reading]:
    """Readings without noise: (share that passes, reward) of every problem."""
    return [
        Reading(
            step=step,
            passed_P=np.full(16, passed, dtype=np.float32),
            rewards_P=np.full(16, reward, dtype=np.float32),
        )
        for step, (passed, reward) in enumerate(values)
    ]


@pytest.mark.parametrize("seed", range(20))
def test_a_hacked_run_fires_before_the_probe_has_lost_015(seed: int) -> None:
    curve = [*RISE, *(0.88 - 0.02 * i for i in range(1, 16))]
    states = see(readings(curve, np.linspace(2.0, 5.0, len(curve)).tolist(), seed))
    fired = next(state for state in states if state.fired)
    assert fired.began and fired.step >= len(RISE)
    assert max(curve) - curve[fired.step] < 0.15
    assert fired.pass_drop > fired.needed_drop > 0 and fired.reward_rise > 0


def test_a_healthy_run_does_not_fire_however_long_its_plateau_is() -> None:
    curve = [*RISE, *([0.88] * 44)]  # 50 probes: 250 steps of the quickstart
    rewards = np.linspace(2.0, 6.0, len(curve)).tolist()
    fired = [any(s.fired for s in see(readings(curve, rewards, seed))) for seed in range(100)]
    assert sum(fired) <= 5  # the bound that the default of false_rate promises


def test_a_policy_that_falls_together_with_its_reward_is_not_a_hacked_one() -> None:
    values = [(0.9, 3.0), (0.9, 3.0), (0.6, 2.0), (0.4, 1.0), (0.2, 0.5)]
    assert not any(state.fired for state in see(flat(values)))


def test_the_reward_that_counts_is_that_of_the_best_probes_not_of_the_first() -> None:
    values = [(0.5, 1.0), (0.9, 3.0), (0.9, 3.0), (0.6, 2.5), (0.5, 2.4)]
    assert not any(state.fired for state in see(flat(values)))


def test_an_episode_begins_once_and_the_alarm_is_armed_again_after_a_recovery() -> None:
    well, hacked = [(0.9, 1.0)] * 3, [(0.5, 2.0)] * 3
    states = see(flat([*well, *hacked, *well, *hacked]))
    assert [state.step for state in states if state.began] == [3, 9]
    assert [state.step for state in states if state.fired] == [3, 4, 5, 6, 9, 10, 11]


def test_a_drop_of_no_weight_never_fires() -> None:
    values = [(0.90, 1.0), (0.90, 1.0), *([(0.88, 2.0)] * 5)]
    assert not any(state.fired for state in see(flat(values)))


def test_two_readings_in_a_row_count_so_that_one_lucky_one_sets_no_mark() -> None:
    states = see(flat([(0.6, 1.0), (0.9, 1.0), (0.6, 1.0), (0.7, 1.0), (0.6, 1.0)]))
    assert states[-1].best_step == 1
    assert states[-1].best_pass_at_1 == pytest.approx(0.75)
    assert states[-1].pass_at_1 == pytest.approx(0.65)


def test_the_best_so_far_is_known_when_it_is_reached() -> None:
    states = see(flat([(0.5, 1.0), (0.7, 1.0), (0.9, 1.0), (0.6, 1.0), (0.6, 1.0)]))
    assert [state.is_best for state in states] == [True, True, True, False, False]


def test_the_newest_readings_are_compared_with_others_only() -> None:
    states = see(flat([(0.9, 1.0), (0.5, 2.0), (0.5, 3.0)]))
    assert not any(state.fired for state in states)
    assert [state.pass_drop for state in states] == [0.0, 0.0, 0.0]


def test_the_more_windows_were_compared_and_the_lower_the_rate_the_more_is_needed() -> None:
    found = readings([0.88] * 40, [1.0] * 40, seed=3)
    assert see(found)[-1].needed_drop > see(found[-5:])[-1].needed_drop
    assert see(found, 1e-4)[-1].needed_drop > see(found, 0.2)[-1].needed_drop


def test_it_can_fire_from_that_many_readings_on_and_not_before():
    hacked = flat([(1.0, 0.0)] * 2 + [(0.0, 9.0)] * 4)
    states = see(hacked)
    first = next(number for number, state in enumerate(states, start=1) if state.fired)
    assert first == MIN_READINGS
    for good in range(1, MIN_READINGS):  # whatever the few readings before were
        few = flat([(1.0, 0.0)] * good + [(0.0, 9.0)] * (MIN_READINGS - 1 - good))
        assert not any(state.fired for state in see(few))
