"""Engines that share a device take turns with the policy; how its samples are packed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from actors.engines.forward_check import ForwardCheck
from actors.groups import fleet
from actors.groups.fleet import actor_environment, packing_of
from actors.groups.trainer import Routing
from actors.groups.turns import TurnTakingGroup
from conf.schema import Attention, PolicyConfig, SharePrefix
from rl.loss import NllObjective
from rl.packing import Packing
from rl.parcels import Minibatch
from tests.settings import run_config
from tests.unit.actors.groups.seats import seat, supervisor

pytestmark = pytest.mark.unit

PACKING = Packing(num_ranks=1, microbatch_tokens=256, share_prefix="auto")


class Actor:
    """Answers every remote call at once and notes it down."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self._name = name
        self._calls = calls

    def __getattr__(self, method: str) -> Any:
        return Method(f"{self._name}.{method}", self._calls)


def actor(name: str, calls: list[str]) -> Any:
    return Actor(name, calls)


def turn_taking(calls: list[str], *engines: str) -> TurnTakingGroup:
    """One rank that takes turns with these engines, and publishes to those of rollout."""
    seats = [seat(name, partial(actor, name, calls)) for name in engines]
    ranks = seat("policy", lambda: (actor("policy", calls),))
    group = TurnTakingGroup(ranks, PACKING, 5.0, supervisor(), engines=seats)
    rollout = tuple(one for one in seats if one.group == "rollout")
    group.route(Routing(engines=rollout, tensor_parallel=1, backend="ipc"))
    return group


class Method:
    def __init__(self, name: str, calls: list[str]) -> None:
        self._name = name
        self._calls = calls

    async def remote(self, *_: object) -> Any:
        if self._name.endswith(".address"):
            return "127.0.0.1", 1
        self._calls.append(self._name)
        return {} if self._name.endswith(".publish") else None


def test_the_engines_sleep_once_from_the_first_look_at_the_policy_to_its_publication():
    calls: list[str] = []
    taking_turns = turn_taking(calls, "rollout-0", "reward-0")
    minibatch = Minibatch(
        parcels_by_rank=((),),
        num_samples=1,
        num_loss_tokens=1,
        num_sample_tokens=1,
        num_tokens=1,
    )

    async def step() -> None:
        await taking_turns.publish(0)
        await taking_turns.outputs(minibatch)
        await taking_turns.update(minibatch, None, NllObjective())
        await taking_turns.update(minibatch, None, NllObjective())
        await taking_turns.publish(1)

    asyncio.run(step())
    assert calls == [
        *("policy.connect", "policy.publish", "policy.give_way"),
        *("rollout-0.sleep", "reward-0.sleep"),
        *("policy.outputs", "policy.update", "policy.update"),
        *("policy.give_way", "rollout-0.wake", "reward-0.wake"),
        *("policy.publish", "policy.give_way"),
    ]


def found(*, packed: float = 0.0, shared: float = 0.0, window: int | None = None) -> ForwardCheck:
    return ForwardCheck(
        head=0.0,
        alone=0.0,
        packed=packed,
        leak=packed,
        shared=shared,
        window=window,
        scale=1.0,
        dtype="float32",
    )


def self_checked(monkeypatch: pytest.MonkeyPatch, check: ForwardCheck) -> tuple[list[str], Packing]:
    """What is called in a self-check with this result, and how samples are packed after it."""
    calls: list[str] = []

    async def answer(self: Method, *_: object) -> ForwardCheck:
        calls.append(self._name)
        return check

    monkeypatch.setattr(Method, "remote", answer)
    taking_turns = turn_taking(calls, "rollout-0")

    async def run() -> None:
        assert taking_turns.packing == PACKING
        await taking_turns.self_check("m", 0)
        await taking_turns.give_way()
        await taking_turns.give_way()

    asyncio.run(run())
    return calls, taking_turns.packing


def test_the_self_check_happens_while_the_engines_sleep_and_leaves_them_awake(
    monkeypatch: pytest.MonkeyPatch,
):
    calls, _ = self_checked(monkeypatch, found())
    assert calls == [
        *("rollout-0.sleep", "policy.self_check"),
        *("policy.give_way", "rollout-0.wake"),
    ]


