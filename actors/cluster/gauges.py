"""Metrics for Prometheus, through Ray: those of each step, and those of vLLM.

Ray puts `ray_` before every name, and exports what was set last on each node's metrics port.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping

from ray.util.metrics import Gauge

from rl.metrics import about
from rl.types import StepReport

PREFIX = "codescaler_"
SECONDS_BETWEEN = 1.0  # two readings of an engine; Ray exports every ten seconds

# Of vLLM, under the names and tags that its own Ray metrics have: Ray's dashboards find them, too.
RUNNING = "vllm_num_requests_running"
WAITING = "vllm_num_requests_waiting"
KV_USAGE = "vllm_kv_cache_usage_perc"
QUERIED = "vllm_prefix_cache_queries_total"
HITS = "vllm_prefix_cache_hits_total"

MakeGauge = Callable[[str, str, tuple[str, ...]], Gauge]


def run_tags(experiment: str, name: str) -> dict[str, str]:
    """What tells the series of two runs apart."""
    return {"experiment": experiment, "run": name}


def ascii_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags as Ray's metrics take them, who cannot encode any letter beyond ASCII.

    >>> ascii_tags({"run": "lauf \xe9"})
    {'run': 'lauf \\\\xe9'}
    """
    return {
        name: value.encode("ascii", "backslashreplace").decode("ascii")
        for name, value in tags.items()
    }


def gauge_name(metric: str) -> str:
    """A name of `rl.metrics` as Prometheus allows it.

    >>> gauge_name("reward/mean"), gauge_name("eval/pass@1")
    ('codescaler_reward_mean', 'codescaler_eval_pass_at_1')
    """
    return PREFIX + re.sub(r"\W", "_", metric.replace("@", "_at_"))


class StepGauges:
    """A `rl.metrics.Sink`: each metric of the newest step as a gauge, and the step's number."""

    def __init__(self, tags: Mapping[str, str], make: MakeGauge = Gauge) -> None:
        self._tags = ascii_tags(tags)
        self._make = make
        self._gauges: dict[str, Gauge] = {}

    def forget_after(self, step: int) -> None:
        """Show the step that a run goes on from."""
        self._set("step", "RL steps done", step)

    def write(self, report: StepReport) -> None:
        """Set the gauges; a metric that this step does not have keeps its last value."""
        for name, value in report.metrics.items():
            metric = about(name)
            self._set(name, f"{metric.meaning} [{metric.unit}]", value)
        self._set("step", "RL steps done", report.step)

    def close(self, *, ok: bool) -> None:
        """The last values stay until the process ends."""

    def _set(self, name: str, meaning: str, value: float) -> None:
        if name not in self._gauges:
            self._gauges[name] = self._make(gauge_name(name), meaning, tuple(self._tags))
        self._gauges[name].set(value, self._tags)


class EngineGauges:
    """The queue, the KV cache and the prefix cache of one vLLM engine.

    vLLM's own logger for Ray sets tens of gauges in each step of the engine and times every token.
    Here the readings of many steps are put together, and the metrics set about once a second.
    """

    def __init__(
        self,
        tags: Mapping[str, str],
        make: MakeGauge = Gauge,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tags = ascii_tags(tags)
        keys = tuple(self._tags)
        self._running = make(RUNNING, "sequences that the engine runs", keys)
        self._waiting = make(WAITING, "sequences that wait for room", keys)
        self._kv_usage = make(KV_USAGE, "share of the KV cache in use", keys)
        # Not counters: those of Ray cannot say zero, and a cache without a hit would have no rate.
        self._queried = make(QUERIED, "prompt tokens looked up in the prefix cache", keys)
        self._hits = make(HITS, "of these, found", keys)
        self._clock = clock
        self._next_s = -float("inf")
        self._tokens_queried = self._tokens_hit = 0  # since the engine's start

    def record(self, running: int, waiting: int, kv_usage: float, queried: int, hits: int) -> None:
        """Take the state after one step, and the tokens that this step looked up and found."""
        self._tokens_queried += queried
        self._tokens_hit += hits
        busy = running + waiting > 0
        if busy and self._clock() < self._next_s:
            return  # an idle engine makes no steps: its last state has to be shown
        self._next_s = self._clock() + SECONDS_BETWEEN
        self._running.set(running, self._tags)
        self._waiting.set(waiting, self._tags)
        self._kv_usage.set(kv_usage, self._tags)
        self._queried.set(self._tokens_queried, self._tags)
        self._hits.set(self._tokens_hit, self._tags)


def engine_gauges(tags: Mapping[str, str], engine: str, model: str) -> EngineGauges | None:
    """The gauges of one engine of a run; none for a run without tags."""
    if not tags:
        return None
    return EngineGauges({**tags, "engine": engine, "model_name": model})
