"""Actor-critic: what a reward is compared with, what the critic learns, and what is replayed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from conf.recipes import ActorCriticArgs
from reward.code.normal_form import normalise
from rl.advantage import AdvantageConfig
from rl.lessons.critic import Critic
from rl.loss import LossDenominators, MicrobatchTensors, Outputs, PolicyObjective
from rl.packing import Packing, build_minibatch, split_minibatches
from rl.recipes.actor_critic import ActorCritic
from rl.recipes.recipe import State
from rl.types import Extraction, JudgedGroup, Prompt, Reason, SamplingConfig
from tests.unit.rl.fakes import make_group, make_judged, make_prompts, setup

pytestmark = pytest.mark.unit

PROBLEMS = make_prompts(4)


def actor_critic(minibatches: int = 1, **args: object) -> ActorCritic:
    made = ActorCriticArgs(**args)  # pyright: ignore[reportArgumentType]  # by name
    sampling = SamplingConfig(group_size=1, max_tokens=8)
    advantage = AdvantageConfig(scale="none", std_floor=0.05, baseline="none")
    settings = setup(sampling=sampling, advantage=advantage, minibatches_per_step=minibatches)
    return ActorCritic(settings, made, normalise)


def answered(
    rewards: Sequence[float],
    version: int = 0,
    codes: Sequence[str] = (),
    problems: Sequence[Prompt] = PROBLEMS,
) -> list[JudgedGroup]:
    """One program of each problem."""
    return [
        dataclasses.replace(
            make_judged(make_group(problem, 1, version), [reward]),
            extractions_G=(Extraction(reason=Reason.OK, code=code),),
        )
        for problem, reward, code in zip(
            problems, rewards, codes or [f"x = {i}" for i in range(len(rewards))], strict=False
        )
    ]


def after(recipe: ActorCritic, steps: int, rewards: Sequence[float] = (1.0, 0.0)) -> State:
    state = recipe.start()
    for step in range(1, steps + 1):
        state = json.loads(json.dumps(recipe.remember(step, answered(rewards, step - 1), state)))
    return state


def test_one_program_of_each_problem_is_asked():
    asks = actor_critic().ask(1, PROBLEMS, {})
    assert [(ask.prompt.id, ask.sampling.group_size) for ask in asks] == [
        (f"p{i}", 1) for i in range(4)
    ]


def test_a_reward_is_compared_with_what_the_critic_expected_before_the_step():
    recipe = actor_critic(replay="none", critic_lr=0.02, critic_passes=50)
    state = after(recipe, steps=3)
    before = Critic.read(state["critic"]).values([p.question for p in PROBLEMS[:2]])
    assert before == pytest.approx([1.0, 0.0], abs=0.1)
    lesson = recipe.teach(4, answered([0.5, 0.5]), state)
    assert np.concatenate(lesson.advantages_PG) == pytest.approx(0.5 - before, abs=1e-6)
    (update,) = lesson.updates
    assert [s.advantage for s in update.samples] == pytest.approx(0.5 - before, abs=1e-6)
    assert update.objective is recipe.setup.objective and update.needs_old
    again = recipe.teach(4, answered([1.0, 0.0]), state)
    assert again.metrics["task/critic/r2"] > 0.9
    assert again.metrics["task/critic/advantage_std"] < 0.1


def test_without_a_critic_the_reward_itself_is_learned():
    recipe = actor_critic(critic="none", replay="none")
    state = after(recipe, steps=2)
    assert "critic" not in state
    lesson = recipe.teach(3, answered([1.0, 0.25]), state)
    assert np.concatenate(lesson.advantages_PG).tolist() == [1.0, 0.25]
    assert lesson.metrics == {"task/critic/advantage_std": pytest.approx(0.375)}


def test_a_frozen_critic_learns_at_first_and_an_online_one_always():
    def learned(critic: str, step: int) -> bool:
        recipe = actor_critic(critic=critic, frozen_after=2, replay="none")
        state = recipe.start()
        return recipe.remember(step, answered([1.0]), state)["critic"] != state["critic"]

    assert [learned("frozen", step) for step in (1, 2, 3)] == [True, True, False]
    assert all(learned("online", step) for step in (1, 3))


def test_no_masked_answer_teaches_the_critic_or_is_replayed():
    recipe = actor_critic()
    (group,) = answered([1.0])
    masked = dataclasses.replace(group, masked_G=np.array([True]))
    state = recipe.start()
    assert recipe.remember(1, [masked], state) == state
    assert recipe.teach(1, [masked], state).num_samples == 0


@pytest.mark.parametrize(("share", "num"), [(0.5, 2), (0.75, 4), (0.1, 0)])
def test_the_share_of_replayed_programs_is_of_all_that_a_step_learns(share: float, num: int):
    recipe = actor_critic(critic="none", replay="all", replay_share=share)
    state = after(recipe, steps=2, rewards=(0.5, 0.75))
    lesson = recipe.teach(3, answered([1.0, 1.0], version=2), state)
    versions = [sample.policy_version for sample in lesson.updates[0].samples]
    assert versions[:2] == [2, 2] and len(versions) == 2 + num
    assert set(versions[2:]) <= {0, 1}
    assert len(lesson.advantages_PG) == 2  # of the step's own
    assert lesson.metrics["task/replay/num_kept"] == 4
    assert lesson.metrics["task/replay/num_drawn"] == num
    assert ("task/replay/age" in lesson.metrics) == bool(num)


@pytest.mark.parametrize(("minibatches", "shares"), [(2, [2, 2]), (4, [1] * 4), (1, [4])])
def test_every_minibatch_has_its_share_of_the_replayed_programs(
    minibatches: int, shares: list[int]
):
    recipe = actor_critic(minibatches, critic="none", replay="all")
    old = [dataclasses.replace(p, id=f"old-{p.id}") for p in PROBLEMS]
    state = recipe.remember(1, answered([0.5] * 4, problems=old), recipe.start())
    (update,) = recipe.teach(2, answered([1.0] * 4, version=1), state).updates
    replayed = [
        sum(sample.policy_version == 0 for sample in samples)
        for samples in split_minibatches(update.samples, update.minibatches)
    ]
    assert replayed == shares
    own = [s.prompt_id for s in update.samples if s.policy_version == 1]
    assert own == [problem.id for problem in PROBLEMS]


def test_a_replayed_reward_is_compared_with_what_the_critic_expects_today():
    recipe = actor_critic(replay="all", critic_lr=0.02, critic_passes=50)
    state = after(recipe, steps=4)
    (value,) = Critic.read(state["critic"]).values([PROBLEMS[0].question])
    samples = recipe.teach(5, answered([0.0, 0.0, 0.0, 0.0], version=4), state).updates[0].samples
    replayed = [s for s in samples if s.policy_version < 4 and s.prompt_id == "p0"]
    assert replayed
    assert [s.advantage for s in replayed] == pytest.approx([1.0 - value] * len(replayed), abs=1e-6)


def test_distinct_programs_are_kept_once_and_all_are_kept_as_often_as_they_come():
    codes = ["def f(a): return a", "def f(a): return 0"]
    other_names = ["def f(b): return b", "def f(b): return 0"]

    def kept(replay: str) -> list[int]:
        recipe = actor_critic(replay=replay, buffer_size=3)
        state = recipe.remember(1, answered([1, 0], 0, codes), recipe.start())
        state = recipe.remember(2, answered([1, 0], 1, other_names), state)
        return [one["policy_version"] for one in state["replay"]]

    assert kept("distinct") == [1, 1]
    assert kept("all") == [0, 1, 1]
    assert kept("none") == []
    assert [actor_critic(replay=r).replays for r in ("distinct", "all", "none")] == [
        *(True, True, False)
    ]


def test_a_lesson_is_a_function_of_the_step_and_of_the_stored_state():
    recipe = actor_critic()
    state = after(recipe, steps=6)

    def drawn(step: int) -> list[tuple[str, int]]:
        samples = recipe.teach(step, answered([1.0, 0.0]), state).updates[0].samples
        return [(s.prompt_id, s.policy_version) for s in samples]

    assert drawn(7) == drawn(7)
    recipe = actor_critic(replay="all")
    state = after(recipe, steps=6)
    assert len({tuple(drawn(step)) for step in range(7, 12)}) > 1


def test_a_replayed_program_weighs_as_the_trained_policy_prefers_it_to_the_one_that_sampled():
    """Without old log-probs, as in a step of one minibatch: min(new / sampled with, tis_cap)."""
    recipe = actor_critic(critic="none", replay="all")
    state = after(recipe, steps=1, rewards=(0.5,))
    samples = recipe.teach(2, answered([1.0], version=1), state).updates[0].samples
    assert [s.policy_version for s in samples] == [1, 0]
    minibatch = build_minibatch(samples, Packing(num_ranks=1, microbatch_tokens=64))
    ((microbatch,),) = minibatch.microbatches_by_rank
    mb = MicrobatchTensors.from_microbatch(microbatch, "cpu")
    is_replayed_M = mb.sample_index_M == 1
    for gained, weight in ((-0.7, float(np.exp(-0.7))), (0.2, float(np.exp(0.2))), (3.0, 2.0)):
        logprobs_M = (mb.rollout_logprobs_M + is_replayed_M * gained).requires_grad_()
        outputs = Outputs(logprobs_M, torch.zeros_like(logprobs_M))
        norm = LossDenominators(minibatch.num_loss_tokens, minibatch.num_samples)
        loss, _ = PolicyObjective(tis_cap=2.0)(outputs, mb, None, None, norm)
        (slope_M,) = torch.autograd.grad(loss, logprobs_M)
        slope_M = -slope_M * minibatch.num_loss_tokens
        assert slope_M[~is_replayed_M].tolist() == pytest.approx([1.0] * 4)
        assert slope_M[is_replayed_M].tolist() == pytest.approx([0.5 * weight] * 4)
