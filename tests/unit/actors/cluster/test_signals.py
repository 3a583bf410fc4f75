"""A signal ends a run as an error would."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actors.cluster.signals import (
    held_signals,
    how_to_go_on,
    run_until_stopped,
    stopped_by_signals,
)
from conf.errors import EngineError, StoppedError
from rl.run.checkpoint import commit, staging_directory

pytestmark = pytest.mark.unit

TREE = Path(__file__).resolve().parents[4]


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Python would print of exceptions that nobody passes on: their names."""
    names: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: names.append(found.exc_type.__name__))
    return names


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


TWICE = """
import asyncio, os, signal, sys, threading, time
from actors.cluster.signals import held_signals, run_until_stopped, stopped_by_signals

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell may have ignored

def send():
    os.kill(os.getpid(), signal.Signals[sys.argv[2]])

async def run():
    try:
        send()
        await asyncio.sleep(60)
    finally:
        then()

def then():
    if sys.argv[3] == "at once":
        send()
        time.sleep(0.1)
    else:
        threading.Timer(1.3, send).start()
        time.sleep(30)
    print("taken down", flush=True)

if sys.argv[1] == "in a loop":
    run_until_stopped(run())
elif sys.argv[1] == "held":
    with held_signals():
        send()
        then()
else:
    with stopped_by_signals():
        try:
            send()
            time.sleep(60)
        finally:
            then()
"""


@pytest.mark.parametrize("where", ["in a loop", "held", "without a loop"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_that_comes_twice_at_once_is_one(where: str, name: str) -> None:
    done = _twice(where, name, "at once")
    assert done.stdout == "taken down\n"
    assert f"StoppedError: stopped by {name}" in done.stderr


@pytest.mark.parametrize("where", ["in a loop", "held", "without a loop"])
def test_a_second_signal_ends_the_process_where_python_stands_still(where: str) -> None:
    began_s = time.monotonic()
    done = _twice(where, "SIGTERM", "later")
    assert (done.stdout, done.returncode) == ("", -signal.SIGTERM)
    assert time.monotonic() - began_s < 25


def _twice(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", TWICE, *arguments]
    return subprocess.run(command, cwd=TREE, capture_output=True, text=True, check=False)


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


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_without_an_event_loop_a_signal_is_the_same_error(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(StoppedError, match=f"^stopped by {number.name}$"), stopped_by_signals():
        os.kill(os.getpid(), number)
        time.sleep(60)
    assert signal.getsignal(number) is before


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_a_callback_of_the_interpreter_is_raised_again_and_nothing_is_printed(
    number: signal.Signals, printed: list[str]
) -> None:
    class Dying:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)
            time.sleep(0.01)

    hook, start_s = sys.unraisablehook, time.monotonic()
    with pytest.raises(StoppedError, match=f"^stopped by {number.name}$"), stopped_by_signals():
        Dying()
        time.sleep(60)
    assert time.monotonic() - start_s < 30
    assert printed == []
    assert sys.unraisablehook is hook


@pytest.mark.usefixtures("ctrl_c")
def test_what_else_is_raised_in_a_callback_is_printed(printed: list[str]) -> None:
    class Dying:
        def __del__(self) -> None:
            raise EngineError("in a callback")

    with stopped_by_signals():
        Dying()
    assert printed == ["EngineError"]


@pytest.mark.usefixtures("ctrl_c")
def test_without_an_event_loop_a_second_signal_is_not_held_back() -> None:
    def body() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)

    with pytest.raises(StoppedError, match="stopped by SIGTERM"), stopped_by_signals():
        body()


def test_what_the_shell_has_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stopped_by_signals():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_inside_an_event_loop_the_loop_decides() -> None:
    undone: list[str] = []

    async def run() -> None:
        try:
            with stopped_by_signals():
                os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)  # would be lost if the signal had broken the loop
            undone.append("placement")

    with pytest.raises(StoppedError, match="stopped by SIGTERM"):
        run_until_stopped(run())
    assert undone == ["placement"]


def test_advice_after_a_stop_names_the_newest_checkpoint_or_the_key(tmp_path: Path) -> None:
    missing = how_to_go_on(tmp_path / "none", "checkpoint_every")
    assert missing == "there is no checkpoint yet (checkpoint_every)"
    commit(staging_directory(tmp_path, 7), tmp_path, 7, keep=2)
    assert how_to_go_on(tmp_path, "checkpoint_every").endswith("goes on after step 7")


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_held_signal_waits_for_the_end_of_the_body(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    done: list[str] = []
    with pytest.raises(StoppedError, match=f"stopped by {number.name}"), held_signals():
        os.kill(os.getpid(), number)
        time.sleep(0.05)
        done.append("all of it")
    assert done == ["all of it"]
    assert signal.getsignal(number) is before


@pytest.mark.usefixtures("ctrl_c")
def test_a_held_signal_takes_the_place_of_what_it_has_broken() -> None:
    with pytest.raises(StoppedError, match="stopped by SIGTERM") as caught, held_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        raise EngineError("Ray did not start")
    assert isinstance(caught.value.__context__, EngineError)


@pytest.mark.usefixtures("ctrl_c")
def test_a_handler_below_python_is_undone_at_once() -> None:
    default = ctypes.c_void_p(0)
    with pytest.raises(StoppedError, match="stopped by SIGTERM"), held_signals():
        ctypes.CDLL(None).signal(int(signal.SIGTERM), default)  # Python does not know of it
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)  # would end this process


@pytest.mark.usefixtures("ctrl_c")
def test_a_signal_whose_exception_is_lost_is_told_before_anything_is_started() -> None:
    async def start() -> None:
        pytest.fail("started")

    body = start()
    with pytest.raises(StoppedError, match="stopped by SIGTERM"), stopped_by_signals():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except KeyboardInterrupt:
            pass
        run_until_stopped(body)
    assert body.cr_frame is None  # closed: Python says of no coroutine that nobody has awaited it
