"""Mining of pairs, planned: which problems are at hand, and what is made from their programs."""

from __future__ import annotations

import sys

from actors.plan.problems import load_problems
from conf.commands.mine_pairs import MineArgs
from conf.errors import DataError, UserError
from conf.validate import ConfigError, build_config
from reward.pairs.rollout_sources import (
    RolloutCounts,
    RolloutFile,
    question_digest,
    run_directories,
)
from rl.base.json_text import parse_json
from rl.problems.prompts import load_prompts
from rl.run.directory import RunDirectory
from rl.types import Prompt

MUTANTS, SWAPS = 16, 8  # of one problem: docs/reward_model.md has what they are worth
_MAX_SHOWN = 5


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
    found: list[Prompt] = []
    for directory in directories:
        path = RunDirectory(directory).config
        try:
            cfg = build_config(parse_json(path.read_bytes()))
        except (ValueError, ConfigError) as error:
            raise UserError(
                f"{path}: is not the configuration of a run of this version ({error}); give "
                "problems=FILE, a canonical parquet with the tests"
            ) from error
        for part in load_problems(cfg.data, cfg.seed):
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
