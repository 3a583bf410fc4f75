"""Seats of actors that are no actors, and a supervisor without a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from actors.groups.supervision import Seat, Supervisor
from conf.schema import SupervisionConfig
from rl.base.console import Console


class OneNode:
    """The node of all actors."""

    def node_of(self, actor: str) -> str:
        del actor
        return "10.0.0.1"

    async def settled(self, actors: Sequence[str]) -> None:
        """It is there."""


def supervisor(restarts: int = 3) -> Supervisor:
    """One that does not pause between restarts."""
    cfg = SupervisionConfig(restarts=restarts, backoff_s=0.0)
    return Supervisor(cfg, 5.0, OneNode(), Console())


def seat(name: str, create: Callable[[], Any], *, admitted: bool = True) -> Seat[Any]:
    """A seat whose actors are made by `create`, and have no process that could be ended."""
    made = Seat(name, create, kill=lambda _: None)
    made.admitted = admitted
    return made
