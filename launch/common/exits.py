"""Exit codes of the commands that Hydra reads: what it refuses is bad input."""

from __future__ import annotations

from collections.abc import Callable

from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from conf.errors import UserError
from launch.common.failures import exit_code


def guarded(call: Callable[[], int | None]) -> int:
    """The exit code of `call`, as `exit_code` has it."""
    return exit_code(lambda: _in_our_words(call))


def _in_our_words(call: Callable[[], int | None]) -> int | None:
    """What `call` returns. Raises UserError for what Hydra refuses."""
    try:
        return call()
    except OverrideParseException as error:
        raise UserError(_unreadable(error.override, error.message)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(str(error)) from error


def _unreadable(given: str, message: str) -> str:
    """What to say of an override that Hydra's grammar does not know."""
    *causes, _ = message.splitlines()  # the last line refers to Hydra's manual
    said = f"{given!r} is not an override of the form key=value ({(causes or [message])[-1]})"
    name, equals, value = given.partition("=")
    if equals and "'" not in value:
        said += f"; a text with brackets, quotes or spaces is quoted twice: \"{name}='{value}'\""
    return said
