"""The policy ranks: how a loss is noticed, what it means for the engines, how they come back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.cluster import shared_files
from actors.cluster.shared_files import sees
from actors.engines.specs import TrainSpec
from actors.groups import trainer, weights
from actors.groups.trainer import Routing, TrainGroup
from conf.errors import (
    EngineError,
    LostActorError,
    LostPolicyError,
    NonFiniteError,
    SaveError,
    UserError,
)
from conf.schema import PolicyConfig
from rl.loss import NllObjective
from rl.packing import Packing
from rl.parcels import Minibatch
from tests.unit.actors.groups.seats import seat, supervisor

pytestmark = pytest.mark.unit

SPEC = TrainSpec(model_path="m", policy=PolicyConfig(lr=1e-3, microbatch_tokens=256), total_steps=9)
MINIBATCH = Minibatch(
    parcels_by_rank=((), ()),
    num_samples=1,
    num_loss_tokens=1,
    num_sample_tokens=1,
    num_tokens=1,
)


class Rank:
    """A rank that notes its calls; some fail, and a dead one fails at all of them."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls
        self.fails: dict[str, Exception] = {}
        self.waits = False
        self.waits_in: str | None = None
        self.takes_s = 0.0
        self.dead = False
        self.lost_engines: dict[str, str] = {}
        self.looks = sees

    def __getattr__(self, name: str) -> Any:
        return Method(name, self)


class Method:
    def __init__(self, name: str, rank: Rank) -> None:
        self._name, self._rank = name, rank

    async def remote(self, *args: Any) -> Any:
        if self._rank.dead:
            raise LostActorError(f"{self._name} failed: it died")
        if self._rank.takes_s:
            await asyncio.sleep(self._rank.takes_s)
        if self._rank.waits or self._name == self._rank.waits_in:
            await asyncio.Event().wait()
        if self._name in self._rank.fails:
            raise self._rank.fails[self._name]
        if self._name == "address":
            return "10.0.0.1", 1
        if self._name == "sees":
            return self._rank.looks(*args)
        if self._name.endswith(("checkpoint", "hf")):
            self._rank.calls.append(f"{self._name} {args[0]}")
            return None
        self._rank.calls.append(self._name)
        return self._rank.lost_engines if self._name == "publish" else None


class Group:
    """Two ranks and two engines, of which others take the place."""

    def __init__(self, restarts: int = 3) -> None:
        self.calls: list[str] = []
        self.ranks: list[Rank] = []
        self.supervisor = supervisor(restarts)
        gang = seat("policy", self._make, admitted=False)
        gang.actors = ("policy-0", "policy-1")
        self.engines = tuple(seat(f"rollout-{n}", object) for n in range(2))
        packing = Packing(num_ranks=2, microbatch_tokens=256)
        self.policy = TrainGroup(gang, packing, 5.0, self.supervisor)
        self.policy.route(Routing(engines=self.engines, tensor_parallel=1, backend="host_memory"))

    def _make(self) -> tuple[Rank, ...]:
        self.ranks = [Rank(self.calls), Rank([])]
        return tuple(self.ranks)

    def run(self, *bodies: Callable[[], Any]) -> None:
        async def all_bodies() -> None:
            await self.policy.start(SPEC)
            for body in bodies:
                found = body()
                if found is not None:
                    await found

        asyncio.run(all_bodies())


def test_a_rank_that_dies_ends_all_and_is_named_whoever_fails_first():
    group = Group()

    def kill() -> None:
        group.ranks[0].fails["update"] = EngineError("an optimizer step failed: connection closed")
        group.ranks[1].dead = True

    with pytest.raises(LostPolicyError, match="policy-1 died: an optimizer"):
        group.run(kill, lambda: group.policy.update(MINIBATCH, None, NllObjective()))
    assert group.policy.gang.lost is not None


@pytest.mark.parametrize("error", [NonFiniteError("NaN"), EngineError("out of memory")])
def test_an_error_of_living_ranks_is_theirs(error: Exception):
    group = Group()
    with pytest.raises(type(error), match=str(error)):
        group.run(
            lambda: group.ranks[0].fails.update(update=error),
            lambda: group.policy.update(MINIBATCH, None, NllObjective()),
        )
    assert group.policy.gang.lost is None


def test_ranks_that_wait_for_one_which_raised_are_not_lost(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trainer, "_SIGN_OF_LIFE_S", 0.01)
    group = Group()

    def fail() -> None:
        group.ranks[0].fails["update"] = EngineError("out of memory")
        group.ranks[1].waits = True

    with pytest.raises(EngineError, match="out of memory"):
        group.run(fail, lambda: group.policy.update(MINIBATCH, None, NllObjective()))
    assert group.policy.gang.lost is None


def test_a_rank_that_stands_still_is_noticed_at_the_deadline(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trainer, "_SIGN_OF_LIFE_S", 0.01)
    group = Group()

    def stop() -> None:
        monkeypatch.setattr(group.policy, "_deadline_s", 0.01)
        for rank in group.ranks:
            rank.waits = True

    with pytest.raises(
        LostPolicyError, match=r"no answer from policy-0, policy-1: .* within 0\.01 s"
    ):
        group.run(stop, lambda: group.policy.update(MINIBATCH, None, NllObjective()))


