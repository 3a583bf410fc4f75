"""Processes that bear the mark of an actor are ended, whatever they do; others live on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping

import pytest

from actors.cluster import processes
from actors.cluster.processes import MARK, end_marked

pytestmark = pytest.mark.unit

PARENT = """
import subprocess, time
print(subprocess.Popen(["sleep", "60"]).pid, flush=True)
time.sleep(60)
"""


class Started:
    """Processes of a test; what it leaves is ended."""

    def __init__(self) -> None:
        self._all: list[subprocess.Popen[str]] = []

    def __call__(self, command: list[str], mark: str | None) -> subprocess.Popen[str]:
        env: Mapping[str, str] = os.environ if mark is None else {**os.environ, MARK: mark}
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
        self._all.append(process)
        return process

    def end(self) -> None:
        for process in self._all:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@pytest.fixture
def start() -> Iterator[Started]:
    started = Started()
    yield started
    started.end()


def lives(pid: int) -> bool:
    """Whether it is there and has not ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_stopped_process_ends_and_one_of_another_mark_lives_on(start: Started) -> None:
    stopped = start(["sleep", "60"], "rollout-0-1")
    others = [start(["sleep", "60"], mark) for mark in ("rollout-0-10", "rollout-1-1", None)]
    stopped.send_signal(signal.SIGSTOP)
    assert end_marked(["rollout-0-1"], 0.0, 5.0) == []
    assert stopped.wait(5.0) == -signal.SIGKILL
    assert all(lives(other.pid) for other in others)


def test_what_the_process_started_ends_with_it(start: Started) -> None:
    parent = start([sys.executable, "-c", PARENT], "policy-0-1")
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert lives(child)
    assert end_marked(["policy-0-1", "policy-1-1"], 0.0, 5.0) == []
    assert not lives(child)


def test_a_process_may_end_by_itself_first(start: Started) -> None:
    soon = start(["sleep", "0.3"], "reward-0-1")
    assert end_marked(["reward-0-1"], 10.0, 5.0) == []
    assert soon.wait(5.0) == 0


def test_a_process_that_does_not_end_is_told_of_after_a_while(
    start: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    stays = start(["sleep", "60"], "reward-0-1")
    monkeypatch.setattr(processes.os, "kill", lambda *_: None)
    assert end_marked(["reward-0-1"], 0.0, 0.2) == [stays.pid]
    assert lives(stays.pid)


def test_nothing_is_waited_for_where_no_process_is_left() -> None:
    assert end_marked(["rollout-7-1"], 0.0, 5.0) == []
