"""Arguments that a user gives an engine beside ours, as the classes of its library take them.

Run as a process of its own (`python -m actors.engines.given`): the libraries take seconds to load,
and change the environment of whoever loads them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from enum import Enum
from types import UnionType
from typing import Any, Literal, get_args

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from conf.keys import nearest

Library = Literal["vllm", "deepspeed"]
_SHOWN = 200  # characters of a rule


def library_faults(library: Library, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What the library does not know or take: dotted name, and why."""
    known = _of_vllm() if library == "vllm" else _of_deepspeed()
    for name, value in given.items():
        if name not in known:
            close = nearest(name, known)
            yield name, f"{library} has no such argument{f'; nearest: {close}' if close else ''}"
        else:
            yield from _wrong(name, known[name], value)


def _wrong(name: str, hint: Any, value: object) -> Iterator[tuple[str, str]]:  # noqa: ANN401
    """What is wrong with a value that the library has a type for; a name of an enum will do."""
    if isinstance(value, str) and value in _enum_names(hint):
        return
    try:
        TypeAdapter(hint).validate_python(value)
    except PydanticUserError:  # a type that cannot be looked into: the engine will say
        return
    except ValidationError as error:
        for one in error.errors():
            place = ".".join([name, *map(str, one["loc"])])
            close = _nearest_field(hint, one)
            yield place, f"{one['msg'][:_SHOWN]}{f'; nearest: {close}' if close else ''}"


def _nearest_field(hint: Any, error: Any) -> str | None:  # noqa: ANN401 - of pydantic
    if error["type"] not in ("extra_forbidden", "unexpected_keyword_argument"):
        return None
    for kind in (hint, *get_args(hint)):
        own = getattr(kind, "model_fields", None) or getattr(kind, "__dataclass_fields__", {})
        aliases = {getattr(one, "alias", None) or name for name, one in own.items()}
        if close := nearest(str(error["loc"][-1]), aliases):
            return close
    return None


def _enum_names(hint: Any) -> set[str]:  # noqa: ANN401
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    enums = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Enum)]
    return {name for kind in enums for name in kind.__members__}


def _of_vllm() -> dict[str, Any]:
    """The fields of vLLM's own arguments with their types; any value where a type is not there."""
    from vllm.engine import arg_utils  # noqa: PLC0415 - seconds

    known: dict[str, Any] = {}
    for one in fields(arg_utils.EngineArgs):
        hint: Any = one.type
        if isinstance(hint, str):
            try:
                hint = eval(hint, dict(vars(arg_utils)))
            except NameError:  # of a type that only type checkers import
                hint = Any
        known[one.name] = hint
    return known


def _of_deepspeed() -> dict[str, Any]:
    """What of DeepSpeed's configuration tunes the engine, with its own classes."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from deepspeed.comm.config import CommsLoggerConfig  # noqa: PLC0415 - seconds
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig  # noqa: PLC0415

    return {
        "zero_optimization": DeepSpeedZeroConfig,
        "comms_logger": CommsLoggerConfig,
        "wall_clock_breakdown": bool,
        "memory_breakdown": bool,
        "prescale_gradients": bool,
        "gradient_predivide_factor": float,
    }


def main() -> None:
    """Read `[library, arguments]` from standard input; the last line written is the faults."""
    library, given = json.load(sys.stdin)
    found = list(library_faults(library, given))
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
