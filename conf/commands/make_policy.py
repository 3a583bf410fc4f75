"""The arguments of `launch/make_policy.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from conf.schema import key


@dataclass(frozen=True, kw_only=True)
class MakePolicyArgs:
    """What `launch/make_policy.py` takes."""

    output: str = key("directory of the policy; there must be none yet")
    tasks: tuple[Literal["code", "test", "trace", "verdict", "verdict_letter"], ...] = key(
        "tasks that it learns, in equal parts; a verdict is a choice among programs, after a line "
        "or at once",
        ("code", "test", "trace"),
    )
    num_answers: int = key("answers that it learns from", 60_000, ge=64)
    corrupted: float = key("share of programs with one injected bug", 0.5, ge=0, le=1)
    num_steps: int = key("optimizer steps", 1500, ge=1)
    batch: int = key("answers per optimizer step", 64, ge=1)
    lr: float = key("peak learning rate", 3e-3, gt=0)
    row_tokens: int = key("tokens of one packed row", 384, ge=16)
    seed: int = key("seed of everything random", 0, ge=0)
