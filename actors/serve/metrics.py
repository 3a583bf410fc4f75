"""Metrics of a running score server, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from actors.serve.queue import ScoreQueue, ShardState
from reward.judges.judge import Judged

_PATHS: Final = frozenset(["/score", "/health", "/metrics"])
_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class ScoreMetrics:
    """Counters of one server; gauges are read from the queue when they are asked for."""

    def __init__(self, queue: ScoreQueue, capacity: int) -> None:
        self._queue = queue
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "rm_requests", "HTTP requests answered", ["path", "status"], registry=registry
        )
        self._seconds = Histogram(
            "rm_request_seconds",
            "Time of a request to /score that was answered with scores",
            buckets=_SECONDS,
            registry=registry,
        )
        self._answers = Counter(
            "rm_answers", "Answers judged, by what extraction found", ["reason"], registry=registry
        )
        self._codes = Counter(
            "rm_codes_scored", "Programs that the engine scored", registry=registry
        )
        self._reused = Counter(
            "rm_codes_reused", "Programs whose score was known already", registry=registry
        )
        self._truncated = Counter(
            "rm_codes_truncated", "Programs that were cut to the context", registry=registry
        )
        self._shard_up = Gauge(
            "rm_shard_up",
            "1 when the shard scored its last probe",
            ["shard"],
            registry=registry,
        )
        for name, about, value in (
            ("rm_queue_waiting", "Answers that no shard has taken yet", lambda: queue.num_waiting),
            (
                "rm_queue_in_flight",
                "Answers that a shard is scoring",
                lambda: queue.num_admitted - queue.num_waiting,
            ),
            ("rm_queue_capacity", "Answers admitted at once at most", lambda: capacity),
            (
                "rm_answers_retried",
                "Answers that were on a shard that failed, since the start",
                lambda: queue.num_retried,
            ),
        ):
            Gauge(name, about, registry=registry).set_function(value)

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Note one answered request; unknown paths count as one."""
        known = path if path in _PATHS else "other"
        self._requests.labels(known, str(status)).inc()
        if known == "/score" and status == 200:
            self._seconds.observe(seconds)

    def count_judged(self, judged: Sequence[Judged]) -> None:
        """Note the judgements of one request."""
        for group in judged:
            for extraction in group.extractions_G:
                self._answers.labels(extraction.reason.value).inc()
            scored = [score for score in group.scores_G if score.value is not None]
            num_reused = sum(score.reused for score in scored)
            self._reused.inc(num_reused)
            self._codes.inc(len(scored) - num_reused)
            self._truncated.inc(sum(score.truncated for score in scored))

    def text(self) -> bytes:
        """Everything, as a scrape reads it."""
        for name, state in self._queue.states.items():
            self._shard_up.labels(name).set(state is ShardState.UP)
        return generate_latest(self._registry)
