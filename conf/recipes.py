"""Arguments of the recipes: what `recipe_args` may hold, by `recipe`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

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
    regularise_length: bool = key(
        "whether short programs and tests are preferred among those above the mean of their group",
        False,
    )
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
    ask: Literal["output", "variables"] = key(
        "what a trace asks for: the output, or with it the final values of up to three variables, "
        "as CodeRL+ does",
        "output",
    )
    answers: Literal["seen", "shuffled"] = key(
        "right answer to a trace: what was seen, or that of another trace, which is a control",
        "seen",
    )


@dataclass(frozen=True, kw_only=True)
class SftArgs:
    """Given answers, imitated; nothing is sampled."""

    data: str = key("file of prompts and answers: JSON lines or parquet (docs/recipes.md)")
    batch: int = key("answers of a step", 64, ge=1)


@dataclass(frozen=True, kw_only=True)
class DpoArgs:
    """Given pairs of answers, the better one preferred (arXiv 2305.18290); nothing is sampled."""

    data: str = key("file of prompts and pairs of answers: JSON lines or parquet")
    batch: int = key("pairs of a step", 32, ge=1)
    beta: float = key("weight of the log-ratio to the initial policy", 0.1, gt=0)


@dataclass(frozen=True, kw_only=True)
class SolVerArgs:
    """Programs and tests by one policy that judge each other (Sol-Ver, arXiv 2502.14948).

    Its counts, threshold and beta are not published.
    """

    num_tests: int = key("tests of a group; not published; ours is 8", 8, ge=2)
    tests_see: Literal["program", "problem"] = key(
        "what a test is written from: a program beside the problem, as in Sol-Ver, or the problem",
        "program",
    )
    num_programs: int = key(
        "different programs of a problem that a group of tests is asked for each; not published; "
        "ours is 4",
        4,
        ge=1,
    )
    accept: float = key(
        "least share of the tests that an accepted program passes; not published; ours is 0.5",
        0.5,
        gt=0,
        le=1,
    )
    filter: Literal["self", "none", "gold"] = key(
        "how answers are accepted: self by what programs and tests say of each other; none the "
        "first that can be run or read, gold by the problem's own tests, which are controls and "
        "do not read accept",
        "self",
    )
    learn: Literal["both", "sft", "dpo"] = key(
        "what is done with accepted and rejected answers: imitation, preference, or both", "both"
    )
    beta: float = key(
        "weight of the log-ratio to the policy that began the DPO; not published; ours is 0.1",
        0.1,
        gt=0,
    )


@dataclass(frozen=True, kw_only=True)
class CrpeArgs:
    """The first wrong step of a program, and Step-DPO (CRPE's third stage, arXiv 2505.10594).

    What CRPE chooses is not published.
    """

    learn: Literal["step", "answer", "sft"] = key(
        "what is learned of a problem whose first wrong step is found: step prefers the right step "
        "at that place, answer the whole right answer, sft imitates that answer; the last two are "
        "controls with as many problems",
        "step",
    )
    step_end: str = key(
        "regular expression; a step of an answer ends where a match does; not published; ours is "
        "the end of a line",
        r"(?=\n)",
    )
    num_rollouts: int = key(
        "answers from each beginning of a wrong one; not published; ours is 4", 4, ge=1
    )
    max_prefixes: int = key(
        "beginnings of a wrong answer that are looked at; not published; ours is 16", 16, ge=1
    )
    beta: float = key(
        "weight of the log-ratio to the initial policy; not published; ours is 0.1", 0.1, gt=0
    )


@dataclass(frozen=True, kw_only=True)
class StepCoderArgs:
    """Programs begun by known solutions, and a loss on what runs (StepCoder, arXiv 2402.01391)."""

    learn: Literal["rl", "sft"] = key(
        "what is learned after a given start: rl the sampled programs by their rewards; sft the "
        "rest of the known solution, which is a control and reads neither mask nor rewards",
        "rl",
    )
    curriculum: Literal["reverse", "fixed", "none"] = key(
        "given start of a program: reverse begins at the last conditional statement of a known "
        "solution and moves to the first and then to none, fixed stays at the last; or none",
        "reverse",
    )
    threshold: float = key(
        "moving average of the share of right programs at which a start moves; not "
        "published; ours is 0.5",
        0.5,
        gt=0,
        le=1,
    )
    newest_weight: float = key(
        "weight of the newest share in that moving average; not published; ours is 0.5",
        0.5,
        gt=0,
        le=1,
    )
    mask: Literal["executed", "none", "random", "inverted"] = key(
        "tokens of a program that carry the loss: those of executed statements, all, all but as "
        "many at random, or those that are not executed; the last two are controls",
        "executed",
    )
    most_hidden: float = key(
        "largest share of an answer's tokens that may be without loss for not being executed; an "
        "answer above it keeps all; not in StepCoder; ours is 0.5",
        0.5,
        ge=0,
        le=1,
    )
    rewards: Literal["paper", "judge"] = key(
        "rewards of programs: paper 1, -0.3 wrong, -0.6 not run to an answer and -1 no program; "
        "or those of the judge",
        "paper",
    )


@dataclass(frozen=True, kw_only=True)
class CvedrlArgs:
    """Tests of given programs (CVeDRL, arXiv 2601.22803)."""

    num_tests: int = key("tests of an answer that are read, the first", 4, ge=1)
    reward: Literal["agreement", "coverage", "difficulty"] = key(
        "reward of a suite: agreement with the program alone; coverage of its branches too; "
        "difficulty of the program too, as published",
        "difficulty",
    )
    exponent: float = key(
        "growth of the reward with coverage; not published; ours is 3", 3.0, gt=0, le=20
    )
    killed_weight: float = key(
        "reward of noticing every mutant of the program, beside the others; not of CVeDRL",
        0.0,
        ge=0,
    )


@dataclass(frozen=True, kw_only=True)
class AletheiaArgs:
    """Which of several programs is right, asked of the policy (Aletheia, arXiv 2601.12186)."""

    learn: Literal["grpo", "raft", "dpo"] = key(
        "objective: grpo the run's policy gradient; raft the likelihood of right answers alone; "
        "dpo right answers preferred to wrong ones of the same list",
        "grpo",
    )
    beta: float = key("weight of dpo's log-ratio to the initial policy", 0.1, gt=0)
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


@dataclass(frozen=True, kw_only=True)
class ActorCriticArgs:
    """Programs compared with what a critic expected (Gorinski et al., arXiv 2310.13669).

    None of its numbers is published.
    """

    critic: Literal["online", "frozen", "none"] = key(
        "what a reward is compared with first: a critic of the problem that learns all the time, "
        "one that stops after frozen_after steps, or nothing",
        "online",
    )
    frozen_after: int = key(
        "steps that a frozen critic learns from; not published; ours is 10", 10, ge=1
    )
    critic_units: int = key("hidden units of the critic; not published; ours is 16", 16, ge=1)
    critic_lr: float = key("learning rate of the critic; not published; ours is 3e-3", 3e-3, gt=0)
    critic_passes: int = key(
        "updates of the critic on the rewards of each step; not published; ours is 8", 8, ge=1
    )
    replay: Literal["none", "all", "distinct"] = key(
        "programs of earlier steps that are learned again: none, all, or of each problem those "
        "whose syntax trees differ beyond names of variables",
        "distinct",
    )
    replay_share: float = key(
        "share of the programs of a step that are replayed; not published; ours is 0.5",
        0.5,
        gt=0,
        le=0.9,
    )
    buffer_size: int = key(
        "programs that are kept, the newest; not published; ours is 512", 512, ge=1
    )


RecipeArgs = (
    GrpoArgs
    | CureArgs
    | CodrlPlusArgs
    | SftArgs
    | DpoArgs
    | SolVerArgs
    | CrpeArgs
    | StepCoderArgs
    | CvedrlArgs
    | AletheiaArgs
    | ActorCriticArgs
)
ARGS: dict[str, type[RecipeArgs]] = {
    "grpo": GrpoArgs,
    "cure": CureArgs,
    "codrlplus": CodrlPlusArgs,
    "sft": SftArgs,
    "dpo": DpoArgs,
    "sol_ver": SolVerArgs,
    "crpe": CrpeArgs,
    "stepcoder": StepCoderArgs,
    "cvedrl": CvedrlArgs,
    "aletheia": AletheiaArgs,
    "actor_critic": ActorCriticArgs,
}
OFFLINE: dict[str, Literal["answers", "pairs"]] = {"sft": "answers", "dpo": "pairs"}  # of `data`
UNWEIGHED = (*OFFLINE, "sol_ver", "crpe")  # learn from answers that they choose, not from rewards
RUNS_NOTHING = ("grpo", "actor_critic", *OFFLINE)  # beside what the judge runs
_UNWEIGHED_WHERE = {"aletheia": ("raft", "dpo"), "stepcoder": ("sft",)}  # by `learn`


def is_unweighed(recipe: str, args: Mapping[str, Any] | None) -> bool:
    """Whether the recipe learns from answers that it chooses, whatever their rewards.

    >>> is_unweighed("aletheia", {"learn": "raft"}), is_unweighed("aletheia", None)
    (True, False)
    """
    learn = (args or {}).get("learn")
    return recipe in UNWEIGHED or learn in _UNWEIGHED_WHERE.get(recipe, ())


def is_anchored(recipe: str, args: Mapping[str, Any] | None) -> bool:
    """Whether the ranks hold the initial policy too.

    >>> is_anchored("aletheia", {"learn": "dpo"}), is_anchored("aletheia", None)
    (True, False)
    """
    learn = (args or {}).get("learn")
    if recipe == "crpe":
        return learn != "sft"
    return recipe == "dpo" or (recipe == "aletheia" and learn == "dpo")
