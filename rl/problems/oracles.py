"""Exact oracles of minipy: what is right for an input, from the metadata of a problem alone.

No program is run and no stored test is read. Oracles measure; no recipe learns from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from conf.errors import DataError
from rl.problems import branchy, minipy
from rl.problems.minipy import Numbers
from rl.problems.prompts import meta_fields
from rl.types import Prompt


def has_oracle(problem: Prompt) -> bool:
    """Whether the metadata of a problem holds all that it is made of.

    That of minipy does; rows of flat problems that were made before their constants were kept, and
    synthetic problems, have none.
    """
    return problem.source == "minipy" and "constants" in meta_fields(problem.meta)


def right_output(problem: Prompt, args: Sequence[object]) -> int | Numbers | None:
    """The right output for the arguments of a call.

    None where every right program raises, as the maximum of nothing does. Raises DataError for a
    problem without an oracle, and for arguments of which the problem says nothing: anything but one
    list of integers.
    """
    if not has_oracle(problem):
        raise DataError(
            f'problem {problem.id}: meta: has no oracle, for which "constants" of minipy are '
            "needed; make the problems anew (data.kind=minipy)"
        )
    if not is_input(args):
        raise DataError(f"problem {problem.id}: args: must be one list of integers ({args!r:.80})")
    is_branchy = meta_fields(problem.meta).get("level") == "branchy"
    spec = branchy.Spec.of(problem) if is_branchy else minipy.Spec.of(problem)
    try:
        return spec.solve(cast("Numbers", args[0]))
    except (ValueError, IndexError):  # of no numbers: the largest, the first
        return None


def is_input(args: Sequence[object]) -> bool:
    """Whether arguments are one list of integers, of which the problems of minipy speak.

    >>> is_input(([1, 2],)), is_input(([1.5],)), is_input(([True],)), is_input(([1], 2))
    (True, False, False, False)
    """
    if len(args) != 1 or not isinstance(args[0], list):
        return False
    return all(type(x) is int for x in cast("list[object]", args[0]))
