"""`--multirun`: plan the jobs, run them where there is room, show what they have found."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from conf.errors import UserError
from conf.schema import DEFAULT_NAME, Config
from launch.common.failures import EXIT_FAILURE
from launch.common.overrides import Lines
from launch.common.ray_job import OUTPUT_ROOT, job_runtime_env
from launch.sweeps.local_jobs import LocalJobs
from launch.sweeps.sweep import Job, Runner, Sweep, plan
from rl.base.console import Console
from rl.run.start.claim import Claim, claimed, held_of_run, how_to_resume

TREE = Path(__file__).resolve().parents[2]


def run_sweep(lines_J: Sequence[Lines], configs_J: Sequence[Config]) -> int:
    """Run checked jobs; the exit code is 1 when one fails or the sweep is interrupted."""
    runner = make_runner(configs_J[0], Path(sys.argv[0]))
    swept_J = [lines.swept for lines in lines_J]
    overrides_J = [lines.overrides for lines in lines_J]
    configs_J = seen_from(runner, configs_J)

    def jobs(name: str) -> list[Job]:
        return plan(swept_J, overrides_J, [replace(config, name=name) for config in configs_J])

    named = "name" in swept_J[0] or configs_J[0].name != DEFAULT_NAME
    with claimed_sweep(jobs, configs_J[0], named=named) as name:
        return _run(Sweep(runner, directory_of(jobs(name)[0])), jobs(name))


def _run(sweep: Sweep, jobs: Sequence[Job]) -> int:
    interrupted = False
    try:
        sweep.run(jobs)
    except KeyboardInterrupt:
        interrupted = True
    return conclude(sweep, interrupted=interrupted)


def claimed_sweep(
    jobs: Callable[[str], Sequence[Job]], config: Config, *, named: bool
) -> AbstractContextManager[str]:
    """The name that a sweep takes; `jobs` are those under a name, and `named` whether it is given.

    For the body nobody else runs jobs there.
    """
    claim = Claim(
        name=config.name,
        resume=config.resume,
        overwrite=config.overwrite,
        roots=lambda name: sorted({job.directory.parent for job in jobs(name)}),
        held=_held,
        check=lambda: None,  # every job has been checked
        named=named,
    )
    return claimed(claim, Console())


def _held(root: Path) -> str:
    """What earlier jobs have left below the directory of a sweep, in words."""
    count = sum(bool(held_of_run(path)) for path in root.iterdir() if path.is_dir())
    return f"{count} run{'s' * (count > 1)} of an earlier sweep" if count else ""


def seen_from(runner: Runner, configs_J: Sequence[Config]) -> list[Config]:
    """The configurations with output directories that the jobs and this command both know.

    A Ray job has a working directory of its own, from which a relative path leads elsewhere.
    """
    if isinstance(runner, LocalJobs):
        return list(configs_J)
    return [
        replace(config, output_dir=str(Path(config.output_dir).expanduser().resolve()))
        for config in configs_J
    ]


def conclude(sweep: Sweep, *, interrupted: bool) -> int:
    """Show the table, draw the curves, name what failed; the exit code."""
    sys.stdout.write(f"\n{sweep.finish()}\nsweep     {sweep.directory}\n")
    for line in sweep.failed:
        sys.stderr.write(f"error: {line}\n")
    if interrupted:
        again = how_to_resume(sweep.directory.name.rpartition("-")[0])
        sys.stderr.write(f"error: stopped; the same command with {again} goes on\n")
    return EXIT_FAILURE if sweep.failed or interrupted else 0


def directory_of(job: Job) -> Path:
    """Where the report on a sweep goes, from its first job."""
    return job.directory.parent


def make_runner(config: Config, script: Path) -> Runner:
    """Ray jobs where there is a cluster to join, processes of this machine where there is none.

    Raises:
        UserError: for a cluster whose files are not those of this machine.
    """
    address = config.ray.cluster
    if address is None:
        return LocalJobs(script.resolve())
    if "://" in address:
        raise UserError(
            f"ray.address: {address} is reached from outside, and a sweep has to see the run "
            "directories of its jobs (submit the sweep itself: ray job submit --working-dir . -- "
            "python launch/train.py --multirun ...)"
        )
    from actors.cluster.ray_jobs import RayJobs  # noqa: PLC0415 - loads Ray

    script_in_tree = script.resolve().relative_to(TREE)
    return RayJobs(address, str(script_in_tree), _runtime_env())


def _runtime_env() -> dict[str, object]:
    """The code of this command, and where relative outputs go."""
    runtime_env = dict(job_runtime_env() or {"working_dir": str(TREE)})
    if OUTPUT_ROOT in os.environ:
        env_vars = {OUTPUT_ROOT: os.environ[OUTPUT_ROOT]}
        runtime_env["env_vars"] = {**runtime_env.get("env_vars", {}), **env_vars}
    return runtime_env
