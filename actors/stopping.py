"""SIGTERM and Ctrl-C end a run as an error would: every `finally` of it runs.

`ray job stop`, Slurm and Kubernetes send SIGTERM and kill what is left a little later.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from rl.errors import StoppedError

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_until_stopped(body: Coroutine[Any, Any, T]) -> T:
    """Run `body` to its end in an event loop of its own; a signal cancels it.

    The first signal takes down what the body has started. A second one is obeyed at once, as if
    nobody had listened.

    Raises:
        StoppedError: naming the signal, when the body is gone.
    """
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        return asyncio.run(_cancelled_by_signals(body))
    finally:
        for number, handler in handlers.items():  # asyncio leaves the defaults of Python
            signal.signal(number, handler)


async def _cancelled_by_signals(body: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.get_running_loop()
    task = loop.create_task(body)
    received: list[signal.Signals] = []

    def on_signal(number: signal.Signals) -> None:
        received.append(number)
        for listened in _SIGNALS:
            loop.remove_signal_handler(listened)
        task.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        return await task
    except BaseException as error:
        # What falls over while it is taken down is a consequence of the signal.
        if received:
            raise StoppedError(f"stopped by {received[0].name}") from error
        raise
