"""Signals: SIGTERM and Ctrl-C end a run as an error would, so that every `finally` runs.

`ray job stop`, Slurm and Kubernetes send SIGTERM and kill what is left a little later. `timeout`
sends it twice at once, to the command and to its process group: that is one signal.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Coroutine, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from conf.errors import StoppedError
from rl.base.early import SIGNALS
from rl.run.checkpoint import complete_checkpoints

T = TypeVar("T")

_KEEP_S = 0.001
_SAME_S = 1.0  # what comes within that time of the first signal is that one again
_AGAIN_S = 0.05  # the callback that an exception was raised in has ended by then
_heard: list[signal.Signals] = []  # signals that are still to be told of
_SIGACTION_BYTES = 256  # more than `struct sigaction` of any libc; it is kept as it is


def is_stopping() -> bool:
    """Whether a signal has come, and what it ends is being taken down."""
    return bool(_heard)


def run_until_stopped(body: Coroutine[Any, Any, T]) -> T:
    """Run `body` to its end in an event loop of its own; a signal cancels it.

    The first signal takes down what the body has started. A second one ends the process at once,
    also where Python stands still.

    Raises:
        StoppedError: naming the signal, when the body is gone.
    """
    if _heard:
        body.close()  # else Python says that nobody has awaited it
        raise StoppedError(f"stopped by {_heard[0].name}")
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        return asyncio.run(_cancelled_by_signals(body))
    finally:
        for number, handler in handlers.items():  # asyncio leaves the defaults of Python
            signal.signal(number, handler)


@contextmanager
def stopped_by_signals() -> Generator[None]:
    """A signal raises StoppedError in the body, where it has no event loop that listens.

    Without it Ctrl-C ends a command with a traceback. The second signal is obeyed at once. What the
    shell that started the command ignores stays ignored. Where the exception is raised in a
    callback of the interpreter, which would print it, it is raised again a little later.
    """
    if not _decides_on_signals():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    print_unraisable = sys.unraisablehook
    first = _First()
    lost: list[object] = []  # an exception that nobody has seen, so that it is raised again
    again: list[threading.Timer] = []

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def on_signal(number: int, _: FrameType | None) -> None:
        if first.number is None:
            first.take(number)
            _heard.append(signal.Signals(number))
        elif lost:
            lost.clear()
        elif first.is_again(number):
            return
        else:
            restore()
            os.kill(os.getpid(), number)
            return
        raise KeyboardInterrupt  # libraries catch, and Ray Data reports, what is an Exception

    def on_unraisable(found: sys.UnraisableHookArgs) -> None:
        if first.number is None or found.exc_type is not KeyboardInterrupt:
            print_unraisable(found)
            return
        lost.append(found.exc_type)
        again.append(threading.Timer(_AGAIN_S, os.kill, (os.getpid(), first.number)))
        again[-1].start()

    for number, handler in handlers.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, on_signal)
    sys.unraisablehook = on_unraisable
    try:
        yield
        # Somebody has caught the exception, or it is about to be raised again.
        if first.number is not None:
            raise StoppedError(f"stopped by {first.number.name}")
    except BaseException as error:
        if first.number is not None:
            raise StoppedError(f"stopped by {first.number.name}") from error
        raise
    finally:
        sys.unraisablehook = print_unraisable
        for timer in again:
            timer.cancel()
        restore()
        _heard[:] = [number for number in _heard if number is not first.number]


@contextmanager
def held_signals() -> Generator[None]:
    """A body that must not be cut in the middle, as the start of Ray: a signal waits for its end.

    Ray would leave processes behind. The second signal ends this process at once, and the kernel
    those that it has started. A library may put its own handler below Python's, as Ray's C++ part
    does, which prints a stack and dies: a thread undoes that while the body runs.

    Raises:
        StoppedError: when the body has ended, naming the first signal.
    """
    if not _decides_on_signals():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    first = _First()

    def on_signal(number: int, _: FrameType | None) -> None:
        if first.number is None:
            first.take(number)
        elif not first.is_again(number):
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    for number, handler in handlers.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, on_signal)
    kernel = KernelHandlers(SIGNALS)
    done = threading.Event()

    def keep() -> None:
        while not done.wait(_KEEP_S):
            kernel.restore()

    keeper = threading.Thread(target=keep, name="signals", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if first.number is not None:
            raise StoppedError(f"stopped by {first.number.name}")


class _First:
    """The first signal, if one has come."""

    number: signal.Signals | None = None
    _taken_s = 0.0

    def take(self, number: int) -> None:
        """Hear this one as the first."""
        self.number, self._taken_s = signal.Signals(number), time.monotonic()

    def is_again(self, number: int) -> bool:
        """Whether another one is the first once more, as `timeout` sends it."""
        return number == self.number and time.monotonic() < self._taken_s + _SAME_S


class KernelHandlers:
    """What the kernel calls at each signal, below Python, which knows of its own handlers only."""

    def __init__(self, numbers: Sequence[signal.Signals]) -> None:
        self._call = ctypes.CDLL(None).sigaction
        self._actions = {
            number: ctypes.create_string_buffer(_SIGACTION_BYTES) for number in numbers
        }
        for number, action in self._actions.items():
            self._call(int(number), None, action)

    def restore(self) -> None:
        """Put back what was there when this was made; any thread may."""
        for number, action in self._actions.items():
            self._call(int(number), action, None)


def _decides_on_signals() -> bool:
    """Whether this thread may handle signals, and no event loop around it does."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return threading.current_thread() is threading.main_thread()
    return False


def how_to_go_on(checkpoints: Path, key: str, resume: str = "resume=auto") -> str:
    """What to do after a stop; `key` is the one that says how often checkpoints are kept.

    `resume` is what has to be added to the command.
    """
    found = complete_checkpoints(checkpoints)
    if not found:
        return f"there is no checkpoint yet ({key})"
    return f"the same command with {resume} goes on after step {found[-1].step}"


async def _cancelled_by_signals(body: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.get_running_loop()
    task = loop.create_task(body)
    first = _First()
    second = threading.Timer(_SAME_S, _end_at_signals)

    def on_signal(number: signal.Signals) -> None:
        if first.number is None:
            first.take(number)
            _heard.append(number)
            second.start()
            task.cancel()
        elif not first.is_again(number):
            _end_at_signals()
            os.kill(os.getpid(), number)

    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        return await task
    except BaseException as error:
        # What falls over while it is taken down is a consequence of the signal.
        if first.number is not None:
            raise StoppedError(f"stopped by {first.number.name}") from error
        raise
    finally:
        second.cancel()
        _heard.clear()


def _end_at_signals() -> None:
    """Let each signal end this process, as the kernel does it; any thread may."""
    call = ctypes.CDLL(None).signal
    for number in SIGNALS:
        call(int(number), signal.SIG_DFL.value)
