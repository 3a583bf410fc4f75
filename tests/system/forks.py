"""Processes of this tier, forked from one that has loaded the libraries.

To load torch, transformers, Ray and DeepSpeed takes a process five seconds of a core, and the tier
starts dozens. What is forked is still a process of its own: ranks with their own memory, a command
with its own arguments, folder, environment, output and exit code. Where the start of a command is
what is promised (signals, refusals, servers), a test starts an interpreter.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import runpy
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
from torch.multiprocessing.spawn import start_processes

ROOT = Path(__file__).resolve().parents[2]
# The first sets variables that libraries read when they are loaded. Nothing of vLLM: it changes
# classes of transformers for the whole process.
_LOADED = ["launch.common.cli", "actors.engines.deepspeed_engine", "actors.jobs.experiment"]


def _forks() -> ForkServerContext:
    """The server that processes are forked from; DeepSpeed is told of the CPU when it is loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_LOADED)
    return context


def free_port() -> int:
    """A port that nobody listens to, and the kernel hands to nobody who asks for any."""
    while True:
        port = random.SystemRandom().randint(20_000, 32_000)  # above those of Ray's workers
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def run_ranks(
    worker: Callable[..., None], num_ranks: int, *args: object, deadline_s: float = 400
) -> None:
    """Run `worker(rank, *args)` in so many processes, to their end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DS_ACCELERATOR", "cpu")  # GPU or not
        _forks()
        context: Any = start_processes(
            worker, args, nprocs=num_ranks, join=False, start_method="forkserver"
        )
    deadline = time.monotonic() + deadline_s
    while not context.join(timeout=5):
        if time.monotonic() > deadline:
            for process in context.processes:
                process.kill()
            pytest.fail(f"{num_ranks} ranks did not finish in {deadline_s:g} s")


def run_command(
    script: str,
    *args: str,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 280,
) -> subprocess.CompletedProcess[str]:
    """What `python SCRIPT ARGS` does in a folder, once its libraries are loaded."""
    line = [str(ROOT / script), *args]
    environment = dict(os.environ if env is None else env)
    with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        said = Path(scratch) / "stdout", Path(scratch) / "stderr"
        patch.setenv("DS_ACCELERATOR", "cpu")
        process = _forks().Process(target=_be_command, args=(line, cwd, environment, said))
        process.start()
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(line, timeout_s)
        out, err = (path.read_text(encoding="utf-8") for path in said)
        return subprocess.CompletedProcess(line, process.exitcode, out, err)


def _be_command(
    line: list[str], cwd: Path, environment: dict[str, str], said: tuple[Path, Path]
) -> None:
    """Become a process that was started with this line."""
    for number, path in enumerate(said, start=1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = line
    runpy.run_path(line[0], run_name="__main__")
