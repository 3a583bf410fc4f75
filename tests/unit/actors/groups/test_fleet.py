"""The cluster is joined or started; engines that share a device take turns with the policy."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors.engines.forward_check import ForwardCheck
from actors.groups.fleet import TurnTakingGroup
from actors.groups.trainer import TrainGroup
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


def actor(name: str, calls: list[str]) -> Any:
    return Actor(name, calls)


class Method:
    def __init__(self, name: str, calls: list[str]) -> None:
        self._name = name
        self._calls = calls

    async def remote(self, *_: object) -> None:
        self._calls.append(self._name)


def test_the_engines_sleep_once_from_the_first_look_at_the_policy_to_its_publication():
    calls: list[str] = []
    trainer = TrainGroup([actor("policy", calls)], NllObjective(), 5.0, 5.0)
    taking_turns = TurnTakingGroup(trainer, [actor("rollout", calls), actor("reward", calls)])
    minibatch = Minibatch(microbatches_by_rank=((),), num_samples=1, num_loss_tokens=1)

    async def step() -> None:
        await taking_turns.publish(0)
        await taking_turns.outputs(minibatch)
        await taking_turns.update(minibatch, None)
        await taking_turns.update(minibatch, None)
        await taking_turns.publish(1)

    asyncio.run(step())
    assert calls == [
        "policy.publish",
        *("rollout.sleep", "reward.sleep"),
        *("policy.outputs", "policy.update", "policy.update"),
        *("rollout.wake", "reward.wake"),
        "policy.publish",
    ]


def test_the_self_check_happens_while_the_engines_sleep_and_leaves_them_awake(
    monkeypatch: pytest.MonkeyPatch,
):
    calls: list[str] = []
    found = ForwardCheck(
        head=0.0,
        alone=0.0,
        packed=0.5,
        leak=0.5,
        shared=0.5,
        window=None,
        scale=1.0,
        dtype="float32",
    )

    async def answer(self: Method, *_: object) -> ForwardCheck:
        calls.append(self._name)
        return found

    monkeypatch.setattr(Method, "remote", answer)
    trainer = TrainGroup([actor("policy", calls)], NllObjective(), 5.0, 5.0)
    taking_turns = TurnTakingGroup(trainer, [actor("rollout", calls)])

    async def check() -> None:
        assert taking_turns.packs and taking_turns.shares
        await taking_turns.self_check("m", 0)
        await taking_turns.give_way()
        await taking_turns.give_way()

    asyncio.run(check())
    assert calls == ["rollout.sleep", "policy.self_check", "rollout.wake"]
    assert not taking_turns.packs and not taking_turns.shares
