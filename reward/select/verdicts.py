"""What a language model says of the programs of a problem, and the choices that it makes of it.

Axes: N programs of a problem, Q sizes of subsets, P problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reward.select.select import BoolArray, ranking_curve
from rl.run.evaluate import best_first


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """What a language model said of N programs of one problem; a line of `verdicts-*.jsonl`.

    One program at a time gives `scores`, lists give `chosen`. The counts are those of the choice
    among all N.
    """

    problem_id: str
    codes: str  # digest of the programs
    scores: list[float | None] | None  # from 0 to 1; None: no program, or nothing could be read
    chosen: dict[str, int] | None  # of the first n programs the one that is left, by n
    num_requests: int  # answers that were asked for
    num_unread: int  # of these
    num_choices: int  # lists; or 1 where programs with a score each differ
    num_undecided: int  # of these: left to the order of the samples
    seconds: dict[str, float] | None  # by stage; None when other problems were judged beside it

    def curve(
        self, valid_N: BoolArray, correct_N: BoolArray, sizes_Q: Sequence[int]
    ) -> list[float]:
        """Accuracy for each size: over all subsets with a score each, else of the first n samples.

        Of one program there is nothing to choose, and the value is that of a random one.
        """
        if self.chosen is None:
            return ranking_curve(self._ranking(valid_N), correct_N, sizes_Q)
        random = float(correct_N.mean())
        return [random if n == 1 else float(correct_N[self.chosen[str(n)]]) for n in sizes_Q]

    def _ranking(self, valid_N: BoolArray) -> list[int]:
        """Highest score first; one that could not be read stands where the mean of the others is.

        What is no program comes last, ties in order.
        """
        scores = self.scores or []
        read = [score for score in scores if score is not None]
        middle = float(np.mean(read)) if read else 0.0
        return best_first(np.array([middle if s is None else s for s in scores]), valid_N)


def figures_of_verdicts(verdicts_P: Sequence[Verdicts]) -> dict[str, int | float]:
    """How often the model was asked, and how often it did not say what to choose."""
    num_requests = sum(found.num_requests for found in verdicts_P)
    return {
        "requests": num_requests,
        "requests_per_choice": num_requests / len(verdicts_P),
        "unread": sum(found.num_unread for found in verdicts_P),
        "choices": sum(found.num_choices for found in verdicts_P),
        "undecided": sum(found.num_undecided for found in verdicts_P),
    }
