"""Levels of minipy: what `data.level` chooses."""

from __future__ import annotations

from conf.schema import ProblemLevel
from rl.problems import branchy, minipy
from rl.problems.minipy import Split
from rl.types import Prompt


def make_prompts(level: ProblemLevel, split: Split, num: int, seed: int) -> list[Prompt]:
    """Draw `num` problems of a split of a level as prompts with functional tests."""
    make = branchy.make_prompts if level == "branchy" else minipy.make_prompts
    return make(split, num, seed)
