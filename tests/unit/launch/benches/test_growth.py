"""The simulated actors of `what=growth`, without Ray."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from actors.simulation.silent import PROMPT_TOKENS, SimulatedEngine, SimulatedShard
from reward.judges.judge import Answers
from rl.types import Ask, Message, Prompt, PromptGroup, SamplingConfig

pytestmark = pytest.mark.unit


async def groups(engine: SimulatedEngine, num: int) -> list[PromptGroup]:
    sampling = SamplingConfig(group_size=3, max_tokens=5)
    problems = [Prompt(id=f"p{n}", messages=(Message("user", "x"),)) for n in range(num)]
    asks = [Ask(prompt=problem, problem=problem, sampling=sampling) for problem in problems]
    return [group async for group in engine.generate(asks, 7)]


def test_an_engine_answers_in_its_own_name_with_completions_of_full_length():
    found = asyncio.run(groups(SimulatedEngine("rollout-3", 5), 2))
    assert [group.prompt.id for group in found] == ["p0", "p1"]
    for group in found:
        assert group.engine == "rollout-3"
        assert len(group.prompt_token_ids) == PROMPT_TOKENS
        assert [len(one.token_ids) for one in group.completions_G] == [5, 5, 5]
        assert {one.policy_version for one in group.completions_G} == {6}


def test_a_shard_orders_the_answers_of_a_group():
    (group,) = asyncio.run(groups(SimulatedEngine("rollout-0", 5), 1))
    (judged,), _ = SimulatedShard("reward-0").judge([Answers.of(group)])
    assert judged.rewards_G.tolist() == [0, 1, 2]


def test_actors_that_answer_at_once_load_no_library_that_computes():
    heavy = "{'torch', 'transformers', 'ray'}"
    code = f"import sys, actors.simulation.silent; print({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
