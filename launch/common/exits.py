"""Exit codes of every command: 0 good, 2 bad input, 1 other failures that are part of the contract.

Bad input ends with its message on stderr; other failures that the project raises on purpose with
one line, as a full disk does. Anything else is a defect and shows its traceback.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from actors.cluster.signals import stopped_by_signals
from conf.errors import ProjectError, UserError
from conf.validate import ConfigError

_FULL = {errno.ENOSPC, errno.EDQUOT}  # a disk or a quota

EXIT_FAILURE = 1
EXIT_BAD_INPUT = 2


def guarded(call: Callable[[], int | None]) -> int:
    """The exit code of `call`; the errors that are part of the contract become messages."""
    try:
        with stopped_by_signals():
            return call() or 0
    except OverrideParseException as error:
        message, code = _unreadable(error.override, error.message), EXIT_BAD_INPUT
    except (UserError, ConfigError, HydraException, OmegaConfBaseException) as error:
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
    """Lines of `message` on stderr, each after what it is."""
    sys.stderr.writelines(f"{kind}: {line}\n" for line in message.splitlines() if line.strip())


def _unreadable(given: str, message: str) -> str:
    """What to say of an override that Hydra's grammar does not know."""
    *causes, _ = message.splitlines()  # the last line refers to Hydra's manual
    said = f"{given!r} is not an override of the form key=value ({(causes or [message])[-1]})"
    name, equals, value = given.partition("=")
    if equals and "'" not in value:
        said += f"; a text with brackets, quotes or spaces is quoted twice: \"{name}='{value}'\""
    return said
