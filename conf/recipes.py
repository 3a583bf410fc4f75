"""Arguments of the recipes: what `recipe_args` may hold, by `recipe`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from conf.schema import key

TestReward = Literal["mean", "strict", "sign"]


@dataclass(frozen=True, kw_only=True)
class GrpoArgs:
    """Programs alone: nothing beside the run's own keys."""


@dataclass(frozen=True, kw_only=True)
class CureArgs:
    """Programs and tests by one policy (arXiv 2506.03136)."""

    num_tests: int = key("tests sampled for each problem", 8, ge=2)
    reward: TestReward = key(
        "size of a test's reward: mean share of the wrong programs, strict all or any of them "
        "(CURE's post stage), or sign, which has none",
        "mean",
    )
    unreadable: Literal["lowest", "zero"] = key(
        "reward of a test that cannot be read; zero is CURE's own rule", "lowest"
    )
    regularise_length: bool = key("whether short right tests are preferred", False)
    min_length_tokens: int = key("lower bound of the length that earns nothing", 1000, ge=1)
    max_length_tokens: int = key("upper bound of the length that earns nothing", 8000, ge=1)
    separate_updates: bool = key(
        "whether programs and tests are learned in optimizer steps of their own", False
    )


RecipeArgs = GrpoArgs | CureArgs
ARGS: dict[str, type[RecipeArgs]] = {"grpo": GrpoArgs, "cure": CureArgs}
