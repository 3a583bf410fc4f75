"""Search for good values: `python launch/tune.py tune.trials=8 'policy.lr=interval(1e-5,1e-3)'`.

What is searched is written as Hydra writes ranges and choices; every trial is a run of
`launch/train.py`, as the jobs of a sweep are.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rl.base.early  # noqa: F401 - signals are heard from here on
from conf.commands.tune import TuneArgs
from conf.errors import UserError
from conf.schema import DEFAULT_NAME, key
from conf.validate import build
from launch.common.compose import compose_all
from launch.common.exits import guarded
from launch.common.help import help_of_schema
from launch.common.overrides import forced_overrides, override, parse
from launch.common.run_checks import check_run
from launch.sweeps.command import claimed_sweep, make_runner, seen_from
from launch.sweeps.search import check_ranges, edges, search
from launch.sweeps.sweep import Job, plan

_PREFIX = "tune."
TRAIN = Path(__file__).with_name("train.py")


@dataclass(frozen=True, kw_only=True)
class TuneKeys:
    """Search for good values with Optuna."""

    tune: TuneArgs = key("search")


def main(argv: Sequence[str]) -> int:
    """Run the search; the exit code."""
    if {"-h", "--help"} & set(argv):
        about = (__doc__ or "").strip()
        sys.stdout.write(help_of_schema(TuneKeys, about, shows_config=False))
        sys.stdout.write(
            "\nAll other overrides are those of launch/train.py; ranges are searched.\n"
            "dry_run=true checks the configurations and starts nothing.\n"
        )
        return 0
    return guarded(lambda: _main(argv))


def _main(argv: Sequence[str]) -> int:
    mine = [line for line in argv if line.startswith(_PREFIX)]
    given = {o.key_or_group.removeprefix(_PREFIX): o.value() for o in parse(mine)}
    args = build(TuneKeys, {"tune": given}).tune
    overrides = parse(forced_overrides([line for line in argv if line not in mine]))
    space = {o.key_or_group: o for o in overrides if o.is_sweep_override()}
    fixed = [cast("str", o.input_line) for o in overrides if not o.is_sweep_override()]
    if not space:
        raise UserError("nothing to search (give a range, e.g. 'policy.lr=interval(1e-5,1e-3)')")
    check_ranges(space)
    first = compose_all(edges(space, fixed), check_run)[0]
    if first.dry_run:
        sys.stdout.write(f"the configurations are good; {args.trials} runs would be made\n")
        return 0
    runner = make_runner(first, TRAIN)

    def trials(name: str) -> list[Job]:
        return plan([{}], [[]], seen_from(runner, [replace(first, name=name)]), "tune")

    named = "name" in space or first.name != DEFAULT_NAME
    with claimed_sweep(trials, first, named=named) as name:
        own = [override("name", name)] if name != first.name else []
        return search(args, space, [*fixed, *own], runner)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
