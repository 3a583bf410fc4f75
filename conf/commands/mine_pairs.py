"""Arguments of `launch/mine_pairs.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from conf.schema import ProtocolConfig, SandboxConfig, key

PairRule = Literal["all_pass", "acecoder"]


@dataclass(frozen=True, kw_only=True)
class MineArgs(ProtocolConfig):
    """What `launch/mine_pairs.py` takes."""

    input: tuple[str, ...] = key(
        "run directories, rollout parquet files, *.samples.jsonl of launch/evaluate.py, or patterns"
    )
    output: str = key("directory of train.parquet, validation.parquet and mining.json")
    problems: str | None = key(
        "canonical parquet with the tests; null takes the problems of the runs. Needed where "
        "programs are run: those without a verdict, mutants and swaps",
        None,
    )
    rule: PairRule = key(
        "rule for pairs: all_pass wants a program that passes every test and one that fails "
        "any; acecoder goes by shares of tests",
        "all_pass",
    )
    pairs_per_problem: int = key("mined pairs of one problem, at most", 16, ge=1)
    near_miss: bool = key("whether every second pair takes the nearest wrong program", True)
    mutants_per_problem: int | None = key(
        "negatives made from a right program by one edit and executed, at most; null is 16 "
        "where the tests are at hand, else 0",
        None,
        ge=0,
    )
    swaps_per_problem: int | None = key(
        "negatives that solve another problem and are executed, at most; null is 8 where the "
        "tests are at hand, else 0",
        None,
        ge=0,
    )
    validation_share: float = key("share of the problems held out for validation", 0.1, ge=0, le=1)
    seed: int = key("seed of everything random", 0, ge=0)
    test_timeout_s: float = key("wall clock of one test, seconds", 4.0, gt=0)
    sandbox: SandboxConfig = key("sandbox that holds programs")
