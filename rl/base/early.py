"""Signals while a command is still loading its modules: one line, and the process is gone.

A command imports this before anything else; `launch.common.failures` takes over once it has loaded.
Nothing has begun by then that could be lost, and a library that is cut in the middle of its import
may swallow an exception.
"""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing import parent_process
from pathlib import Path
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_COMMANDS = "launch"  # the folder of scripts whose process this is about


def listen() -> None:
    """Let each signal end this process, unless whoever started it has it ignored."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, _: FrameType | None) -> None:
    os.write(2, f"error: StoppedError: stopped by {signal.Signals(number).name}\n".encode())
    os._exit(1)


def _is_command() -> bool:
    """Whether this process runs a command, and is no helper that one has started."""
    script = getattr(sys.modules["__main__"], "__file__", None) or ""
    return parent_process() is None and Path(script).resolve().parent.name == _COMMANDS


if _is_command():
    listen()
