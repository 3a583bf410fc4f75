"""A signal ends a run as an error would."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from actors.stopping import run_until_stopped
from rl.errors import EngineError, StoppedError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_takes_down_what_the_run_has_started_and_is_named(number: signal.Signals) -> None:
    undone: list[str] = []

    async def actor() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)  # taking down may wait, too
            undone.append("actor")

    async def run() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(actor())
                await asyncio.sleep(0)
                os.kill(os.getpid(), number)
                await asyncio.sleep(60)
        finally:
            undone.append("placement")

    with pytest.raises(StoppedError, match=f"^stopped by {number.name}$"):
        run_until_stopped(run())
    assert undone == ["actor", "placement"]


def test_what_falls_over_while_a_run_is_taken_down_does_not_hide_the_signal() -> None:
    async def run() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await asyncio.sleep(60)
        finally:
            raise EngineError("the actors are gone already")

    with pytest.raises(StoppedError, match="stopped by SIGTERM"):
        run_until_stopped(run())


def test_a_second_signal_is_not_held_back() -> None:
    async def run() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(60)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        run_until_stopped(run())


def test_without_a_signal_results_errors_and_handlers_are_what_they_were() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    async def succeed() -> int:
        return 3

    async def fail() -> None:
        raise EngineError("rollout-0 died")

    assert run_until_stopped(succeed()) == 3
    with pytest.raises(EngineError, match="rollout-0 died"):
        run_until_stopped(fail())
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
