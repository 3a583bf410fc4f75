"""Rollouts: each prompt goes to one engine, one that is too long to none; what ends an answer."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from actors.engines.specs import EngineSpec, Sampled, SampledGroup, Sampling
from actors.groups import rollout
from actors.groups.rollout import RolloutActor, RolloutEngines
from conf.errors import UserError
from rl.types import Finish, Message, Prompt, PromptGroup, SamplingConfig

pytestmark = pytest.mark.unit

POLICY = Path(__file__).resolve().parents[4] / "assets/minipy/policy"
SAMPLING = SamplingConfig(group_size=2, max_tokens=8, seed=3, purpose="train")


def prompts(num: int) -> list[Prompt]:
    return [Prompt(id=f"p{n}", messages=(Message("user", f"add {n}"),)) for n in range(num)]


class FakeEngine:
    """An actor that answers each prompt with its own name."""

    def __init__(self) -> None:
        self.shares: list[list[str]] = []
        self.generate = self

    def options(self, *, num_returns: str) -> FakeEngine:
        assert num_returns == "streaming"
        return self

    async def remote(
        self, share: Sequence[Prompt], _sampling: SamplingConfig, _step: int
    ) -> AsyncIterator[Any]:
        self.shares.append([prompt.id for prompt in share])
        for prompt in share:
            yield prompt.id


def deal(monkeypatch: pytest.MonkeyPatch, engines: list[Any], num: int) -> list[str]:
    async def as_it_comes(generator: AsyncIterator[Any], *_: object) -> AsyncIterator[Any]:
        async for item in generator:
            yield item

    monkeypatch.setattr(rollout, "stream", as_it_comes)

    async def collect() -> list[Any]:
        group = RolloutEngines(engines, deadline_s=5.0)
        return [found async for found in group.generate(prompts(num), SAMPLING, 1)]

    return asyncio.run(collect())


def test_each_prompt_is_answered_once_and_the_engines_share_them(monkeypatch: pytest.MonkeyPatch):
    engines = [FakeEngine(), FakeEngine()]
    found = deal(monkeypatch, engines, 5)
    assert sorted(found) == ["p0", "p1", "p2", "p3", "p4"]
    assert sorted(len(share) for engine in engines for share in engine.shares) == [2, 3]


def test_an_engine_without_a_prompt_is_not_called(monkeypatch: pytest.MonkeyPatch):
    engines = [FakeEngine(), FakeEngine(), FakeEngine()]
    assert deal(monkeypatch, engines, 1) == ["p0"]
    assert sum(len(engine.shares) for engine in engines) == 1


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
        return await anext(actor.generate(prompts(1), SAMPLING, 1))

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
