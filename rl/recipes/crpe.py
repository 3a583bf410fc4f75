"""CRPE, stage 3: the first step that goes wrong, and Step-DPO (arXiv 2505.10594, 2406.18629).

Of each problem with a right and a wrong program the wrong one is taken apart into steps, and the
policy goes on from each of its beginnings. The first step after which nothing right was ever seen
is the one that fails. It is rejected beside the step that a right answer took at the same place:
both are learned under the beginning that they share, and nothing after them is. The stages before,
which need expert data, are not here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from conf.errors import DataError
from conf.recipes import CrpeArgs
from rl.loss import DpoObjective, NllObjective
from rl.recipes.recipe import Lesson, Recipe, Setup, State, Update, of_task
from rl.types import Ask, Finish, JudgedGroup, Prompt, Sample, Score, Task


@dataclass(frozen=True, slots=True)
class Fork:
    """Where a wrong answer leaves the right ones."""

    number: int  # of the step, from 0
    num_steps: int  # of the wrong answer
    prefix: str  # the steps before
    right: str
    wrong: str
    right_ends: bool  # the step is the last of its answer
    wrong_ends: bool
    right_answer: str  # that the step is of
    wrong_answer: str


class Crpe(Recipe):
    """Programs, then programs that go on from the beginnings of a wrong one."""

    def __init__(self, setup: Setup, args: CrpeArgs) -> None:
        super().__init__(setup)
        self._args = args
        self.needs_reference = args.learn != "sft"

    def follow_up(self, step: int, bundle: Sequence[JudgedGroup]) -> Sequence[Ask]:
        """Programs from each beginning of the first wrong one, where a right one is known too."""
        del step
        wrong = _first_wrong(bundle)
        if wrong is None or not _right_texts(bundle):
            return ()
        problem = bundle[0].group.ask.problem
        sampling = replace(self.setup.sampling, group_size=self._args.num_rollouts)
        prefixes = beginnings(steps_of(wrong, self._args.step_end))[: self._args.max_prefixes]
        return [
            Ask(
                prompt=replace(problem, id=f"{problem.id}#step-{number}"),
                problem=problem,
                sampling=sampling,
                task=Task.STEP,
                prefix=prefix,
            )
            for number, prefix in enumerate(prefixes, start=1)
            if self.setup.fits(problem, prefix)
        ]

    def teach(self, step: int, groups_P: Sequence[JudgedGroup], state: State) -> Lesson:
        """One update of Step-DPO, or of a control; of each problem that has a fork one pair."""
        del state
        imitates = self._args.learn == "sft"
        forks = [
            (problem, fork)
            for problem, own in _by_problem(groups_P)
            if (fork := self._fork(own)) is not None
        ]
        update = Update(
            samples=[
                sample for problem, fork in forks for sample in self._learned(problem, fork, step)
            ],
            objective=NllObjective() if imitates else DpoObjective(beta=self._args.beta),
            minibatches=self.setup.minibatches_per_step,
            group_of=1 if imitates else 2,
            needs_old=False,
        )
        metrics = {"task/step/pairs": float(len(forks))}
        metrics |= _figures(groups_P, [fork for _, fork in forks])
        nothing_PG = [np.zeros(len(group.scores_G), np.float32) for group in groups_P]
        return Lesson(updates=(update,), advantages_PG=nothing_PG, metrics=metrics)

    def _fork(self, own: Sequence[JudgedGroup]) -> Fork | None:
        wrong = _first_wrong(own)
        seen = {group.group.ask.prefix for group in own}
        return (
            None if wrong is None else fork_of(wrong, _right_texts(own), seen, self._args.step_end)
        )

    def _learned(self, problem: Prompt, fork: Fork, step: int) -> list[Sample]:
        """The right step and the wrong one; or the answers that they are of, or the right one.

        Nothing where the tokens of one are too many.
        """
        prefix, sides = fork.prefix, [(fork.right, fork.right_ends), (fork.wrong, fork.wrong_ends)]
        if self._args.learn != "step":
            prefix, sides = "", [(fork.right_answer, True), (fork.wrong_answer, True)]
        if self._args.learn == "sft":
            del sides[1]
        try:
            learned = [
                self.setup.encode(problem, text, prefix=prefix, ends=ends) for text, ends in sides
            ]
        except DataError:
            return []
        return [
            replace(sample, sample_idx=index, policy_version=step - 1)
            for index, sample in enumerate(learned)
        ]


def steps_of(text: str, step_end: str) -> list[str]:
    """An answer in steps: each ends where a match ends, the last one with the text.

    >>> steps_of("a b\\nc", r"\\n| ")
    ['a ', 'b\\n', 'c']
    >>> steps_of("return x for x", "(?= for )")
    ['return x', ' for x']
    """
    ends = sorted({match.end() for match in re.finditer(step_end, text)} - {0, len(text)})
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]


def beginnings(steps: Sequence[str]) -> list[str]:
    """What comes before each step but the first.

    >>> beginnings(["a", "b", "c"])
    ['a', 'ab']
    """
    return ["".join(steps[:number]) for number in range(1, len(steps))]


def fork_of(
    wrong: str, right: Sequence[str], seen: Sequence[str] | set[str], step_end: str
) -> Fork | None:
    """The first step of a wrong answer after which no right one is known, and a right one for it.

    `seen` are the beginnings that the policy went on from; behind those nobody looked, so that a
    fork after them is none.

    >>> fork_of("ab-cd-ef", ["ab-cx-yz"], {"", "ab-", "ab-cd-"}, "-")
    ... # doctest: +NORMALIZE_WHITESPACE
    Fork(number=1, num_steps=3, prefix='ab-', right='cx-', wrong='cd-', right_ends=False,
         wrong_ends=False, right_answer='ab-cx-yz', wrong_answer='ab-cd-ef')
    """
    steps = steps_of(wrong, step_end)
    before = ""
    for number, step in enumerate(steps):
        last = number == len(steps) - 1
        after = before + step
        if last or not any(text.startswith(after) for text in right):
            better = next((text for text in right if text.startswith(before)), None)
            if better is None or before not in seen or not (last or after in seen):
                return None
            taken, *rest = steps_of(better[len(before) :], step_end)
            if taken == step:
                return None
            return Fork(number, len(steps), before, taken, step, not rest, last, better, wrong)
        before = after
    return None


def _by_problem(groups_P: Sequence[JudgedGroup]) -> Iterator[tuple[Prompt, list[JudgedGroup]]]:
    problems: dict[str, list[JudgedGroup]] = {}
    for group in groups_P:
        problems.setdefault(group.group.ask.problem.id, []).append(group)
    for own in problems.values():
        yield own[0].group.ask.problem, own


def _first_wrong(groups: Sequence[JudgedGroup]) -> str | None:
    """The first program that tests have called wrong; None where there is none."""
    answers = _finished(of_task(groups, Task.CODE))
    return next((text for text, score in answers if _is_wrong(score)), None)


def _is_wrong(score: Score) -> bool:
    return score.verdict is not None and score.verdict.is_label and not score.passed


def _right_texts(groups: Sequence[JudgedGroup]) -> list[str]:
    return [text for text, score in _finished(groups) if score.passed]


def _finished(groups: Sequence[JudgedGroup]) -> Iterator[tuple[str, Score]]:
    """Answers that the policy has ended, with their scores."""
    for group in groups:
        for completion, score in zip(group.group.completions_G, group.scores_G, strict=True):
            if completion.finish is Finish.STOP:
                yield completion.text, score


def _figures(groups_P: Sequence[JudgedGroup], forks: Sequence[Fork]) -> Mapping[str, float]:
    """What was found; nothing where nothing was looked for."""
    found: dict[str, float] = {}
    from_beginnings = of_task(groups_P, Task.STEP)
    if from_beginnings:
        passed = [score.passed for group in from_beginnings for score in group.scores_G]
        found["task/step/right"] = float(np.mean(passed))
    if forks:
        found["task/step/number"] = float(np.mean([fork.number for fork in forks]))
        found["task/step/num_steps"] = float(np.mean([fork.num_steps for fork in forks]))
    return found
