"""Choosing one of N programs: selectors, and what they are worth over N.

A selector sees `Candidates`, never whether a program is right. Two kinds:

- a ranking puts all N in an order that does not depend on which others there are (a score each).
  Its expected accuracy over all subsets of size n has a closed form (`ranking_curve`)
- a vote depends on the others (agreement, clusters, stages); its curve is a mean over subsets
  (`vote_curve`)

Axes: N programs, M generated tests, I distinct inputs, Q sizes of subsets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from conf.errors import UserError
from rl.run.evaluate import BoolArray, best_first, pass_at_k
from rl.seeds import derive_seed

_NUM_SUBSETS = 200  # of one problem and size; all of them where there are no more

Ranking = Callable[["Candidates"], list[int]]
Vote = Callable[["Candidates"], int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """What is known of N >= 1 programs to one problem without knowing which is right."""

    valid_N: BoolArray  # the program parses
    scores_N: NDArray[np.float64]  # of the reward model; -inf where it is not valid
    passed_NM: BoolArray  # generated tests
    outputs_NI: NDArray[np.int32]  # equal in a column: equal outputs; -1: it did not finish

    def take(self, chosen: Sequence[int]) -> Candidates:
        """A part of the programs."""
        rows = np.asarray(chosen)
        return Candidates(
            valid_N=self.valid_N[rows],
            scores_N=self.scores_N[rows],
            passed_NM=self.passed_NM[rows],
            outputs_NI=self.outputs_NI[rows],
        )


# ---------------------------------------------------------------- rankings: best first


def by_reward_model(candidates: Candidates) -> list[int]:
    """Highest score first (CodeScaler, best-of-N); what does not parse comes last, ties in order.

    >>> def scored(*scores: float) -> Candidates:
    ...     n = len(scores)
    ...     return Candidates(
    ...         valid_N=np.isfinite(scores), scores_N=np.array(scores),
    ...         passed_NM=np.zeros((n, 0), bool), outputs_NI=np.zeros((n, 0), np.int32),
    ...     )
    >>> by_reward_model(scored(-math.inf, 0.5, 2.0, 0.5))
    [2, 1, 3, 0]
    """
    return best_first(candidates.scores_N, candidates.valid_N)


def by_generated_tests(candidates: Candidates) -> list[int]:
    """Most generated tests passed first, ties in order (CURE, arXiv 2506.03136)."""
    return best_first(candidates.passed_NM.sum(axis=1))


# ---------------------------------------------------------------- votes


def mbr_exec(candidates: Candidates) -> int:
    """The program that agrees with most others: MBR-exec (arXiv 2204.11454), 0/1 loss.

    Two programs agree when they give the same on every input; no expected output is needed. Our
    rules for what the paper leaves open: not finishing on an input is an output like another, a
    program that finishes on none agrees with nobody, and ties go to the first.
    """
    outputs_NI = candidates.outputs_NI
    agree_NN = np.all(outputs_NI[:, None] == outputs_NI[None], axis=2)
    finishes_N = np.any(outputs_NI >= 0, axis=1)
    return int(np.argmax(np.sum(agree_NN & finishes_N[:, None], axis=1)))


def codet(candidates: Candidates) -> int:
    """First of the best cluster: CodeT's dual execution agreement (arXiv 2207.10397).

    Programs that pass exactly the same generated tests form a cluster; it is worth the number of
    its programs times the number of these tests. Ties go to the cluster of the earliest program.
    """
    clusters: dict[bytes, list[int]] = {}
    for index, passed_M in enumerate(candidates.passed_NM):
        clusters.setdefault(passed_M.tobytes(), []).append(index)
    num_passed_N = candidates.passed_NM.sum(axis=1)
    best = max(clusters.values(), key=lambda members: len(members) * num_passed_N[members[0]])
    return best[0]


def staged(candidates: Candidates, top_k: int, num_tests: int) -> int:
    """Syntax, then the reward model, then a few tests, each stage on what the one before left.

    After staged verification (Orlanski et al., arXiv 2506.10056), which puts cheap filters first.
    Of the `top_k` programs with the highest scores, the one that passes most of the first
    `num_tests` generated tests; ties go to the higher score.
    """
    finalists = by_reward_model(candidates)[:top_k]
    num_passed = candidates.passed_NM[finalists, :num_tests].sum(axis=1)
    return finalists[int(np.argmax(num_passed))]


# ---------------------------------------------------------------- what they are worth over N


def random_curve(correct_N: BoolArray, sizes_Q: Sequence[int]) -> list[float]:
    """Probability that a program drawn at random is right; the same for every size."""
    return [float(correct_N.mean())] * len(sizes_Q)


def oracle_curve(correct_N: BoolArray, sizes_Q: Sequence[int]) -> list[float]:
    """Probability that one of n is right: what a selector with the problem's own tests reaches."""
    num, num_correct = len(correct_N), int(correct_N.sum())
    return [pass_at_k(num, num_correct, size) for size in sizes_Q]


def ranking_curve(
    ranking: Sequence[int], correct_N: BoolArray, sizes_Q: Sequence[int]
) -> list[float]:
    """Expected accuracy of the best-ranked of n programs, over all subsets of size n; exact.

    The program at 0-based rank r is chosen when it is drawn and none of the r better ones is, which
    C(N-1-r, n-1) of the C(N, n) subsets have in common. The order is total (ties go to the earlier
    program, as the selectors do it), so the value at n = N is that of the selector's own choice.
    Raises UserError unless 1 <= n <= N.

    >>> ranking_curve([1, 0, 2], np.array([False, True, False]), [1, 2, 3])
    [0.3333333333333333, 0.6666666666666666, 1.0]
    """
    num = len(correct_N)
    _check_sizes(sizes_Q, num)
    right_ranks = [rank for rank, index in enumerate(ranking) if correct_N[index]]
    return [
        sum(math.comb(num - 1 - rank, size - 1) for rank in right_ranks) / math.comb(num, size)
        for size in sizes_Q
    ]


def vote_curve(
    vote: Vote,
    candidates: Candidates,
    correct_N: BoolArray,
    sizes_Q: Sequence[int],
    identity: tuple[int, str],
) -> list[float]:
    """Expected accuracy of the chosen one of n programs, over subsets of size n.

    Exact where there are at most 200 subsets, else the mean over 200 that are drawn from a seed
    made of `identity` (run seed, problem id): every vote sees the same ones. Raises UserError
    unless 1 <= n <= N.
    """
    num = len(correct_N)
    _check_sizes(sizes_Q, num)
    values: list[float] = []
    for size in sizes_Q:
        subsets = _subsets(num, size, derive_seed(identity[0], "subsets", identity[1], size))
        hits = [correct_N[chosen[vote(candidates.take(chosen))]] for chosen in subsets]
        values.append(float(np.mean(hits)))
    return values


def _check_sizes(sizes_Q: Sequence[int], num: int) -> None:
    for size in sizes_Q:
        if not 1 <= size <= num:
            raise UserError(
                f"n={size}: must be from 1 to the number of samples ({num}); sample more or ask "
                "for a smaller n"
            )


def _subsets(num: int, size: int, seed: int) -> Iterable[Sequence[int]]:
    """Subsets in ascending order of index: ties go to the earlier sample in each of them."""
    if math.comb(num, size) <= _NUM_SUBSETS:
        return combinations(range(num), size)
    rng = np.random.default_rng(seed)
    return [np.sort(rng.permutation(num)[:size]).tolist() for _ in range(_NUM_SUBSETS)]
