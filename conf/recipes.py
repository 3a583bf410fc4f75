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


@dataclass(frozen=True, kw_only=True)
class CodrlPlusArgs:
    """Programs, and what programs do, by one policy (CodeRL+, arXiv 2510.18471)."""

    trace_share: float = key("share of the groups of a step that are traces", 0.4, gt=0, le=0.9)
    group_size: int = key("answers to a trace", 8, ge=2)
    buffer_size: int = key("traces that are kept, the newest; 20000 in CodeRL+", 2000, ge=1)
    draw: Literal["uniform", "newest"] = key(
        "traces that are asked for: any of the buffer, or the newest, as its code really does",
        "uniform",
    )
    answers: Literal["seen", "shuffled"] = key(
        "right answer to a trace: what was seen, or that of another trace, which is a control",
        "seen",
    )


@dataclass(frozen=True, kw_only=True)
class AletheiaArgs:
    """Which of several programs is right, asked of the policy (Aletheia, arXiv 2601.12186)."""

    learn: Literal["grpo", "raft"] = key(
        "objective: grpo the run's policy gradient; raft the likelihood of right answers alone",
        "grpo",
    )
    reward: Literal["right", "distance"] = key(
        "reward of a choice: right 1 for the right program, else 0; distance 1, and by the rank of "
        "its pass rate down to -0.8, for which tests must give a rate (reward.execution=pass_rate)",
        "right",
    )
    answer: Literal["steps", "letter"] = key(
        "form of an answer: a few short lines and then the letter, or the letter alone", "steps"
    )
    programs: str | None = key(
        "rollout file of an earlier run whose programs are asked about; null samples and runs "
        "them in the same step",
        None,
    )
    num_programs: tuple[int, ...] = key(
        "lengths of lists, drawn evenly; a list is shorter where there are not as many wrong "
        "programs",
        (2, 3, 4, 5),
        ge=2,
        le=26,
    )
    num_lists: int = key("lists of each problem", 1, ge=1)
    group_size: int = key("answers to a list; 16 in Aletheia", 8, ge=2)


RecipeArgs = GrpoArgs | CureArgs | CodrlPlusArgs | AletheiaArgs
ARGS: dict[str, type[RecipeArgs]] = {
    "grpo": GrpoArgs,
    "cure": CureArgs,
    "codrlplus": CodrlPlusArgs,
    "aletheia": AletheiaArgs,
}
