"""Heads of Ray clusters, started by hand as a user does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.system.forks import ROOT, free_port

BIN = Path(sys.executable).parent


def run_ray(env: Mapping[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    """`ray ARGS`."""
    command = [str(BIN / "ray"), *args]
    return subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False
    )


@contextmanager
def ray_head(env: Mapping[str, str], *flags: str) -> Iterator[str]:
    """The address of a head on the loopback interface, with two CPUs."""
    port = free_port()
    # Of its own, so that nobody who starts a Ray finds this one and joins; short: it holds sockets.
    temporary = Path(f"/tmp/rh{os.getpid()}-{port}")
    done = run_ray(
        env,
        *("start", "--head", "--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=2"),
        *(f"--temp-dir={temporary}", *flags),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    try:
        yield f"127.0.0.1:{port}"
    finally:
        _end(str(temporary), f":{port} ")
        shutil.rmtree(temporary, ignore_errors=True)


def _end(*marks: str) -> None:
    """Kill the processes whose command line has a mark, and those below them.

    `ray stop` would end other clusters too. Agents have a title in place of a command line.
    """
    found: list[psutil.Process] = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join([*(process.info["cmdline"] or []), ""])
        with suppress(psutil.NoSuchProcess):
            if any(mark in line for mark in marks):
                found += [process, *process.children(recursive=True)]
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.kill()
