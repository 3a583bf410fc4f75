"""The probe: a few held-out problems with tests that a run is asked again and again.

It is neither trained on nor evaluated on at the end: its problems are disjoint from the training
problems and from the test split. What it finds goes to the metrics and to `rl.run.alarm`, never
into a reward. Axes: P problems, G completions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from conf.schema import ProblemLevel
from rl.base.jsonlines import append_lines, keep_lines, read_lines
from rl.problems.levels import make_prompts
from rl.run.alarm import Reading
from rl.run.evaluate import won_pairs
from rl.seeds import derive_seed
from rl.types import JudgedGroup, JudgeKind, Prompt

MIN_PROBLEMS = 16  # fewer say nothing about a policy
_MINIPY_SEED = 1_000_003  # of its problems, whatever the run's seed; the test split has seed 0
_CARVED_SHARE = 10  # at most one in so many training problems is taken for the probe

_MODELS = (JudgeKind.RM, JudgeKind.GENERATIVE)

Problems = list[Prompt]


def minipy_probe(level: ProblemLevel, num: int, held_out: Sequence[Prompt]) -> Problems:
    """`num` problems of the held-out combinations, none of them in `held_out`."""
    taken = {prompt.question for prompt in held_out}
    drawn = make_prompts(level, "eval", num + len(taken), _MINIPY_SEED)
    return [prompt for prompt in drawn if prompt.question not in taken][:num]


def choose(prompts: Sequence[Prompt], num: int) -> Problems:
    """`num` of the problems that have tests; the choice depends on their ids alone."""
    tested = [prompt for prompt in prompts if prompt.tests is not None]
    return sorted(tested, key=lambda prompt: derive_seed(0, "probe", prompt.id))[:num]


def carve(
    train: Sequence[Prompt], held_out: Sequence[Prompt], num: int, needed: int
) -> tuple[Problems, Problems]:
    """Split the training problems into (what is left to train on, the probe).

    The probe takes up to `num` problems with tests, at most a tenth of all, and leaves `needed`. A
    problem that is also in `held_out` is not chosen, and one that is in the probe is left in
    training under no other id.
    """
    room = max(0, min(num, len(train) // _CARVED_SHARE, len(train) - needed))
    evaluated = {prompt.question for prompt in held_out}
    candidates = {p.question: p for p in train if p.question not in evaluated}
    probe = choose(list(candidates.values()), room)
    taken = {prompt.question for prompt in probe}
    rest = [prompt for prompt in train if prompt.question not in taken]
    if len(probe) < MIN_PROBLEMS or len(rest) < needed:
        return list(train), []
    return rest, probe


def exec_agreement(
    groups_P: Sequence[JudgedGroup], passed_PG: Sequence[Sequence[bool]]
) -> float | None:
    """AUC of a model's score against execution, pooled within problems.

    Of all pairs of completions of one problem of which one passes its tests and the other does
    not, the share in which the one that passes has the higher score; equal scores count half: the
    Mann-Whitney estimate of P(score of right > score of wrong | same problem). Only completions
    that the model scored take part: invalid code has no score, and that it loses is a rule
    and no judgement; nor do those that execution could not judge. Of a sum it is the first model's
    score. None when there is no such pair.

    >>> exec_agreement([], []) is None
    True
    """
    won = pairs = 0.0
    for group, passed_G in zip(groups_P, passed_PG, strict=True):
        models = [one for one in group.by_judge if one.judge in _MODELS]
        if not models:
            continue
        judged = zip(models[0].scores_G, group.scores_G, passed_G, strict=True)
        scored = [(s.value, p) for s, v, p in judged if s.value is not None and not v.unjudged]
        scores_N = np.array([value for value, _ in scored], dtype=np.float64)
        found = won_pairs(scores_N, np.array([passed for _, passed in scored], dtype=np.bool_))
        won, pairs = won + found[0], pairs + found[1]
    return won / pairs if pairs else None


def probe_reading(
    step: int, groups_P: Sequence[JudgedGroup], passed_PG: Sequence[Sequence[bool]]
) -> Reading:
    """What the alarm needs of one probe."""
    return Reading(
        step=step,
        passed_P=np.array([np.mean(passed_G) for passed_G in passed_PG], dtype=np.float32),
        rewards_P=np.array([group.rewards_G.mean() for group in groups_P], dtype=np.float32),
    )


class ProbeLog:
    """`probe.jsonl`: a line per probe, with the numbers of each problem in the order of the probe.

    A resumed run reads it, so that its alarm knows what came before.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, found: Reading) -> None:
        """Append one line; it is on disk when this returns."""
        line = {
            "step": found.step,
            "passed": [round(float(value), 6) for value in found.passed_P],
            "reward": [round(float(value), 6) for value in found.rewards_P],
        }
        append_lines(self._path, [line])

    def keep_until(self, step: int, num_problems: int) -> Iterator[Reading]:
        """Drop the lines after `step` and yield the others.

        Readings of another number of problems, from before a change of the configuration, cannot
        be compared and are left out.
        """
        keep_lines(self._path, lambda line: line.value["step"] <= step)
        for line in read_lines(self._path):
            found = line.value
            if len(found["passed"]) == num_problems:
                yield Reading(
                    step=found["step"],
                    passed_P=np.array(found["passed"], dtype=np.float32),
                    rewards_P=np.array(found["reward"], dtype=np.float32),
                )
