"""Raw data set -> canonical parquet: `python launch/prepare_data.py source=mbpp data.path=FILE`.

Writes `train.parquet` and `test.parquet` to `output` (default `data/SOURCE`). Nothing is written
when the raw data have faults. `docs/data.md` lists the sources.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rl.base.early  # noqa: F401 - signals are heard from here on
from conf.schema import key
from launch.common.cli import main_simple
from rl.base.console import Console
from rl.base.outputs import check_output_dir
from rl.problems.datasets import SOURCES, Selection, Tally, iter_problems, source_named
from rl.problems.datasets.convert import is_in_test_split
from rl.problems.prompts import PromptWriter


@dataclass(frozen=True, kw_only=True)
class DataArgs:
    """Where the raw data lie."""

    path: str | None = key("raw file, directory or hub id; null is the source's hub id", None)
    subset: str | None = key("subset (hub configuration); null is the source's own", None)
    split: str | None = key("split of a directory or hub id; null is the source's own", None)
    files: str | None = key("pattern of files inside a directory or hub repository", None)
    revision: str | None = key("commit of the hub repository; null is the pinned one", None)
    max_bad_rows: int = key("malformed rows that are skipped; one more ends the command", 0, ge=0)


@dataclass(frozen=True, kw_only=True)
class PrepareArgs:
    """What `launch/prepare_data.py` takes."""

    source: str = key(
        f"name of the data set: {', '.join(SOURCES)}; or package.module:SOURCE, one of your own"
    )
    data: DataArgs = key("raw data")
    output: str | None = key("directory of the parquet files; null is data/SOURCE", None)
    eval_share: float | None = key(
        "share of problems held out; null is 1 for benchmarks and 0.2 for others", None, ge=0, le=1
    )


def run(args: PrepareArgs) -> None:
    """Convert one data set."""
    source = source_named(args.source)
    directory = check_output_dir(args.output or f"data/{source.name}")
    selection = Selection(
        path=args.data.path,
        subset=args.data.subset,
        split=args.data.split,
        files=args.data.files,
        revision=args.data.revision,
    )
    share = args.eval_share
    if share is None:
        share = 1.0 if source.is_benchmark else 0.2
    tally = Tally()
    train = PromptWriter(directory / "train.parquet")
    test = PromptWriter(directory / "test.parquet")
    with train, test:
        for prompt in iter_problems(source, selection, args.data.max_bad_rows, tally):
            (test if is_in_test_split(prompt, share) else train).add(prompt)
    console = Console()
    for writer in (train, test):
        if not writer.num_rows:
            writer.path.unlink()  # an earlier one would repeat problems of the other file
            continue
        console.say(f"{writer.num_rows:>6} problems  {writer.path}")
    for why, num_rows in tally.skipped.items():
        console.say(f"{num_rows:>6} rows skipped: {why}")
    if tally.num_several:
        console.say(
            f"{tally.num_several:>6} problems say that several answers are right; they have no "
            "checker, and a right answer that is not the one of the tests counts as wrong"
        )
    if tally.num_bad_rows:
        console.say(f"{tally.num_bad_rows:>6} malformed rows skipped")


if __name__ == "__main__":
    sys.exit(main_simple(PrepareArgs, run))
