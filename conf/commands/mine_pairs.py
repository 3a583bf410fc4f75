"""Arguments of `launch/mine_pairs.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from conf.schema import ProtocolConfig, SandboxConfig, key


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
    rule: Literal["all_pass", "acecoder"] = key(
        "all_pass: chosen passes every test, rejected fails any; acecoder: by shares of tests",
        "all_pass",
    )
    pairs_per_problem: int = key("mined pairs of one problem at most", 16, ge=1)
    near_miss: bool = key("every second pair takes the wrong program that is nearest", True)
    mutants_per_problem: int | None = key(
        "negatives made from a right program by one edit, executed; at most; null is 16 where the "
        "tests are at hand, else 0",
        None,
        ge=0,
    )
    swaps_per_problem: int | None = key(
        "negatives that solve another problem, executed; at most; null is 8 where the tests are at "
        "hand, else 0",
        None,
        ge=0,
    )
    validation_share: float = key("of the problems", 0.1, ge=0, le=1)
    seed: int = key("of everything random", 0, ge=0)
    test_timeout_s: float = key("wall clock of one test", 4.0, gt=0)
    sandbox: SandboxConfig = key("how programs are held")
