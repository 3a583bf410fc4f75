"""What only informs about a run: written as far as that goes, and never the end of a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager

from conf.errors import in_one_line

logger = logging.getLogger(__name__)

Warn = Callable[[str], None]


class BestEffort:
    """Files, pages and trackers of one run that a full disk or a dead server may cost it.

    The first failure of each is warned of in one line; the end of a run reports `missing`.
    """

    def __init__(self, warn: Warn) -> None:
        self._warn = warn
        self._missing: list[str] = []
        self._warned: set[str] = set()

    @property
    def missing(self) -> tuple[str, ...]:
        """What is not complete, in the order in which that was found."""
        return tuple(self._missing)

    @contextmanager
    def trying(self, what: str) -> Generator[None]:
        """Write a part of `what` in the body, which may fail."""
        try:
            yield
        except Exception as error:  # whatever it is, it must not end the run
            logger.debug("%s failed", what, exc_info=True)
            self.failed(what, in_one_line(str(error)) or type(error).__name__)

    def failed(self, what: str, why: str) -> None:
        """Warn that `what` is not complete, unless that has been said."""
        if what not in self._missing:
            self._missing.append(what)
        if what not in self._warned:
            self._warned.add(what)
            self._warn(f"{what} is not complete: {why}; the run goes on")

    def complete(self, what: str) -> None:
        """Whatever has failed of `what` before, all of it is there now."""
        if what in self._missing:
            self._missing.remove(what)
