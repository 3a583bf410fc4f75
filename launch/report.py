"""The report of a run, one offline page: `python launch/report.py run=DIR [output=FILE]`.

Curves, where the time went, and every kept completion to browse. A run writes the same page itself
while it goes on; use this command for a run that has already ended or was killed. docs/report.md.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rl.base.early  # noqa: F401 - signals are heard from here on
from conf.schema import key
from launch.common.cli import main_simple
from rl.base.outputs import check_output
from rl.report.record import read_record


@dataclass(frozen=True, kw_only=True)
class ReportArgs:
    """What `launch/report.py` takes."""

    run: str = key("run directory, with its metrics.jsonl")
    output: str | None = key("page to write; null is RUN/report.html", None)


def run(args: ReportArgs) -> None:
    """Write the page and say where it is."""
    directory = Path(args.run)
    read_record(directory)  # before anything heavy is loaded
    if args.output is not None:
        check_output(args.output, "FILE")
    from rl.report.page import Report  # noqa: PLC0415 - after the arguments are good

    page = Report(directory).write(None if args.output is None else Path(args.output))
    sys.stdout.write(f"{page}\n")


if __name__ == "__main__":
    sys.exit(main_simple(ReportArgs, run))
