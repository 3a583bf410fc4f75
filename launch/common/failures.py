"""Failures that are part of the contract, as exit codes: 0 good, 2 bad input, 1 the others.

Bad input ends with its message on stderr; other failures that the project raises on purpose with
one line, as a full disk does. Anything else is a defect and shows its traceback. Nothing here needs
Hydra, which `launch/gpu_check.py` does without.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from contextlib import suppress

from actors.cluster.signals import stopped_by_signals
from conf.errors import ProjectError, UserError
from conf.validate import ConfigError

_FULL = {errno.ENOSPC, errno.EDQUOT}  # a disk or a quota

EXIT_FAILURE = 1
EXIT_BAD_INPUT = 2


def exit_code(call: Callable[[], int | None]) -> int:
    """The exit code of `call`; the errors that are part of the contract become messages."""
    try:
        with stopped_by_signals():
            return call() or 0
    except (UserError, ConfigError) as error:
        message, code = str(error), EXIT_BAD_INPUT
    except ProjectError as error:
        message, code = f"{type(error).__name__}: {error}", EXIT_FAILURE
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        if error.errno == errno.ENAMETOOLONG:
            message, code = f"{where}{error.strerror}; give a shorter path", EXIT_BAD_INPUT
        elif error.errno in _FULL:
            message, code = f"{where}{error.strerror}; make room and start again", EXIT_FAILURE
        else:
            raise
    except KeyboardInterrupt:  # for the second time
        message, code = "stopped by SIGINT", EXIT_FAILURE
    report(message)
    return code


def report(message: str, kind: str = "error") -> None:
    """Lines of `message` on stderr, each after what it is; lost where that is a full disk."""
    lines = (f"{kind}: {line}\n" for line in message.splitlines() if line.strip())
    with suppress(OSError):
        sys.stderr.writelines(lines)
