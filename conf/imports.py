"""What a setting names from outside this tree: `my_package.module:make`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from conf.errors import UserError

# What the function that a setting names is called with.
CALLED_WITH: dict[str, tuple[str, ...]] = {
    "recipe": ("a Setup", "arguments"),
    "algorithm.kind": ("a Config",),
    "reward.kind": ("a RewardConfig", "an ExecutionConfig"),
    "reward.rule": ("a text", "an ExtractConfig"),
    "data.kind": ("a DataConfig", "a seed"),
}


def load(path: str, key: str) -> Any:  # noqa: ANN401 - whatever the module holds
    """The object that `path` names, for the setting `key`.

    Raises:
        UserError: when the module cannot be imported or has no such name.

    >>> load("json:loads", "source")("[1]")
    [1]
    """
    module, _, name = path.partition(":")
    try:
        found = importlib.import_module(module)
    except Exception as error:  # a module raises whatever it likes
        raise UserError(
            f"{key}: {module!r} cannot be imported ({type(error).__name__}: {error}); its folder "
            "must be on PYTHONPATH, on every node"
        ) from error
    if not hasattr(found, name):
        raise UserError(f"{key}: {module!r} has no {name!r}; give module:name")
    return getattr(found, name)


def load_function(path: str, key: str, like: str | None = None) -> Callable[..., Any]:
    """The function that `path` names, for a setting of `CALLED_WITH`, or one that is `like` one.

    Raises:
        UserError: as `load` does, and for what cannot be called like that.
    """
    found = load(path, key)
    wanted = CALLED_WITH[like or key]
    form = f"{key}: {path}: it must take {' and '.join(wanted)}"
    if not callable(found):
        raise UserError(f"{form}; it is a {type(found).__name__}")
    try:
        inspect.signature(found).bind(*wanted)
    except TypeError as error:
        raise UserError(f"{form} ({error})") from error
    except ValueError:  # some built-in functions do not say what they take
        pass
    return found
