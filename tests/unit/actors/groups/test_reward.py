"""Reward shards: dealing, and what becomes of calls on a shard that is lost."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from actors.cluster.deadlines import all_of
from actors.groups.reward import JudgeActor, RewardGroup, judge_of, model_judge
from conf.errors import LostActorError, NonFiniteError
from reward.code.extract import ExtractConfig
from reward.judges.judge import Answers, Judged, RewardModelJudge
from reward.judges.summed import MeasureJudge
from rl.types import JudgeKind, Message, Prompt
from tests.settings import run_config
from tests.unit.actors.groups.seats import seat, supervisor
from tests.unit.reward.judges.servers import serving

pytestmark = pytest.mark.unit


class FakeShard:
    """Scores a question by its length, or fails at each call."""

    def __init__(self, fails: Exception | None = None) -> None:
        self.ready = self.score_problems = self
        self.asked: list[str] = []
        self._fails = fails

    async def remote(self, problems: Any = None) -> Any:
        await asyncio.sleep(0)
        if problems is None:
            return None
        self.asked += [question for question, _ in problems]
        if self._fails is not None:
            raise self._fails
        return [(len(question),) for question, _ in problems]


def dead() -> FakeShard:
    return FakeShard(LostActorError("scores failed: it died"))


def group_of(*shards: Callable[[], Any]) -> RewardGroup:
    seats = [seat(f"reward-{index}", create) for index, create in enumerate(shards)]
    return RewardGroup(seats, 5.0, supervisor())


def scores(group: RewardGroup, num: int) -> list[Any]:
    async def score() -> list[Any]:
        return await all_of(group.score_problem("q" * i, ["x"]) for i in range(num))

    return asyncio.run(score())


def test_groups_go_to_the_shard_with_the_fewest_in_flight():
    shards = [FakeShard(), FakeShard()]
    assert scores(group_of(*(lambda one=one: one for one in shards)), 4) == [(i,) for i in range(4)]
    assert [len(shard.asked) for shard in shards] == [2, 2]


def test_what_was_on_a_lost_shard_is_asked_again_and_every_score_is_the_same():
    made = [dead(), FakeShard()]
    waiting, healthy = list(made), FakeShard()
    group = group_of(lambda: waiting.pop(0), lambda: healthy)
    assert scores(group, 4) == [(i,) for i in range(4)]
    assert waiting == [] and made[0].asked == ["", "qq"]
    assert group._supervisor.take_counts() == {
        "fault/asked_again": 2.0,
        "fault/reward_restarts": 1.0,
    }


def test_the_only_shard_is_started_again_as_often_as_it_may_and_then_the_error_names_it():
    made: list[FakeShard] = []

    def create() -> FakeShard:
        made.append(dead())
        return made[-1]

    with pytest.raises(LostActorError, match=r"reward-0 \(node 10\.0\.0\.1\) is lost: scores f"):
        scores(group_of(create), 2)
    assert len(made) == 4


def test_an_error_of_the_data_restarts_nothing():
    made: list[FakeShard] = []

    def create() -> FakeShard:
        made.append(FakeShard(NonFiniteError("NaN for p3")))
        return made[-1]

    with pytest.raises(NonFiniteError):
        scores(group_of(create), 1)
    assert len(made) == 1


def test_a_shard_without_a_model_asks_the_servers_that_the_configuration_names():
    cfg = run_config(["reward=remote", "reward.url=http://127.0.0.1:1", "probe.every=0"])

    def scored(path: str, body: Any) -> Any:
        return [{"valid": True, "score": 2.0}] * len(body)

    with serving(scored) as server:
        reward = dataclasses.replace(cfg.reward, url=(server.url,))
        shard = JudgeActor("reward-0", reward, cfg.sandbox)
        problem = Prompt(id="p", messages=(Message("user", "Add."),))
        answers = Answers(problem=problem, texts_G=("```python\nx = 1\n```", "none"))
        (judged,), _ = shard.judge([answers], ())
    assert [score.value for score in judged.scores_G] == [2.0, None]
    assert judged.judge is JudgeKind.RM and judged.rewards_G[1] == 0.0


def test_a_sum_asks_a_server_and_a_judge_of_ones_own_and_measures_the_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "own_judge.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    with serving(lambda path, body: [{"valid": True, "score": 2.0}] * len(body)) as server:
        components = (
            f"quality: {{judge: remote, url: ['{server.url}'], shaping: raw}}, "
            "mine: {judge: 'own_judge:make', weight: 0.25}, form: {judge: format, weight: -1}"
        )
        cfg = run_config(["reward=sum", f"reward.components={{{components}}}"])
        shard = JudgeActor("reward-0", cfg.reward, cfg.sandbox)
        problem = Prompt(id="p", messages=(Message("user", "Add."),))
        answers = Answers(problem=problem, texts_G=("```python\nx = 1\n```", "none"))
        (judged,), _ = shard.judge([answers], ())
    assert list(judged.parts) == ["quality", "mine", "form"]
    assert judged.rewards_G.tolist() == [2.0 + 0.25 * 4 - 1, 1.0 + 0.25 * 4]


def test_the_reward_model_of_a_shard_is_the_component_that_asks_for_it():
    parts = "a: {judge: rm, shaping: sigmoid, weight: 2}, b: {judge: length, weight: -1}"
    cfg = run_config(["reward=sum", f"reward.components={{{parts}}}", "++reward.shaping=rank"])
    assert model_judge(cfg.reward).shaping == "sigmoid"
    assert model_judge(run_config().reward).shaping == "softplus"

    class Threes:
        def judge(self, prompt: Prompt, texts_G: Sequence[str]) -> Judged:
            return dataclasses.replace(measured, rewards_G=np.full(len(texts_G), 3, np.float32))

    measured = MeasureJudge(lambda *_: 0.0, ExtractConfig()).judge(PROBLEM, ["x" * 2000])
    judge = judge_of(cfg.reward, cfg.sandbox, cast("RewardModelJudge", Threes()))
    assert judge.judge(PROBLEM, ["x" * 2000]).rewards_G.tolist() == [2 * 3 - 0.5]


PROBLEM = Prompt(id="p", messages=(Message("user", "Add."),))
OWN = """
import numpy as np
from reward.code.extract import ExtractConfig, extract
from reward.judges.judge import Judged
from rl.types import JudgeKind, Score


class Fours:
    def judge(self, prompt, texts_G):
        return Judged(
            extractions_G=tuple(extract(text, ExtractConfig()) for text in texts_G),
            scores_G=tuple(Score(value=4.0) for _ in texts_G),
            rewards_G=np.full(len(texts_G), 4, np.float32),
            judge=JudgeKind.OWN,
            num_executed=0,
        )


def make(reward, sandbox):
    return Fours()
"""
