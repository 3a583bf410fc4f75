"""Files that one rank writes while others wait for it: a fault waits until all have come."""

from __future__ import annotations

import logging
from collections.abc import Callable

from safetensors import SafetensorError

from conf.errors import in_one_line

logger = logging.getLogger(__name__)

# A full disk is each of these: torch says RuntimeError, safetensors an error of its own.
_FAULTS = (OSError, RuntimeError, SafetensorError)


class LockstepWrites:
    """The writes of one rank; after one that fails it writes nothing more, and goes along.

    A rank that raised between two collectives would leave the others there until their deadline.
    """

    def __init__(self) -> None:
        self.fault = ""  # in one line

    def __call__(self, write: Callable[[], object]) -> None:
        """Write, unless something before has failed."""
        if self.fault:
            return
        try:
            write()
        except _FAULTS as error:
            logger.debug("a write failed", exc_info=True)
            self.fault = in_one_line(error)
