"""What a placement knows of nodes that are gone before Ray does."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest

from actors.cluster import placement
from actors.cluster.bundles import Bundle
from actors.cluster.placement import Placement

pytestmark = pytest.mark.unit


class Nodes:
    """Two nodes as Ray reports them: one that listens, and one whose port is closed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, listening: int, closed: int) -> None:
        self.alive = [True, True]
        self.home_of_reward = "gone"
        self._ports = listening, closed
        monkeypatch.setattr(placement.ray, "nodes", self.nodes)
        monkeypatch.setattr(placement, "placement_group_table", self.table)
        monkeypatch.setattr(placement, "_LOOK_S", 0.01)

    def nodes(self) -> list[dict[str, Any]]:
        named = zip(("there", "gone"), self._ports, self.alive, strict=True)
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
        return {"bundles_to_node_id": {0: "there", 1: self.home_of_reward}}


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
            nodes.home_of_reward = "there"

    assert asyncio.run(settles(["reward-0"], notice)) >= 0.05


def test_nothing_is_waited_for_where_the_node_answers_or_holds_other_actors(nodes: Nodes) -> None:
    asyncio.run(asyncio.wait_for(placed().settled(["rollout-0"]), 1.0))


def test_a_node_that_ray_never_notices_is_not_waited_for_for_ever(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "_NOTICED_S", 0.05)
    asyncio.run(asyncio.wait_for(placed().settled(["reward-0"]), 2.0))
