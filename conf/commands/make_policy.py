"""The arguments of `launch/make_policy.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from conf.errors import UserError
from conf.schema import ProblemLevel, key

PolicyTask = Literal["code", "test", "trace", "suite", "verdict", "verdict_letter"]
TASKS: dict[ProblemLevel, tuple[PolicyTask, ...]] = {
    "flat": ("code", "test", "trace", "verdict", "verdict_letter"),
    "branchy": ("code", "suite"),
}


@dataclass(frozen=True, kw_only=True)
class MakePolicyArgs:
    """What `launch/make_policy.py` takes."""

    output: str = key("directory of the policy; there must be none yet")
    level: ProblemLevel = key("level of minipy that it learns", "flat")
    tasks: tuple[PolicyTask, ...] = key(
        "tasks that it learns, in equal parts: code, test, trace and verdict of the flat level (a "
        "verdict is a choice among programs, after a line, or at once: verdict_letter); code and "
        "suite, which are tests of a given program, of the branchy one",
        ("code", "test", "trace"),
    )
    num_answers: int = key("answers that it learns from", 60_000, ge=64)
    corrupted: float = key("share of programs with one injected bug", 0.5, ge=0, le=1)
    num_steps: int = key("optimizer steps", 1500, ge=1)
    batch: int = key("answers per optimizer step", 64, ge=1)
    lr: float = key("peak learning rate", 3e-3, gt=0, le=1)
    row_tokens: int = key("tokens of one packed row", 384, ge=16)
    seed: int = key("seed of everything random", 0, ge=0)


def check_tasks(args: MakePolicyArgs) -> None:
    """Refuse tasks that a level does not have.

    Raises:
        UserError: naming them.
    """
    known = TASKS[args.level]
    unknown = [task for task in args.tasks if task not in known]
    if unknown or not args.tasks:
        raise UserError(
            f"tasks={','.join(args.tasks)}: level={args.level} has {','.join(known)}; "
            f"give tasks={','.join(known)}, or some of them"
        )
