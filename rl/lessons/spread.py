"""Groups that teach nothing, and the problems that take their place.

Scores of a reward model are continuous: a group is hardly ever exactly flat, and its shaped rewards
may be nearly so where the scores are not (softplus below 0), or the other way round (`rank`). So a
group is judged by the spread of its raw scores, with a tolerance.

Axes: P problems.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from rl.types import JudgedGroup, JudgeKind, Prompt, Task


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


def without_loss(judged: JudgedGroup) -> JudgedGroup:
    """The group as one of which nothing is learned; no baseline or scale counts it."""
    return replace(judged, masked_G=np.ones(len(judged.scores_G), np.bool_))


def without_unjudged(judged: JudgedGroup) -> JudgedGroup:
    """The group in which nothing is learned of programs that execution could not judge."""
    unjudged_G = np.array([score.unjudged for score in judged.scores_G], np.bool_)
    if not unjudged_G.any():
        return judged
    return replace(judged, masked_G=unjudged_G | ~judged.taught_G)


def problem_of(bundle: Sequence[JudgedGroup]) -> str:
    """Id of the problem that the groups of a bundle are about."""
    return bundle[0].group.ask.problem.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Refill:
    """Problems of a step that take the place of flat ones (dynamic sampling, DAPO 2503.14476).

    Each place has a line of its own, so that who replaces whom depends on no timing.
    """

    min_spread: float | None = None  # a group with no more teaches nothing; None: all teach
    instead: Mapping[str, Prompt] = field(default_factory=dict[str, Prompt])  # by id of a problem

    @classmethod
    def of(
        cls, problems_P: Sequence[Prompt], spare: Sequence[Prompt], min_spread: float | None
    ) -> Refill:
        """Deal the spare problems to the places of a step, in turn.

        >>> a, b, c, d, e = (Prompt(id=name, messages=()) for name in "abcde")
        >>> refill = Refill.of([a, b], [c, d, e], min_spread=0.1)
        >>> [(old, new.id) for old, new in refill.instead.items()]
        [('a', 'c'), ('b', 'd'), ('c', 'e')]
        """
        line = [*problems_P, *spare]
        later = line[len(problems_P) :]
        return cls(
            min_spread=min_spread,
            instead={old.id: new for old, new in zip(line, later, strict=False)},
        )

    def is_flat(self, groups: Sequence[JudgedGroup]) -> bool:
        """Whether groups of one problem have programs, and no programs to tell apart."""
        programs = [group for group in groups if group.task is Task.CODE]
        if self.min_spread is None or not programs:
            return False
        return all(spread(group) <= self.min_spread for group in programs)

    def places(self, problem_ids: Sequence[str]) -> Mapping[str, int]:
        """Ranks of all problems that a step may ask about: each behind the one that it replaces."""
        names = (name for first in problem_ids for name in self._line(first))
        return {name: rank for rank, name in enumerate(dict.fromkeys(names))}

    def _line(self, problem_id: str) -> Iterator[str]:
        yield problem_id
        while problem_id in self.instead:
            problem_id = self.instead[problem_id].id
            yield problem_id


NO_REFILL = Refill()
