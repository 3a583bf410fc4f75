"""Exit codes of the commands that Hydra reads: what it refuses is bad input."""

from __future__ import annotations

from collections.abc import Callable

from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import (
    GrammarParseError,
    InterpolationResolutionError,
    OmegaConfBaseException,
)

from conf.errors import UserError
from launch.common.failures import exit_code

_INTERPOLATION = (GrammarParseError, InterpolationResolutionError)


def guarded(call: Callable[[], int | None]) -> int:
    """The exit code of `call`, as `exit_code` has it."""
    return exit_code(lambda: _in_our_words(call))


def said_of(error: Exception) -> str:
    """What to say of bad input: of what Hydra refuses in our words, of the rest in its own."""
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override, error.message)
    key: object = getattr(error, "full_key", None) if isinstance(error, _INTERPOLATION) else None
    if not key:
        return str(error)
    # The lines below the first are OmegaConf's own names for the place.
    return (
        f"{key}: {str(error).splitlines()[0]}; correct what stands in ${{...}}, export the "
        "variable that it names, or give the value itself"
    )


def _in_our_words(call: Callable[[], int | None]) -> int | None:
    """What `call` returns. Raises UserError for what Hydra refuses."""
    try:
        return call()
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(said_of(error)) from error


def _unreadable(given: str, message: str) -> str:
    """What to say of an override that Hydra's grammar does not know."""
    *causes, _ = message.splitlines()  # the last line refers to Hydra's manual
    why = (causes or [message])[-1]
    if why.strip() == "^":  # which stands under a character of the line above it
        start = len(causes[-2]) - len(given)
        why = f"it cannot be read from {given[why.index('^') - start :]!r:.40} on"
    said = f"{given!r} is not an override of the form key=value ({why})"
    name, equals, value = given.partition("=")
    if equals and "'" not in value:
        said += f"; a text with brackets, quotes or spaces is quoted twice: \"{name}='{value}'\""
    return said
