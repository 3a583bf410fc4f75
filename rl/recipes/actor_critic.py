"""Actor-critic: one program of each problem, compared with what a critic expected of it.

After Gorinski et al. (arXiv 2310.13669): REINFORCE with a small critic that learns all the time,
and replay of earlier programs, each of them once by its syntax tree. The critic reads the words of
the problem; it and the replayed programs are the state of the recipe. A step's rewards are compared
with values from before the step, so that no value knows the reward that it is compared with.

Replayed programs were sampled by older policies: the run's objective weighs them by the ratio of
the trained policy to the log-probs that they were sampled with, as it does with stale rollouts.

Axes: N learned answers.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np

from conf.recipes import ActorCriticArgs
from rl.advantage import batch_advantages
from rl.lessons.critic import Critic, r_squared
from rl.lessons.replay import Kept, NormalForm, kept_of, merged
from rl.recipes.recipe import Lesson, Recipe, Setup, State
from rl.seeds import derive_seed
from rl.types import FloatArray, JudgedGroup, Sample

_CRITIC, _REPLAY = "critic", "replay"


class ActorCritic(Recipe):
    """Programs, a critic of problems, and programs of earlier steps.

    `normal_form` says which programs count as one.
    """

    def __init__(self, setup: Setup, args: ActorCriticArgs, normal_form: NormalForm) -> None:
        super().__init__(setup)
        self._args = args
        self._normal_form = normal_form
        self.replays = args.replay != "none"

    def start(self) -> State:
        """A critic that expects nothing, and no program."""
        seed = derive_seed(self.setup.sampling.seed, "critic")
        critic = {_CRITIC: Critic.new(self._args.critic_units, seed).stored()}
        return (critic if self._args.critic != "none" else {}) | {_REPLAY: []}

    def teach(self, step: int, groups_P: Sequence[JudgedGroup], state: State) -> Lesson:
        """One update of the step's programs and of replayed ones."""
        kept = [Kept(**one) for one in state[_REPLAY]]
        drawn = self._draw(step, kept, sum(int(group.taught_G.sum()) for group in groups_P))
        every = [*groups_P, *(one.group() for one in drawn)]
        surprises = [
            replace(group, rewards_G=(group.rewards_G - value).astype(np.float32))
            for group, value in zip(every, self._values(every, state), strict=True)
        ]
        advantages = batch_advantages(surprises, self.setup.advantage)
        metrics = self._figures(groups_P, surprises[: len(groups_P)])
        if self.replays:
            metrics |= {
                "task/replay/num_kept": float(len(kept)),
                "task/replay/num_drawn": float(len(drawn)),
            }
        if drawn:
            metrics["task/replay/age"] = float(np.mean([step - one.step for one in drawn]))
        own = slice(len(groups_P))
        replayed = slice(len(groups_P), None)
        update = self.policy_gradient(surprises[own], advantages[own])
        again = self.policy_gradient(surprises[replayed], advantages[replayed])
        samples = dealt(update.samples, again.samples, update.minibatches)
        return Lesson(
            updates=(replace(update, samples=samples),),
            advantages_PG=advantages[own],
            metrics=metrics,
        )

    def _values(self, groups: Sequence[JudgedGroup], state: State) -> FloatArray:
        if self._args.critic == "none":
            return np.zeros(len(groups), np.float32)
        questions = [group.group.prompt.question for group in groups]
        return Critic.read(state[_CRITIC]).values(questions).astype(np.float32)

    def _draw(self, step: int, kept: Sequence[Kept], num_new: int) -> list[Kept]:
        """Different programs of the buffer, fewer while it has not as many."""
        share = self._args.replay_share
        num = min(round(num_new * share / (1 - share)), len(kept))
        rng = random.Random(derive_seed(self.setup.sampling.seed, "replay", step))
        return rng.sample(list(kept), num)

    def _figures(
        self, groups_P: Sequence[JudgedGroup], surprises_P: Sequence[JudgedGroup]
    ) -> dict[str, float]:
        """How well the step's own rewards were expected."""
        rewards_N, left_N = _taught(groups_P), _taught(surprises_P)
        if not rewards_N.size:
            return {}
        found = {"task/critic/advantage_std": float(left_N.std())}
        explained = r_squared(rewards_N, rewards_N - left_N)
        if self._args.critic != "none" and explained is not None:
            found["task/critic/r2"] = explained
        return found

    def remember(self, step: int, groups_P: Sequence[JudgedGroup], state: State) -> State:
        """The critic after this step's rewards, and the buffer with its programs."""
        args, after = self._args, dict(state)
        learns = args.critic == "online" or (args.critic == "frozen" and step <= args.frozen_after)
        if learns:
            questions = [g.group.prompt.question for g in groups_P for _ in g.rewards_G[g.taught_G]]
            critic = Critic.read(state[_CRITIC]).learned(
                questions, _taught(groups_P), lr=args.critic_lr, passes=args.critic_passes
            )
            after[_CRITIC] = critic.stored()
        if self.replays:
            old = [Kept(**one) for one in state[_REPLAY]]
            new = [one for group in groups_P for one in kept_of(step, group, self._normal_form)]
            distinct = args.replay == "distinct"
            kept = merged(old, new, distinct=distinct, size=args.buffer_size)
            after[_REPLAY] = [asdict(one) for one in kept]
        return after


def dealt(own: Sequence[Sample], replayed: Sequence[Sample], num: int) -> list[Sample]:
    """Both in their order, in `num` parts that have an even share of each.

    `rl.packing.split_minibatches` cuts minibatches from the front, so that each has its share.

    >>> "".join(dealt("abcd", "xyz", 2)), "".join(dealt("abcd", "xyz", 1))
    ('abxcdyz', 'abcdxyz')
    """
    parts = [
        samples[k * len(samples) // num : (k + 1) * len(samples) // num]
        for k in range(num)
        for samples in (own, replayed)
    ]
    return [sample for part in parts for sample in part]


def _taught(groups: Sequence[JudgedGroup]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The rewards that are learned from."""
    rewards = [float(reward) for group in groups for reward in group.rewards_G[group.taught_G]]
    return np.array(rewards, np.float64)
