"""Recipe of an RL run; the default is GRPO on programs (arXiv 2402.03300).

A recipe is pure: no clock, no file, no actor, no global random state (`rl.seeds.derive_seed`).
Every answer is a function of the arguments, so that a resumed run repeats an uninterrupted one, and
faults and delays change nothing.

Axes: P groups, in the order of their problems and then of asking; G completions of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from rl.advantage import AdvantageConfig, batch_advantages
from rl.lessons.truncated import TruncationConfig
from rl.loss import Objective
from rl.samples import build_samples
from rl.types import (
    Ask,
    FloatArray,
    IntArray,
    JudgedGroup,
    Prompt,
    Sample,
    SamplingConfig,
    Task,
)

State = Mapping[str, Any]  # plain JSON values: a state travels through checkpoints
# What is taken from outside.
Labels = Literal[
    "gold_tests", "gold_code", "gold_tests, gold_code", "rm", "given_answers", "given_pairs", "none"
]


class Fits(Protocol):
    """Says whether a prompt is short enough."""

    def __call__(self, prompt: Prompt, prefix: str = "") -> bool:
        """Whether it may be asked, with a given start of the answer."""
        ...


class Encode(Protocol):
    """Makes given texts trainable, with the policy's tokenizer and chat template."""

    def __call__(
        self, prompt: Prompt, answer: str, *, prefix: str = "", ends: bool = True
    ) -> Sample:
        """The sequence of an answer that begins with `prefix`, which the prompt's tokens end with.

        `ends`: the end-of-sequence token closes it. Raises DataError where it is too long.
        """
        ...


