"""The cluster is joined or started; engines that share a device take turns with the policy."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import ray

from actors.fleet import TurnTakingGang, connect
from actors.policy import Gang
from launch.cli import compose_config
from rl.errors import EngineError
from rl.loss import NllObjective
from rl.types import Minibatch

pytestmark = pytest.mark.unit


class Actor:
    """Answers every remote call at once and notes it down."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self._name = name
        self._calls = calls

    def __getattr__(self, method: str) -> Any:
        return Method(f"{self._name}.{method}", self._calls)


class Method:
    def __init__(self, name: str, calls: list[str]) -> None:
        self._name = name
        self._calls = calls

    async def remote(self, *_: object) -> None:
        self._calls.append(self._name)


def test_the_engines_sleep_once_from_the_first_look_at_the_policy_to_its_publication():
    calls: list[str] = []
    gang = Gang([Actor("policy", calls)], NllObjective(), 5.0, 5.0)
    taking_turns = TurnTakingGang(gang, [Actor("rollout", calls), Actor("reward", calls)])
    minibatch = Minibatch(microbatches_by_rank=((),), num_samples=1, num_loss_tokens=1)

    async def step() -> None:
        await taking_turns.publish(0)
        await taking_turns.logprobs(minibatch)
        await taking_turns.update(minibatch, None)
        await taking_turns.update(minibatch, None)
        await taking_turns.publish(1)

    asyncio.run(step())
    assert calls == [
        "policy.publish",
        *("rollout.sleep", "reward.sleep"),
        *("policy.logprobs", "policy.update", "policy.update"),
        *("rollout.wake", "reward.wake"),
        "policy.publish",
    ]


def test_a_dashboard_that_does_not_start_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[bool] = []

    def init(**options: Any) -> None:
        tries.append(options["include_dashboard"])
        if options["include_dashboard"]:
            raise RuntimeError("the dashboard failed to start")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    connect(compose_config([]), "name")
    assert tries == [True, False]


def test_a_cluster_that_does_not_start_at_all_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise RuntimeError("no room\nlong trace")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(EngineError, match=r"start a local cluster: no room$"):
        connect(compose_config([]), "name")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:1")
    with pytest.raises(EngineError, match=r"the cluster at 10\.0\.0\.1:1: no room$"):
        connect(compose_config([]), "name")
