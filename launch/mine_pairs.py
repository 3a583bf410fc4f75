"""Rollouts -> preference pairs: `python launch/mine_pairs.py input=RUN_DIR output=DIR`.

Writes `train.parquet` and `validation.parquet` with the columns of CodeScalerPair-51K and where
each program comes from. docs/reward_model.md describes rules and files.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conf.errors import DataError, UserError
from conf.schema import SandboxConfig, key
from conf.validate import ConfigError, build_config
from launch.common.arguments import ProtocolArgs
from launch.common.cli import compose_config, main_simple
from launch.common.outputs import check_output_dir
from reward.pairs.mining import MiningConfig
from reward.pairs.near_miss import NearMissConfig
from reward.pairs.rollout_sources import (
    RolloutCounts,
    RolloutFile,
    count_rollouts,
    find_rollouts,
    question_digest,
    run_directories,
)
from rl.problems.prompts import load_prompts
from rl.types import Prompt

MUTANTS, SWAPS = 16, 8  # of one problem: docs/results/reward_model.md has what they are worth
_MAX_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class MineArgs(ProtocolArgs):
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


def run(args: MineArgs) -> None:
    """Mine the pairs."""
    output = check_output_dir(args.output)
    execution = args.execution(args.sandbox)
    files = find_rollouts(args.input)
    counts = count_rollouts(files)
    prompts = {prompt.id: prompt for prompt in known_problems(args, files, counts)}
    check_problems(counts, prompts)
    mutants, swaps = made_per_problem(args, with_tests=bool(prompts))
    said = f"{counts.num_rows} rollouts, {counts.num_codes} with a valid program"
    if counts.num_undecided:
        said += f", {counts.num_undecided} of these left out: the sandbox had failed"
    if counts.num_unjudged:
        said += f", {counts.num_unjudged} left out: they could not be judged"
    sys.stdout.write(said + "\n")
    cfg = replace(compose_config(["placement=laptop"]), sandbox=execution)
    from actors.jobs.mining import MineJob, mine  # noqa: PLC0415 - after the arguments are good

    job = MineJob(
        files=tuple(files),
        prompts=prompts,
        output=output,
        mining=MiningConfig(
            per_prompt=args.pairs_per_problem,
            seed=args.seed,
            near_miss=args.near_miss,
            rule=args.rule,
        ),
        near_miss=NearMissConfig(
            mutants_per_prompt=mutants,
            swaps_per_prompt=swaps,
            seed=args.seed,
        ),
        validation_share=args.validation_share,
        test_timeout_s=args.test_timeout_s,
    )
    mine(cfg, job, executes=bool(counts.unverified))


def known_problems(args: MineArgs, files: list[RolloutFile], counts: RolloutCounts) -> list[Prompt]:
    """The problems with their tests where programs are run; none where that is only a wish."""
    made = (args.mutants_per_problem, args.swaps_per_problem)
    if args.problems is not None or counts.unverified or any(made):
        return problems_of(args, files)
    if made == (0, 0):
        return []
    try:
        return problems_of(args, files)
    except UserError as error:
        sys.stdout.write(f"no mutants and swaps: {error}\n")
        return []


def made_per_problem(args: MineArgs, *, with_tests: bool) -> tuple[int, int]:
    """Mutants and swaps of one problem, at most."""
    mutants, swaps = (MUTANTS, SWAPS) if with_tests else (0, 0)
    return (
        mutants if args.mutants_per_problem is None else args.mutants_per_problem,
        swaps if args.swaps_per_problem is None else args.swaps_per_problem,
    )


def problems_of(args: MineArgs, files: list[RolloutFile]) -> list[Prompt]:
    """The problems with their tests: of the file, or of the runs that the rollouts come from."""
    if args.problems is not None:
        return load_prompts(args.problems)
    directories = run_directories(files)
    if not directories:
        raise UserError(
            "problems: programs have to be run (no verdict yet, or mutants and swaps), and their "
            "tests are not beside the rollouts; give problems=FILE, a canonical parquet of "
            "launch/prepare_data.py"
        )
    from actors.stages.rl_run import load_problems  # noqa: PLC0415 - heavy

    found: list[Prompt] = []
    for directory in directories:
        path = directory / "config.yaml"
        try:
            cfg = build_config(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, ConfigError) as error:
            raise UserError(
                f"{path}: is not the configuration of a run of this version ({error}); give "
                "problems=FILE, a canonical parquet with the tests"
            ) from error
        for part in load_problems(cfg):
            found += part
    return found


def check_problems(counts: RolloutCounts, prompts: dict[str, Prompt]) -> None:
    """Raise DataError where programs have no tests to run against, or another problem's."""
    faults: list[str] = []
    for prompt_id, (digest, _) in counts.problems.items():
        prompt = prompts.get(prompt_id)
        if prompt_id in counts.unverified and (prompt is None or prompt.tests is None):
            faults.append(f"problems:{prompt_id}:tests: none, and its rollouts have no verdict")
        elif prompt is not None and question_digest(prompt.question) != digest:
            faults.append(f"problems:{prompt_id}:prompt: is another text than in the rollouts")
    if faults:
        more = len(faults) - _MAX_SHOWN
        tail = [f"and {more} more problems"] if more > 0 else []
        raise DataError("\n".join([*faults[:_MAX_SHOWN], *tail]))


if __name__ == "__main__":
    sys.exit(main_simple(MineArgs, run))
