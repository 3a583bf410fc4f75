"""Command line of `launch/gpu_check.py` where Hydra is missing, as on a machine with bare torch.

`key=value` with YAML values, checked by the same schema; no lists, quotes or options of Hydra.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import yaml

from conf.errors import UserError
from conf.validate import ConfigError, build

T = TypeVar("T")


def main_simple(
    schema: type[T], run: Callable[[T], int | None], argv: Sequence[str] | None = None
) -> int:
    """Fill `schema` from `key=value`, then `run`; the exit code, 2 for bad input."""
    try:
        return run(build(schema, dict(map(_pair, sys.argv[1:] if argv is None else argv)))) or 0
    except (UserError, ConfigError) as error:
        sys.stderr.writelines(f"error: {line}\n" for line in str(error).splitlines())
        return 2


def _pair(given: str) -> tuple[str, object]:
    name, equals, value = given.partition("=")
    if not equals or name.startswith("-"):
        raise UserError(f"{given}: is not of the form key=value, all that is read without Hydra")
    return name, yaml.safe_load(value)