@pytest.mark.parametrize(
    ("check", "packs", "share_prefix"),
    [
        (found(), True, "auto"),
        (found(packed=0.5, shared=0.5), False, "off"),
        (found(shared=0.5), True, "off"),
        (found(window=64), True, "off"),
    ],
)
def test_samples_are_packed_and_share_prefixes_only_where_that_changes_no_number(
    monkeypatch: pytest.MonkeyPatch, check: ForwardCheck, packs: bool, share_prefix: SharePrefix
):
    _, packing = self_checked(monkeypatch, check)
    assert packing == replace(PACKING, packs=packs, share_prefix=share_prefix)


@pytest.mark.parametrize(
    ("attention", "share_prefix", "dense_mask"),
    [
        ("sdpa", "auto", True),
        ("eager", "auto", True),
        ("flex_attention", "auto", False),
        ("flash_attention_2", "off", True),  # it takes no mask, so trees would see each other
    ],
)
def test_how_samples_are_packed_goes_by_what_the_attention_kernel_takes(
    attention: Attention, share_prefix: SharePrefix, dense_mask: bool
):
    policy = PolicyConfig(lr=1e-3, microbatch_tokens=256, row_tokens=64, attention=attention)
    packing = packing_of(policy, 3)
    assert (packing.num_ranks, packing.microbatch_tokens, packing.row_tokens) == (3, 256, 64)
    assert (packing.share_prefix, packing.dense_mask) == (share_prefix, dense_mask)
    assert packing_of(replace(policy, share_prefix="off"), 3).share_prefix == "off"


def test_actors_of_one_machine_keep_to_its_loopback_interface(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    alone = actor_environment(run_config(), 1)
    assert (alone["GLOO_SOCKET_IFNAME"], alone["VLLM_HOST_IP"]) == ("lo", "127.0.0.1")
    joined = actor_environment(run_config(["++ray.address=auto"]), 1)
    assert joined.keys().isdisjoint({"GLOO_SOCKET_IFNAME", "VLLM_HOST_IP"})
    own = run_config(["++ray.env.GLOO_SOCKET_IFNAME=eth0"])
    assert actor_environment(own, 1)["GLOO_SOCKET_IFNAME"] == "eth0"


def test_on_a_gpu_float32_is_not_rounded_and_no_sampler_is_compiled_that_is_not_used():
    on_gpu = actor_environment(run_config(["experiment=quickstart_gpu"]), 1)
    assert (on_gpu["TRITON_F32_DEFAULT"], on_gpu["VLLM_USE_FLASHINFER_SAMPLER"]) == ("ieee", "0")
    assert on_gpu.keys().isdisjoint({"TORCHDYNAMO_DISABLE", "DS_ACCELERATOR", "OMP_NUM_THREADS"})


class FakeGroup:
    """A group that takes its time to start."""

    def __init__(self, name: str, events: list[str]) -> None:
        self._name, self._events = name, events

    async def start(self, *_: object) -> None:
        self._events.append(f"{self._name} begins")
        await asyncio.sleep(0)
        self._events.append(f"{self._name} has started")

    def route(self, _: Routing) -> None:
        pass

    async def give_weights(self, _: object) -> None:
        pass


def started(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> list[str]:
    """The order in which the groups of a run start."""
    cfg, events = run_config(list(overrides)), []

    async def checked(*_: object) -> None:
        events.append("self-check")

    monkeypatch.setattr(fleet, "_self_check", checked)
    groups: Any = {name: FakeGroup(name, events) for name in ("rollout", "reward", "policy")} | {
        "supervisor": None
    }
    groups["rollout"].seats = ()
    specs = fleet.FleetSpec(rollout_model="m", reward=True, train=fleet.policy_spec(cfg, 1))
    asyncio.run(fleet._start(cfg, specs, fleet.RayFleet(**groups)))
    return events


def test_groups_start_together(monkeypatch: pytest.MonkeyPatch):
    events = started(monkeypatch)
    assert events[:3] == ["rollout begins", "reward begins", "policy begins"]
    assert events[-1] == "self-check"


def test_on_a_shared_device_the_policy_waits_for_the_engines(monkeypatch: pytest.MonkeyPatch):
    """An engine takes for its own what others take of the device while it starts."""
    events = started(monkeypatch, "experiment=quickstart_gpu")
    assert events.index("policy begins") > events.index("rollout has started")
    assert events.index("policy begins") > events.index("reward has started")
    assert events[-1] == "self-check"
