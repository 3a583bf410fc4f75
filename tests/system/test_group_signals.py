"""A signal to the process group of a command, as `timeout` sends it, is the command's alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

TREE = Path(__file__).resolve().parents[2]
# What a run does at its end needs Ray: here the end of its body asks for the nodes, and the places
# of its actors are given back.
BODY = """
import asyncio, sys
import ray
from actors.cluster.session import session
from launch.common.failures import exit_code
from tests.settings import run_config

async def body():
    try:
        print("begun", flush=True)
        await asyncio.sleep(60)
    finally:
        print(len(ray.nodes()), "node", flush=True)

def run():
    with session(run_config().ray, "signals") as run_in:
        run_in(body())

sys.exit(exit_code(run))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ray_outlives_it_until_the_command_has_ended(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", BODY],
        cwd=TREE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    assert "begun\n" in lines  # reads up to it; what was left by others may be said before
    process.send_signal(number)
    os.killpg(process.pid, number)
    said, errors = process.communicate(timeout=60)
    assert said == "1 node\n"
    assert errors == f"error: StoppedError: stopped by {number.name}\n"
    assert process.returncode == 1
