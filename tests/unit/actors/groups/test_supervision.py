"""How often a seat may be filled again, and when a loss is forgotten."""

from __future__ import annotations

import asyncio

import pytest

from actors.groups import supervision
from actors.groups.supervision import Seat
from conf.errors import DeadlineError, LostActorError
from tests.unit.actors.groups.seats import OneNode, seat, supervisor

pytestmark = pytest.mark.unit

WINDOW_S = 3600.0


class Clock:
    """A clock that is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 10.0
        monkeypatch.setattr(supervision.time, "monotonic", lambda: self.now_s)


async def started(_: object) -> None:
    """A start that succeeds at once."""


def lose(place: Seat[object]) -> None:
    """The actor of the seat is lost, and another takes its place."""
    place.lose(place.handle, DeadlineError("no answer"))
    asyncio.run(supervisor(restarts=2).admit(place, started))


def test_a_restart_no_longer_counts_after_its_window(monkeypatch: pytest.MonkeyPatch):
    clock, place = Clock(monkeypatch), seat("rollout-0", object)
    for _ in range(5):
        lose(place)
        clock.now_s += 0.6 * WINDOW_S
    assert place.admitted


def test_as_many_restarts_within_a_window_as_are_allowed(monkeypatch: pytest.MonkeyPatch):
    clock, place = Clock(monkeypatch), seat("rollout-0", object)
    for _ in range(2):
        lose(place)
        clock.now_s += 0.3 * WINDOW_S
    with pytest.raises(LostActorError, match="restarts=2 allows no further restart within 3600 s"):
        lose(place)
    clock.now_s += 0.5 * WINDOW_S
    asyncio.run(supervisor(restarts=2).admit(place, started))
    assert place.admitted


def test_where_no_other_can_be_started_the_lost_one_and_the_reason_are_said(
    monkeypatch: pytest.MonkeyPatch,
):
    def nobody(*_: object) -> str:
        raise LostActorError("Ray's GCS has ended")

    monkeypatch.setattr(OneNode, "node_of", nobody)
    lost = seat("rollout-0", object)
    lost.lose(lost.handle, LostActorError("its process has died"))
    said = r"^rollout-0 is lost: its process has died; Ray's GCS has ended$"
    with pytest.raises(LostActorError, match=said):
        asyncio.run(supervisor().admit(lost, started))