def test_ranks_that_were_lost_come_back_with_their_initial_weights_as_version_0():
    group = Group()

    async def lose() -> None:
        group.ranks[1].dead = True
        with pytest.raises(LostPolicyError):
            await group.policy.update(MINIBATCH, None, NllObjective())
        group.calls.clear()

    group.run(lambda: group.policy.publish(3), lose, group.policy.rebuild)
    assert group.calls == ["start", "connect", "publish"]
    assert group.policy.num_updates_begun == 0
    assert group.supervisor.take_counts() == {"fault/policy_restarts": 1.0}


def test_ranks_that_are_lost_too_often_end_the_run():
    group = Group(restarts=0)

    async def lose() -> None:
        group.ranks[0].dead = True
        with pytest.raises(LostPolicyError):
            await group.policy.publish(1)

    with pytest.raises(LostActorError, match=r"policy \(node 10.0.0.1\) .*restarts=0 allows no"):
        group.run(lose, group.policy.rebuild)


def test_an_engine_that_is_lost_in_a_publication_is_given_up_and_the_policy_goes_on():
    group = Group()
    group.run(
        lambda: group.ranks[0].lost_engines.update({"rollout-1": "it died"}),
        lambda: group.policy.publish(1),
    )
    assert [engine.admitted for engine in group.engines] == [True, False]


def test_engines_of_a_publication_that_was_cut_short_are_given_up():
    group = Group()

    async def lose() -> None:
        await group.policy.publish(1)
        group.ranks[1].dead = True
        with pytest.raises(LostPolicyError):
            await group.policy.publish(2)

    group.run(lose)
    assert [engine.admitted for engine in group.engines] == [False, False]


def test_a_new_engine_waits_for_the_publication_that_follows_an_update():
    group = Group()
    order: list[str] = []

    async def overlap() -> None:
        await group.policy.update(MINIBATCH, None, NllObjective())
        given = asyncio.ensure_future(group.policy.give_weights(group.engines[0]))
        given.add_done_callback(lambda _: order.append("given"))
        await asyncio.sleep(0.01)
        await group.policy.publish(1)
        order.append("published")
        await given

    group.run(overlap)
    assert order == ["published", "given"]
    assert group.calls[-2:] == ["connect", "publish"]  # to this engine alone


def test_ranks_are_told_whole_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    group = Group()
    policy, where = group.policy, Path("outputs/step-000001")
    group.run(
        lambda: policy.save_checkpoint(where),
        lambda: policy.save_hf(where / "hf"),
        lambda: policy.load_checkpoint(where),
    )
    whole = tmp_path / where
    assert group.calls[-3:] == [
        *(f"save_checkpoint {whole}", f"save_hf {whole}/hf", f"load_checkpoint {whole}")
    ]


def test_a_directory_that_all_ranks_see_is_as_it_was_afterwards(tmp_path: Path):
    group = Group()
    group.run(lambda: group.policy.check_shared(tmp_path, "output_dir"))
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_a_rank_sees_otherwise_is_refused_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shared_files, "_PATIENCE_S", 0.01)
    group = Group()
    other = tmp_path / "of-another-machine"

    def part() -> None:
        group.ranks[1].looks = lambda path, text: sees(str(other / Path(path).name), text)

    with pytest.raises(UserError) as caught:
        group.run(part, lambda: group.policy.check_shared(tmp_path, "output_dir"))
    said = str(caught.value)
    assert said.startswith(f"output_dir: {tmp_path} is another directory for policy-1 (10.0.0.1)")
    assert "policy-0" not in said and "output_dir=DIR on a file system that all machines" in said
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_takes_no_file_is_said(tmp_path: Path):
    group = Group()
    with pytest.raises(SaveError, match="missing cannot be written"):
        group.run(lambda: group.policy.check_shared(tmp_path / "missing", "output_dir"))


class Engine:
    """An engine that answers whether it lives."""

    def __init__(self) -> None:
        self.dead = False
        self.stopped = False

    @property
    def alive(self) -> Any:
        return self

    async def remote(self) -> None:
        if self.stopped:
            await asyncio.Event().wait()
        if self.dead:
            raise LostActorError("its process died")


def with_nccl(monkeypatch: pytest.MonkeyPatch) -> Group:
    """Ranks that wait in a broadcast for all engines."""
    monkeypatch.setattr(weights, "_LOOK_S", 0.01)
    group = Group()
    group.engines = tuple(seat(f"rollout-{n}", Engine) for n in range(2))
    group.policy.route(Routing(engines=group.engines, tensor_parallel=1, backend="nccl"))
    return group


def test_an_engine_that_dies_in_a_broadcast_ends_the_ranks_at_once(
    monkeypatch: pytest.MonkeyPatch,
):
    group = with_nccl(monkeypatch)

    async def die() -> None:
        await group.policy.publish(1)
        for rank in group.ranks:
            rank.waits_in = "publish"
        group.engines[1].handle.dead = True
        async with asyncio.timeout(2):
            await group.policy.publish(2)

    with pytest.raises(LostPolicyError, match=r"version 2 waits for an engine: its process died"):
        group.run(die)
    assert group.policy.gang.lost is not None
    assert [engine.admitted for engine in group.engines] == [False, False]


def test_an_engine_that_only_does_not_answer_is_waited_for(monkeypatch: pytest.MonkeyPatch):
    group = with_nccl(monkeypatch)

    async def stop() -> None:
        group.engines[1].handle.stopped = True
        group.ranks[0].takes_s = 0.1
        await group.policy.publish(1)

    group.run(stop)
    assert [engine.admitted for engine in group.engines] == [True, True]
