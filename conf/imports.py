"""What a setting names from outside this tree: `my_package.module:make`."""

from __future__ import annotations

import importlib
from typing import Any

from conf.errors import UserError


def load(path: str, key: str) -> Any:  # noqa: ANN401 - whatever the module holds
    """The object that `path` names, for the setting `key`.

    Raises:
        UserError: when the module cannot be imported or has no such name.

    >>> load("json:loads", "data.kind")("[1]")
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
