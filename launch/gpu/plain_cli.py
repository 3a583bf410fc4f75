"""Command line of `launch/gpu_check.py` where Hydra is missing, as on a machine with bare torch.

`key=value` with YAML values, checked by the same schema; no lists, quotes or options of Hydra.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import yaml

from conf.errors import UserError, in_one_line
from conf.validate import build
from launch.common.failures import exit_code

T = TypeVar("T")


def main_simple(
    schema: type[T], run: Callable[[T], int | None], argv: Sequence[str] | None = None
) -> int:
    """Fill `schema` from `key=value`, then `run`; the exit code, 2 for bad input."""
    given = sys.argv[1:] if argv is None else argv
    return exit_code(lambda: run(build(schema, dict(map(_pair, given)))))


def _pair(given: str) -> tuple[str, object]:
    name, equals, value = given.partition("=")
    if not equals or name.startswith("-"):
        raise UserError(f"{given}: is not of the form key=value, all that is read without Hydra")
    try:
        return name, yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date that is none, as well
        raise UserError(
            f"{name}: {value} is no value of YAML ({in_one_line(error)}); quote a text: "
            f"\"{name}='{value}'\""
        ) from error
