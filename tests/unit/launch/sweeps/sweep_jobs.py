"""Jobs of a sweep whose command is a few lines of Python instead of a run with engines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from launch.common.compose import compose_all
from launch.common.overrides import expand, forced_overrides
from launch.sweeps.sweep import Job, plan

# Writes what a run would: `seed=2` fails, `seed=9` runs until a signal comes.
SCRIPT = """
import json, pathlib, signal, sys, time
args = dict(line.lstrip("+").split("=", 1) for line in sys.argv[1:])
directory = pathlib.Path(args["output_dir"].strip("'"), "quickstart", args["name"].strip("'"))
with pathlib.Path(args["output_dir"].strip("'"), "calls").open("a") as calls:
    calls.write(f"start {args['seed']}\\n")
print("step 1", flush=True)
if args["seed"] == "2":
    print("error: EngineError: rollout-0 died", file=sys.stderr)
    sys.exit(1)
if args["seed"] == "9":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit((directory / "cleaned").touch() or 1))
    (directory / "ready").touch()
    time.sleep(60)
lr = float(args.get("policy.lr", 1e-4))
summary = {"base_pass@1": 0.5, "final_pass@1": 0.6 + 0.1 * int(args["seed"]) + lr,
           "bon8_pass@1": 0.9, "wall_s": 12.0}
(directory / "summary.json").write_text(json.dumps(summary))
lines = [{"step": step, "reward/mean": step / 10} for step in (1, 2)]
(directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\\n" for line in lines))
with pathlib.Path(args["output_dir"].strip("'"), "calls").open("a") as calls:
    calls.write(f"end {args['seed']}\\n")
"""


def script_in(directory: Path) -> Path:
    """The command of the jobs."""
    path = directory / "command.py"
    path.write_text(SCRIPT)
    return path


def jobs_of(directory: Path, *overrides: str) -> list[Job]:
    """The jobs that `--multirun` would plan."""
    given = forced_overrides([f"output_dir={directory}", *overrides])
    lines_J = list(expand(given, sweep=True))
    configs = compose_all(lines_J)
    return plan([line.swept for line in lines_J], [line.overrides for line in lines_J], configs)


def write_summary(directory: Path, final: float) -> None:
    """What a finished run leaves."""
    directory.mkdir(parents=True, exist_ok=True)
    figures = {"base_pass@1": 0.5, "final_pass@1": final, "bon8_pass@1": 0.9, "wall_s": 1.0}
    (directory / "summary.json").write_text(json.dumps(figures))


def started(directory: Path) -> Sequence[str]:
    """What the jobs have noted of their starts and ends, in order."""
    return (directory / "calls").read_text().splitlines()
