"""Seats of actors that are no actors, and a supervisor without a cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actors.groups.supervision import Seat, Supervisor
from conf.schema import SupervisionConfig
from rl.base.console import Console


def supervisor(restarts: int = 3) -> Supervisor:
    """One that does not pause between restarts."""
    cfg = SupervisionConfig(restarts=restarts, backoff_s=0.0)
    return Supervisor(cfg, 5.0, lambda _: "10.0.0.1", Console())


def seat(name: str, create: Callable[[], Any], *, admitted: bool = True) -> Seat[Any]:
    """A seat whose actors are made by `create`, and have no process that could be ended."""
    made = Seat(name, create, kill=lambda _: None)
    made.admitted = admitted
    return made
