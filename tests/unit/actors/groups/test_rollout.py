"""Rollouts: each prompt goes to one engine, one that is too long to none; what ends an answer."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from actors.engines.specs import EngineSpec, Sampled, SampledGroup, Sampling
from actors.groups import dealing, rollout
from actors.groups.rollout import RolloutActor, RolloutEngines
from conf.errors import LostActorError, UserError, first_cause
from rl.types import Ask, Finish, Message, Prompt, PromptGroup, SamplingConfig
from tests.unit.actors.groups.seats import seat, supervisor
from tests.unit.rl.fakes import make_group

pytestmark = pytest.mark.unit

POLICY = Path(__file__).resolve().parents[4] / "assets/minipy/policy"
SAMPLING = SamplingConfig(group_size=2, max_tokens=8, seed=3, purpose="train")


def asks(num: int) -> list[Ask]:
    prompts = [Prompt(id=f"p{n}", messages=(Message("user", f"add {n}"),)) for n in range(num)]
    return [Ask.code(prompt, SAMPLING) for prompt in prompts]


class FakeEngine:
    """An actor that answers each prompt, or dies after so many."""

    def __init__(self, dies_after: int | None = None, *, hangs: bool = False) -> None:
        self.shares: list[list[str]] = []
        self.generate = self.ready = self
        self.abandoned = False
        self._dies_after = dies_after
        self._hangs = hangs

    def options(self, *, num_returns: str) -> FakeEngine:
        assert num_returns == "streaming"
        return self

    def remote(self, *asked: Any) -> Any:
        return self._answers(*asked) if asked else self._is_ready()

    async def _is_ready(self) -> None:
        """At once."""

    async def _answers(self, share: Sequence[Ask], _step: int) -> AsyncIterator[PromptGroup]:
        self.shares.append([ask.prompt.id for ask in share])
        for number, ask in enumerate(share):
            if number == self._dies_after:
                raise LostActorError("the next finished group failed: it died")
            if self._hangs and number == len(share) - 1:
                try:
                    await asyncio.Event().wait()
                finally:
                    self.abandoned = True
            yield replace(make_group(ask.prompt, 1), ask=ask)


def group_of(monkeypatch: pytest.MonkeyPatch, *engines: Iterable[Any]) -> RolloutEngines:
    """A group whose seats hold these actors, one after another."""

    async def as_it_comes(generator: AsyncIterator[Any], *_: object) -> AsyncIterator[Any]:
        async for item in generator:
            yield item

    monkeypatch.setattr(rollout, "stream", as_it_comes)
    seats = [
        seat(f"rollout-{index}", partial(next, iter(actors)))
        for index, actors in enumerate(engines)
    ]
    return RolloutEngines(seats, 5.0, supervisor())


def answers(group: RolloutEngines, num: int) -> list[str]:
    async def collect() -> list[str]:
        found = group.generate(asks(num), 1)
        return [one.prompt.id async for one in found]

    return asyncio.run(collect())


def deal(monkeypatch: pytest.MonkeyPatch, engines: list[Any], num: int) -> list[str]:
    return answers(group_of(monkeypatch, *([engine] for engine in engines)), num)


def test_each_prompt_is_answered_once_and_the_engines_share_them(monkeypatch: pytest.MonkeyPatch):
    engines = [FakeEngine(), FakeEngine()]
    found = deal(monkeypatch, engines, 5)
    assert sorted(found) == ["p0", "p1", "p2", "p3", "p4"]
    assert sorted(len(share) for engine in engines for share in engine.shares) == [2, 3]


def test_an_engine_without_a_prompt_is_not_called(monkeypatch: pytest.MonkeyPatch):
    engines = [FakeEngine(), FakeEngine(), FakeEngine()]
    assert deal(monkeypatch, engines, 1) == ["p0"]
    assert sum(len(engine.shares) for engine in engines) == 1


def test_what_a_lost_engine_owes_is_asked_of_the_others_and_it_takes_part_again(
    monkeypatch: pytest.MonkeyPatch,
):
    dying, healthy, fresh = FakeEngine(dies_after=1), FakeEngine(), FakeEngine()
    group = group_of(monkeypatch, [dying, fresh], [healthy])
    given: list[str] = []

    async def give_weights(seat: Any) -> None:
        assert not seat.admitted
        given.append(seat.name)

    group.give_weights = give_weights
    assert sorted(answers(group, 6)) == [f"p{n}" for n in range(6)]
    assert healthy.shares == [["p1", "p3", "p5"], ["p2", "p4"]]
    assert fresh.shares == [] and given == ["rollout-0"]
    assert group._supervisor.take_counts() == {
        "fault/asked_again": 2.0,
        "fault/rollout_restarts": 1.0,
    }
    assert sorted(answers(group, 2)) == ["p0", "p1"]
    assert fresh.shares == [["p0"]]


def test_an_idle_engine_is_asked_for_stragglers_and_nobody_waits_for_the_slow_one(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(dealing, "_LOOK_S", 0.001)
    slow, idle = FakeEngine(hangs=True), FakeEngine()
    group = group_of(monkeypatch, [slow], [idle])
    assert sorted(answers(group, 6)) == [f"p{n}" for n in range(6)]
    assert idle.shares == [["p1", "p3", "p5"], ["p4"]]
    assert slow.abandoned
    assert group._supervisor.take_counts() == {"fault/stragglers": 1.0}


def test_the_only_engine_answers_the_rest_after_its_restart(monkeypatch: pytest.MonkeyPatch):
    dying, fresh = FakeEngine(dies_after=1), FakeEngine()
    assert answers(group_of(monkeypatch, [dying, fresh]), 3) == ["p0", "p1", "p2"]
    assert fresh.shares == [["p1", "p2"]]


def test_an_engine_that_is_lost_too_often_ends_the_step(monkeypatch: pytest.MonkeyPatch):
    group = group_of(monkeypatch, [FakeEngine(dies_after=0) for _ in range(9)])
    with pytest.raises(ExceptionGroup) as caught:
        answers(group, 3)
    assert str(first_cause(caught.value)) == (
        "rollout-0 (node 10.0.0.1) is lost: the next finished group failed: it died; "
        "supervision.restarts=3 allows no further restart within 3600 s"
    )


class FakeLoop:
    """An engine whose second completion runs into its budget."""

    asked: list[tuple[list[int], Sampling]]

    def __init__(self, _spec: EngineSpec, _name: str, _stats: object) -> None:
        self.asked = []

    def sample(self, token_ids: list[int], how: Sampling) -> Future[SampledGroup]:
        self.asked.append((token_ids, how))
        done: Future[SampledGroup] = Future()
        completions = [
            Sampled(
                token_ids=np.array([5, 6], np.int32),
                logprobs=np.array([-0.5, -0.25], np.float32),
                support_TK=None,
                finish=list(Finish)[index],
            )
            for index in range(how.num)
        ]
        done.set_result(SampledGroup(completions=tuple(completions), policy_version=4))
        return done


def actor(monkeypatch: pytest.MonkeyPatch, model: Path, max_prompt_tokens: int) -> Any:
    module = SimpleNamespace(EngineLoop=FakeLoop)  # stands for the module that loads vLLM
    monkeypatch.setitem(sys.modules, "actors.engines.vllm_engine", module)
    spec = EngineSpec(
        model=str(model),
        runner="generate",
        device="cpu",
        dtype="float32",
        max_model_len=64,
        max_num_seqs=4,
        tensor_parallel=1,
        gpu_memory_utilization=0.5,
        kv_cache_gib=0.1,
        cpu_threads=1,
        sleep_mode=False,
        seed=0,
    )
    return RolloutActor("rollout-0", spec, {}, None, max_prompt_tokens)


def sampled(actor: Any) -> PromptGroup:
    async def first() -> PromptGroup:
        return await anext(actor.generate(asks(1), 1))

    return asyncio.run(first())


def test_a_prompt_above_the_limit_reaches_no_engine(monkeypatch: pytest.MonkeyPatch):
    made = actor(monkeypatch, POLICY, max_prompt_tokens=3)
    with pytest.raises(
        UserError, match=r"prompt p0 has \d+ tokens, above model.max_prompt_tokens=3"
    ):
        sampled(made)
    assert made._loop.asked == []


def test_every_token_that_ends_an_answer_is_known_to_the_engine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    model = tmp_path / "policy"
    shutil.copytree(POLICY, model)
    settings = json.loads((model / "config.json").read_text())
    ends = settings["eos_token_id"]
    (model / "config.json").write_text(json.dumps(settings | {"eos_token_id": [7, 8]}))
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": 9}))
    made = actor(monkeypatch, model, max_prompt_tokens=64)
    group = sampled(made)
    _, how = made._loop.asked[0]
    assert {7, 8, 9} <= set(how.stop_token_ids)
    assert set(how.stop_token_ids) - {7, 8, 9} <= {ends}
    assert [c.finish for c in group.completions_G] == [Finish.STOP, Finish.LENGTH]
    assert {c.policy_version for c in group.completions_G} == {4}
