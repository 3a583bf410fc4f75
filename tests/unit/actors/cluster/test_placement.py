"""What a placement sees to before an actor is started again: a node that answers, a free place."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import GetTimeoutError, WorkerCrashedError

from actors.cluster import cluster, placement, signals
from actors.cluster.bundles import Bundle
from actors.cluster.placement import Placement
from actors.cluster.processes import MARK
from conf.errors import LostActorError

pytestmark = pytest.mark.unit

THERE, GONE = "a" * 56, "b" * 56  # ids of nodes


class Ends:
    """The task that ends processes of a node: what it was asked for, and where."""

    def __init__(self, fails: Exception | None = None) -> None:
        self.asked: list[tuple[str, list[str]]] = []
        self._node = ""
        self._fails = fails

    def options(self, *, scheduling_strategy: Any) -> Ends:
        self._node = scheduling_strategy.node_id
        return self

    async def remote(self, marks: Sequence[str], *_: float) -> list[int]:
        self.asked.append((self._node, list(marks)))
        if self._fails is not None:
            raise self._fails
        return [7]


class Nodes:
    """Two nodes as Ray reports them: one that listens, and one whose port is closed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, listening: int, closed: int) -> None:
        self.alive = [True, True]
        self.home_of_reward = GONE
        self.ends = Ends()
        self._ports = listening, closed
        monkeypatch.setattr(placement.ray, "nodes", self.nodes)
        monkeypatch.setattr(placement, "placement_group_table", self.table)
        monkeypatch.setattr(placement, "_LOOK_S", 0.01)
        monkeypatch.setattr(placement, "_end_marked", self.ends)

    def nodes(self) -> list[dict[str, Any]]:
        named = zip((THERE, GONE), self._ports, self.alive, strict=True)
        return [
            {
                "NodeID": n,
                "NodeManagerAddress": "127.0.0.1",
                "NodeManagerPort": port,
                "Alive": alive,
            }
            for n, port, alive in named
        ]

    def table(self, _: object) -> dict[str, Any]:
        return {"bundles_to_node_id": {0: THERE, 1: self.home_of_reward}}


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Any:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            ports = listening.getsockname()[1], closed.getsockname()[1]
        yield Nodes(monkeypatch, *ports)


def placed() -> Placement:
    """A rollout actor on the node that is there, and a reward shard on the other."""
    wanted = [Bundle(actor=name, cpus=1, gpus=0) for name in ("rollout-0", "reward-0")]
    return Placement(object(), wanted)  # pyright: ignore[reportArgumentType]  # no group is made


async def settles(actors: list[str], after: Any) -> float:
    start_s = time.monotonic()
    waiting = asyncio.create_task(placed().settled(actors))
    await asyncio.sleep(0.05)
    after()
    await asyncio.wait_for(waiting, 5.0)
    return time.monotonic() - start_s


@pytest.mark.parametrize("noticed", ["marked dead", "placed elsewhere"])
def test_a_node_that_no_longer_answers_is_waited_for_until_ray_has_noticed(
    nodes: Nodes, noticed: str
) -> None:
    def notice() -> None:
        if noticed == "marked dead":
            nodes.alive[1] = False
        else:
            nodes.home_of_reward = THERE

    assert asyncio.run(settles(["reward-0"], notice)) >= 0.05


def test_nothing_is_waited_for_where_the_node_answers_or_holds_other_actors(nodes: Nodes) -> None:
    asyncio.run(asyncio.wait_for(placed().settled(["rollout-0"]), 1.0))


def test_a_node_that_ray_never_notices_is_not_waited_for_for_ever(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "_NOTICED_S", 0.05)
    asyncio.run(asyncio.wait_for(placed().settled(["reward-0"]), 2.0))


def mark_of(made: Placement, actor: str) -> str:
    """The mark in the environment of the next actor of this name."""
    environment: Any = made.options(actor, {"A": "1"})["runtime_env"]
    assert environment["env_vars"]["A"] == "1"
    return environment["env_vars"][MARK]


def test_what_is_left_of_the_last_actor_is_ended_on_its_node_and_nothing_else(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "PlacementGroupSchedulingStrategy", lambda **_: None)
    made = placed()
    first, second = mark_of(made, "rollout-0"), mark_of(made, "rollout-0")
    mark_of(made, "reward-0")
    assert first != second
    asyncio.run(made.settled(["rollout-0"]))
    assert nodes.ends.asked == [(THERE, [second])]


@pytest.mark.parametrize("error", [WorkerCrashedError(), TimeoutError()])
def test_a_node_that_does_not_say_so_keeps_nobody_from_starting(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    nodes.ends = Ends(fails=error)
    monkeypatch.setattr(placement, "_end_marked", nodes.ends)
    asyncio.run(placed().settled(["rollout-0"]))
    assert nodes.ends.asked == [(THERE, [])]


@pytest.mark.parametrize("lost", [True, False])
@pytest.mark.parametrize("stopping", [True, False])
@pytest.mark.parametrize("head", [True, False])
def test_nothing_is_asked_of_a_gcs_of_ones_own_that_has_ended_or_may_be_ending(
    monkeypatch: pytest.MonkeyPatch, *, head: bool, stopping: bool, lost: bool
) -> None:
    server = SimpleNamespace(process=SimpleNamespace(poll=lambda: 0 if lost else None))
    node = SimpleNamespace(head=head, all_processes={"gcs_server": [server]})
    monkeypatch.setattr(cluster.ray_worker, "_global_node", node)
    monkeypatch.setattr(signals, "_heard", [15] if stopping else [])
    given: list[object] = []
    monkeypatch.setattr(placement, "remove_placement_group", given.append)
    monkeypatch.setattr(ray, "nodes", list)
    placed().release()
    assert bool(given) is not (head and (lost or stopping))
    if head and lost:
        with pytest.raises(LostActorError, match="GCS has ended, and without it no other actor"):
            asyncio.run(placed().settled(["rollout-0"]))


def test_bundles_that_ray_does_not_take_back_end_no_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def remove(_: object) -> None:
        raise GetTimeoutError("the GCS does not answer")

    monkeypatch.setattr(placement, "remove_placement_group", remove)
    placed().release()
    assert "the GCS does not answer" in caplog.text
