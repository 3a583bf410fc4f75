"""Raw data set -> canonical parquet: `python launch/prepare_data.py source=mbpp data.path=FILE`.

Writes `train.parquet` and `test.parquet` to `output` (default `data/SOURCE`).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conf.schema import key
from launch.cli import main_simple
from rl.console import Console
from rl.datasets import read_problems, split_by_id
from rl.prompts import write_prompts


@dataclass(frozen=True, kw_only=True)
class DataArgs:
    """Where the raw file lies."""

    path: str = key("the data set's own file (JSON lines)")
    max_bad_rows: int = key("malformed rows that are skipped before it stops", 0, ge=0)


@dataclass(frozen=True, kw_only=True)
class PrepareArgs:
    """What `launch/prepare_data.py` takes."""

    source: str = key("name of the data set: mbpp")
    data: DataArgs = key("the raw file")
    output: str | None = key("directory of the parquet files; null is data/SOURCE", None)
    eval_share: float = key("share of problems held out", 0.2, gt=0, le=0.9)


def run(args: PrepareArgs) -> None:
    """Convert one data set."""
    prompts = read_problems(args.source, Path(args.data.path), args.data.max_bad_rows)
    directory = Path(args.output or f"data/{args.source}")
    directory.mkdir(parents=True, exist_ok=True)
    train, test = split_by_id(prompts, args.eval_share)
    console = Console()
    for name, part in (("train", train), ("test", test)):
        write_prompts(directory / f"{name}.parquet", part)
        console.say(f"{len(part):>6} problems  {directory / name}.parquet")


if __name__ == "__main__":
    sys.exit(main_simple(PrepareArgs, run))
