"""The time of a step, predicted: its phases, what hides what, and who waits for whom.

First order: answers are sampled at once or in waves, groups of one length in tokens, no engine is
lost. `docs/performance.md` has the formulas and how far they were from what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from actors.plan.cost.parts import FORWARD_PASS, Layout, Rates, Work

# Share of the rollout after which the first groups are complete; the others follow evenly.
FIRST_GROUPS = 0.5
_AT_ONCE: Mapping[str, Mapping[str, float]] = {  # a part, infinitely fast
    "rollout": {
        "decode_step_s": 0.0,
        "rollout_tokens_per_s": math.inf,
        "prefill_tokens_per_s": math.inf,
    },
    "score": {"scores_per_s": math.inf},
    "driver": {"driver_ms": 0.0},
    "update": {"update_tokens_per_s": math.inf, "update_latency_s": 0.0},
    "publish": {"publish_latency_s": 0.0, "publish_gb_per_s": math.inf},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """The seconds of a step by phase, and of the whole."""

    rollout_s: float
    score_s: float  # of the busiest shard, hidden behind the rollout or not
    tail_s: float  # of scoring, after the last completion
    driver_s: float
    update_s: float
    publish_s: float
    step_s: float

    @property
    def idle(self) -> dict[str, float]:
        """Share of a step in which the actors of a group have nothing to do."""
        busy = {"rollout": self.rollout_s, "reward": self.score_s, "policy": self.update_s}
        return {group: 1 - seconds / self.step_s for group, seconds in busy.items()}


def predict(rates: Rates, work: Work, layout: Layout) -> StepCost:
    """The time of one step.

    Scores are streamed: a group is judged while others are sampled, unless the groups of actors
    share their devices. With a staleness of 1 and more the next step is sampled while this one is
    learned; a publication waits for what is being sampled, so that it comes on top.
    """
    rollout_s = _rollout_s(rates, work, layout)
    score_s, one_s = _score_s(rates, work, layout)
    late_s = score_s - (1 - FIRST_GROUPS) * rollout_s
    tail_s = score_s if layout.takes_turns else max(one_s, late_s)
    driver_s = work.completions * rates.driver_ms / 1000
    update_s = _update_s(rates, work, layout)
    publish_s = rates.publish_latency_s + work.weight_bytes / (rates.publish_gb_per_s * 1e9)
    collect_s, learn_s = rollout_s + tail_s, driver_s + update_s
    overlaps = layout.staleness > 0 and not layout.takes_turns
    both_s = max(collect_s, learn_s) if overlaps else collect_s + learn_s
    return StepCost(
        rollout_s=rollout_s,
        score_s=score_s,
        tail_s=tail_s,
        driver_s=driver_s,
        update_s=update_s,
        publish_s=publish_s,
        step_s=both_s + publish_s,
    )


def _rollout_s(rates: Rates, work: Work, layout: Layout) -> float:
    """The busiest engine's: its decode steps, its tokens, and each prompt once."""
    prompts = math.ceil(work.prompts / layout.engines)
    tokens = prompts * work.group_size * work.lengths.answer_tokens
    at_once = min(layout.slots, prompts * work.group_size)
    decode_steps = max(work.lengths.longest_tokens, tokens / at_once)
    return (
        decode_steps * rates.decode_step_s
        + tokens / rates.rollout_tokens_per_s
        + prompts * work.lengths.prompt_tokens / rates.prefill_tokens_per_s
    )


def _score_s(rates: Rates, work: Work, layout: Layout) -> tuple[float, float]:
    """What the busiest shard takes for all its groups, and for one."""
    one_s = work.group_size * work.lengths.valid_share / rates.scores_per_s
    return math.ceil(work.prompts / layout.shards) * one_s, one_s


def _update_s(rates: Rates, work: Work, layout: Layout) -> float:
    row = work.lengths.prompt_tokens + work.lengths.answer_tokens
    tokens = work.completions * row * (1 - work.lengths.shared_share) / layout.ranks
    once_s = tokens / rates.update_tokens_per_s + work.updates * rates.update_latency_s
    return once_s * (1 + FORWARD_PASS * work.forward_passes)


def savings(rates: Rates, work: Work, layout: Layout) -> dict[str, float]:
    """Seconds that a step is shorter where one part of it takes no time.

    The part with the most is the bottleneck.
    """
    whole_s = predict(rates, work, layout).step_s
    return {
        part: whole_s - predict(replace(rates, **fields), work, layout).step_s
        for part, fields in _AT_ONCE.items()
    }


def fastest(layouts: Iterable[Layout], step_s: Callable[[Layout], float]) -> Layout | None:
    """The layout with the shortest step; None where there is none."""
    return min(layouts, key=step_s, default=None)


def splits(
    devices: int, layout: Layout, least_ranks: int, *, per_engine: int = 1, per_shard: int = 1
) -> Iterator[Layout]:
    """Every division of so many devices: whole engines and shards, and no fewer ranks than given.

    Groups that share devices have an actor of each on all of them. `per_shard` is 0 where CPUs
    judge.
    """
    if layout.takes_turns:
        if devices >= least_ranks:
            yield replace(layout, engines=devices, shards=devices, ranks=devices)
        return
    for engines in range(1, devices // per_engine + 1):
        left = devices - engines * per_engine
        for shards in range(1, left // per_shard + 1) if per_shard else (layout.shards,):
            ranks = left - shards * per_shard
            if ranks >= least_ranks:
                yield replace(layout, engines=engines, shards=shards, ranks=ranks)
