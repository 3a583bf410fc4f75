"""Groups that teach nothing, and how many more to sample in their place.

Scores of a reward model are continuous: a group is hardly ever exactly flat, and its shaped rewards
may be nearly so where the scores are not (softplus below 0), or the other way round (`rank`). So a
group is judged by the spread of its raw scores, with a tolerance.

Axes: P prompts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rl.types import JudgedGroup, JudgeKind


def spread(judged: JudgedGroup) -> float:
    """Largest less smallest raw score of the completions that the policy learns from.

    Invalid code is worth as much as wrong code to tests, 0, and less than any to a reward model:
    beside valid code its distance is infinite. Fewer than two completions have no spread.
    """
    invalid = 0.0 if judged.judge is JudgeKind.EXECUTION else -math.inf
    scores = zip(judged.scores_G, judged.taught_G, strict=True)
    values = [invalid if s.value is None else s.value for s, taught in scores if taught]
    lowest, highest = min(values, default=0.0), max(values, default=0.0)
    return highest - lowest if highest > lowest else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refill:
    """How a step gets a full batch of groups that teach (dynamic sampling of DAPO, 2503.14476).

    >>> refill = Refill(min_spread=0.1, num_wanted=16, max_tried=40)
    >>> refill.num_missing(num_teaching=10, num_tried=16), refill.num_missing(10, 38)
    (6, 2)
    """

    min_spread: float  # a group with no more teaches nothing
    num_wanted: int  # groups that teach
    max_tried: int  # groups that are sampled for one step, at most

    def teaching(self, groups_P: Sequence[JudgedGroup]) -> tuple[JudgedGroup, ...]:
        """The groups that teach, at most as many as wanted; the others are thrown away."""
        found = [judged for judged in groups_P if spread(judged) > self.min_spread]
        return tuple(found[: self.num_wanted])

    def num_missing(self, num_teaching: int, num_tried: int) -> int:
        """Groups to sample next; 0 when the batch is full or the bound is reached."""
        return max(0, min(self.num_wanted - num_teaching, self.max_tried - num_tried))
