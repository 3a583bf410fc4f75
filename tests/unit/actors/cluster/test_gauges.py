"""What Prometheus is given, without Ray."""

from __future__ import annotations

import re
from typing import Any

import pytest

from actors.cluster.gauges import (
    HITS,
    KV_USAGE,
    QUERIED,
    RUNNING,
    WAITING,
    EngineGauges,
    StepGauges,
    gauge_name,
    run_tags,
)
from rl.metrics import METRICS
from rl.types import StepReport

pytestmark = pytest.mark.unit


class Recorder:
    """Makes gauges that remember what they were given."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}
        self.tags: list[dict[str, str]] = []
        self.about: dict[str, str] = {}

    def __call__(self, name: str, about: str, keys: tuple[str, ...]) -> Any:
        assert name not in self.values, "Ray warns of a metric that is made twice"
        self.values[name] = []
        self.about[name] = about
        return Instrument(self, name, keys)


class Instrument:
    """One gauge."""

    def __init__(self, recorder: Recorder, name: str, keys: tuple[str, ...]) -> None:
        self._recorder, self._name, self._keys = recorder, name, keys

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert tuple(tags) == self._keys
        self._recorder.values[self._name].append(value)
        self._recorder.tags.append(tags)


def test_every_metric_has_a_name_of_its_own_that_prometheus_allows():
    names = {gauge_name(name) for name in METRICS}
    assert len(names) == len(METRICS)
    assert all(re.fullmatch(r"codescaler_[a-z0-9_]+", name) for name in names)


def test_a_step_sets_a_gauge_for_each_of_its_metrics_tagged_with_the_run():
    recorder = Recorder()
    gauges = StepGauges(run_tags("quickstart", "s1"), recorder)
    gauges.forget_after(4)
    gauges.write(StepReport(step=5, metrics={"reward/mean": 1.5, "eval/pass@1": 0.25}))
    gauges.write(StepReport(step=6, metrics={"reward/mean": 2.5}))
    assert recorder.values == {
        "codescaler_step": [4, 5, 6],
        "codescaler_reward_mean": [1.5, 2.5],
        "codescaler_eval_pass_at_1": [0.25],
    }
    assert all(tags == {"experiment": "quickstart", "run": "s1"} for tags in recorder.tags)
    assert recorder.about["codescaler_reward_mean"].startswith(METRICS["reward/mean"].meaning)


def engine_gauges() -> tuple[EngineGauges, Recorder, list[float]]:
    recorder, now_s = Recorder(), [0.0]
    gauges = EngineGauges({"engine": "rollout-0"}, recorder, lambda: now_s[0])
    return gauges, recorder, now_s


def test_an_engine_is_read_about_once_a_second_and_no_token_is_lost():
    gauges, recorder, now_s = engine_gauges()
    for step in range(300):
        now_s[0] = step / 100
        gauges.record(running=8, waiting=step, kv_usage=0.5, queried=10, hits=5)
    gauges.record(running=0, waiting=0, kv_usage=0.0, queried=0, hits=0)
    assert recorder.values[WAITING] == [0, 100, 200, 0]
    assert recorder.values[KV_USAGE][-1] == 0.0
    assert recorder.values[QUERIED] == [10, 1010, 2010, 3000]
    assert recorder.values[HITS][-1] == 1500


def test_an_engine_that_becomes_idle_says_so_at_once():
    gauges, recorder, _ = engine_gauges()
    gauges.record(running=3, waiting=0, kv_usage=0.1, queried=9, hits=0)
    gauges.record(running=0, waiting=0, kv_usage=0.0, queried=0, hits=0)
    assert recorder.values[RUNNING] == [3, 0]
    assert recorder.values[HITS] == [0, 0]  # a cache that never hits has a rate, too


def test_names_beyond_ascii_reach_the_gauges_in_a_form_that_ray_can_send():
    made = Recorder()
    gauges = EngineGauges(run_tags("quickstart", "lauf \xe9") | {"model_name": "/m/\u6a21"}, made)
    gauges.record(running=1, waiting=0, kv_usage=0.1, queried=1, hits=0)
    assert made.tags
    for tags in made.tags:
        assert tags["run"] == "lauf \\xe9"
        assert all(value.isascii() for value in tags.values())