def no_tokenizer(prompt: Prompt, answer: str, *, prefix: str = "", ends: bool = True) -> Sample:
    """Raise: a recipe that encodes texts needs the policy's tokenizer."""
    raise ValueError(f"{prompt.id}: there is no tokenizer to encode {answer!r:.40} with")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What every recipe is made of: the settings of sampling and of the policy gradient."""

    sampling: SamplingConfig
    advantage: AdvantageConfig
    objective: Objective
    minibatches_per_step: int
    keep_zero_advantage: bool  # the loss has a term that needs none: KL penalty, entropy bonus
    truncation: TruncationConfig = TruncationConfig()  # noqa: RUF009 - it cannot change
    fits: Fits = lambda prompt, prefix="": True  # of prompts that are made
    encode: Encode = no_tokenizer
    # Where each of some tokens ends in their text.
    ends: Callable[[IntArray], IntArray] = np.zeros_like


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Update:
    """Optimizer steps under one objective: one for each minibatch."""

    samples: Sequence[Sample]
    objective: Objective
    minibatches: int = 1
    group_of: int = 1  # consecutive samples that belong together: 2 for preference pairs
    needs_old: bool = True  # the objective reads log-probs of the policy that began the step
    begins_anew: bool = False  # or rather of the policy after the updates before it


def sharing_old(updates: Sequence[Update]) -> list[list[Update]]:
    """Updates that have their old policy in common, in order."""
    parts: list[list[Update]] = []
    for one in updates:
        if one.begins_anew or not parts:
            parts.append([])
        parts[-1].append(one)
    return parts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lesson:
    """All that is learned in one RL step, in order."""

    updates: Sequence[Update]
    advantages_PG: Sequence[FloatArray]  # of the judged groups, for the record
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])  # of `rl.metrics`

    @property
    def num_samples(self) -> int:
        """Sequences that carry a gradient."""
        return sum(len(update.samples) for update in self.updates)


class Recipe:
    """GRPO on programs. Other recipes derive from it and change what they need to.

    `max_updates` bounds the updates of a lesson: the learning rate's schedule counts on it, and a
    step with fewer does not shift it. `labels` says what the recipe learns from, None that it is
    what the judge of programs has. With `needs_reference` the ranks hold the initial policy too;
    with `replays` samples of earlier steps are learned, so that not all are of the newest policy.
    """

    max_updates: int = 1
    labels: Labels | None = None
    needs_reference: bool = False
    replays: bool = False

    def __init__(self, setup: Setup) -> None:
        self.setup = setup

    def start(self) -> State:
        """The state before the first step."""
        return {}

    def ask(self, step: int, problems_P: Sequence[Prompt], state: State) -> Sequence[Ask]:
        """What is sampled for the problems of a step; nothing costs nothing.

        `state` is that of the step before, of `max_staleness` steps earlier in an asynchronous run.
        """
        del step, state
        return [Ask.code(problem, self.setup.sampling) for problem in problems_P]

    def ask_instead(self, step: int, problem: Prompt, state: State) -> Sequence[Ask]:
        """What is asked about a problem that takes the place of one that taught nothing."""
        return self.ask(step, [problem], state)

    def grade(self, bundle: Sequence[JudgedGroup]) -> Sequence[JudgedGroup]:
        """The judged groups of one problem, with the rewards that this recipe gives them."""
        return bundle

    def follow_up(self, step: int, bundle: Sequence[JudgedGroup]) -> Sequence[Ask]:
        """What is sampled next for a problem whose groups are graded; nothing ends it."""
        del step, bundle
        return ()

    def teach(self, step: int, groups_P: Sequence[JudgedGroup], state: State) -> Lesson:
        """What is learned from the graded groups of a step: one policy-gradient update of all."""
        del step, state
        advantages_PG = batch_advantages(groups_P, self.setup.advantage)
        update = self.policy_gradient(groups_P, advantages_PG)
        return Lesson(updates=(update,), advantages_PG=advantages_PG)

    def remember(self, step: int, groups_P: Sequence[JudgedGroup], state: State) -> State:
        """The state after a step, given that of the step before."""
        del step, groups_P
        return state

    def exam(self, problems_P: Sequence[Prompt], sampling: SamplingConfig) -> Sequence[Ask]:
        """What the held-out evaluation asks."""
        return [Ask.code(problem, sampling) for problem in problems_P]

    def examine(self, bundle: Sequence[JudgedGroup], sampling: SamplingConfig) -> Sequence[Ask]:
        """What the evaluation asks next about a problem; nothing ends it."""
        del bundle, sampling
        return ()

    def mark(self, groups_P: Sequence[JudgedGroup]) -> Mapping[str, float]:
        """Figures of the evaluation beside pass@1; programs have the verdict of their tests."""
        del groups_P
        return {}

    def policy_gradient(
        self, groups_P: Sequence[JudgedGroup], advantages_PG: Sequence[FloatArray]
    ) -> Update:
        """The update of the run's own objective on these groups."""
        keep_zero = self.setup.keep_zero_advantage
        return Update(
            samples=build_samples(groups_P, advantages_PG, keep_zero=keep_zero),
            objective=self.setup.objective,
            minibatches=self.setup.minibatches_per_step,
        )


def of_task(groups_P: Sequence[JudgedGroup], task: Task) -> list[JudgedGroup]:
    """The groups whose answers are of one kind."""
    return [group for group in groups_P if group.task is task]


class History:
    """States of the last steps: an asynchronous run asks with that of `max_staleness` steps before.

    Which state a step sees depends on the steps alone, never on what happened to be done first.

    >>> history = History({0: {"n": 0}}, max_staleness=1)
    >>> for step in (1, 2, 3):
    ...     history.add(step, {"n": step})
    >>> history.seen_by(4), history.newest
    ({'n': 2}, {'n': 3})
    """

    def __init__(self, states: Mapping[int, State], max_staleness: int) -> None:
        self._states = dict(states)
        self._max_staleness = max_staleness

    def seen_by(self, step: int) -> State:
        """The state that step `step` asks with."""
        return self._states[max(step - 1 - self._max_staleness, min(self._states))]

    def add(self, step: int, state: State) -> None:
        """Take the state after `step`; those that no later step sees are forgotten."""
        self._states[step] = state
        for old in [known for known in self._states if known < step - self._max_staleness]:
            del self._states[old]

    @property
    def newest(self) -> State:
        """The state after the newest step."""
        return self._states[max(self._states)]

    @property
    def states(self) -> Mapping[int, State]:
        """What a checkpoint stores, by step."""
        return self._states
