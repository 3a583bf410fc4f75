"""Search for good values: `python launch/tune.py tune.trials=8 'policy.lr=interval(1e-5,1e-3)'`.

What is searched is written as Hydra writes ranges and choices; every trial is a run of
`launch/train.py`, as the jobs of a sweep are.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hydra.core.override_parser.types import IntervalSweep, Override

from conf.errors import UserError
from conf.schema import key
from conf.validate import build
from launch.common.cli import Lines, compose_all, forced_overrides, guarded, help_of_schema, parse
from launch.sweeps.command import conclude, directory_of, make_runner, seen_from
from launch.sweeps.sweep import Job, Runner, Sweep, describe, plan
from launch.train import check

if TYPE_CHECKING:
    import optuna

_PREFIX = "tune."
TRAIN = Path(__file__).with_name("train.py")


@dataclass(frozen=True, kw_only=True)
class TuneArgs:
    """How long the search is."""

    trials: int = key("number of runs", ge=1)
    parallel: int = key("runs that are chosen at once; on a cluster they run side by side", 1, ge=1)
    seed: int = key("seed of the search; the runs have `seed`", 0, ge=0)


@dataclass(frozen=True, kw_only=True)
class TuneKeys:
    """Search for good values with Optuna."""

    tune: TuneArgs = key("search")


def main(argv: Sequence[str]) -> int:
    """Run the search; the exit code."""
    if {"-h", "--help"} & set(argv):
        sys.stdout.write(help_of_schema(TuneKeys, (__doc__ or "").strip()))
        sys.stdout.write(
            "\nAll other overrides are those of launch/train.py; ranges are searched.\n"
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
    _check_ranges(space)
    first = compose_all(_edges(space, fixed), check)[0]
    if first.dry_run:
        sys.stdout.write(f"the configurations are good; {args.trials} runs would be made\n")
        return 0
    return search(args, space, fixed, make_runner(first, TRAIN))


def _check_ranges(space: Mapping[str, Override]) -> None:
    for name, override in space.items():
        value = override.value()
        if not isinstance(value, IntervalSweep):
            continue
        text = f"{name}={override.get_value_string()}"
        start, end = cast("float", value.start), cast("float", value.end)
        if not start < end:
            raise UserError(f"{text}: a range begins below its end (swap the two)")
        if "log" in value.tags and start <= 0:
            raise UserError(f"{text}: a logarithmic range begins above 0 (raise its begin)")


def search(
    args: TuneArgs, space: Mapping[str, Override], fixed: Sequence[str], runner: Runner
) -> int:
    """Ask Optuna for values, run them, tell it the held-out pass@1; the exit code.

    Without interruptions the values depend on `args` and on what the runs gave. So the same command
    with `resume=auto` asks for the same runs again, and skips those that have finished.
    """
    study = _study(args.seed)
    sweep: Sweep | None = None
    tried: dict[int, Job] = {}
    num_asked, interrupted = 0, False
    while num_asked < args.trials and not interrupted:
        count = min(args.parallel, args.trials - num_asked)
        trials = [study.ask(_distributions(space)) for _ in range(count)]
        num_asked += count
        jobs = [_job(trial, space, fixed, runner) for trial in trials]
        possible = [job for job in jobs if job is not None]
        tried |= {job.number: job for job in possible}
        finals: dict[int, float | None] = {}
        if possible:
            sweep = sweep or Sweep(runner, directory_of(possible[0]))
            try:
                outcomes = sweep.run(possible)
            except KeyboardInterrupt:
                interrupted = True
                continue
            done = [number for number, outcome in outcomes.items() if outcome.status == "done"]
            finals = {number: sweep.final(tried[number]) for number in done}
        for trial in trials:
            _tell(study, trial, finals.get(trial.number))
    if sweep is None:
        raise UserError("no combination that was asked for can run (narrow what is searched)")
    code = conclude(sweep, interrupted=interrupted)
    _show_best(study, tried)
    return code


def _study(seed: int) -> optuna.Study:
    try:
        import optuna  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UserError("Optuna is not installed (pip install -e '.[tune]')") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed)
    return optuna.create_study(direction="maximize", sampler=sampler)


def _tell(study: optuna.Study, trial: optuna.Trial, final: float | None) -> None:
    """A run without a figure is a failed trial, which the search does not learn from."""
    from optuna.trial import TrialState  # noqa: PLC0415

    study.tell(trial, final, state=TrialState.FAIL if final is None else None)


def _show_best(study: optuna.Study, tried: Mapping[int, Job]) -> None:
    done = [trial for trial in study.trials if trial.value is not None]
    if done:
        best = max(done, key=lambda trial: cast("float", trial.value))
        job = tried[best.number]
        sys.stdout.write(
            f"best      {describe(job.swept)}: pass@1 {best.value:.3f} ({job.directory})\n"
        )


def _distributions(space: Mapping[str, Override]) -> dict[str, Any]:
    """Optuna's form of what is searched; choices stay text, as the command line has them."""
    from optuna.distributions import (  # noqa: PLC0415
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    found: dict[str, Any] = {}
    for name, override in space.items():
        value = override.value()
        if not isinstance(value, IntervalSweep):
            found[name] = CategoricalDistribution(_choices(override))
            continue
        whole = isinstance(value.start, int) and isinstance(value.end, int)
        kind: Any = IntDistribution if whole else FloatDistribution
        found[name] = kind(value.start, value.end, log="log" in value.tags)
    return found


def _texts(params: Mapping[str, Any]) -> dict[str, str]:
    """Values as one writes them; numbers with 4 digits, which names of directories can hold."""
    return {
        name: f"{value:.4g}" if isinstance(value, float) else str(value)
        for name, value in params.items()
    }


def _job(
    trial: optuna.Trial, space: Mapping[str, Override], fixed: Sequence[str], runner: Runner
) -> Job | None:
    """The run of a trial; None for values that each are good and together are refused."""
    lines = _lines(_texts(trial.params), space, fixed)
    try:
        configs = seen_from(runner, compose_all([lines]))
    except UserError as error:
        sys.stdout.write(f"refused   {describe(lines.swept)}: {error}\n")
        return None
    return plan([lines.swept], [lines.overrides], configs, "tune", trial.number)[0]


def _lines(values: Mapping[str, str], space: Mapping[str, Override], fixed: Sequence[str]) -> Lines:
    chosen = [f"{space[name].get_key_element()}={value}" for name, value in values.items()]
    return Lines(dict(values), [*fixed, *chosen])


def _edges(space: Mapping[str, Override], fixed: Sequence[str]) -> list[Lines]:
    """Runs with each end of each range, and each choice, once: what can be refused beforehand."""
    ends = {name: _ends(override) for name, override in space.items()}
    usual = {name: values[0] for name, values in ends.items()}
    tried = [usual] + [
        usual | {name: value} for name, values in ends.items() for value in values[1:]
    ]
    return [_lines(values, space, fixed) for values in tried]


def _ends(override: Override) -> list[str]:
    value = override.value()
    if isinstance(value, IntervalSweep):
        return [str(value.start), str(value.end)]
    return _choices(override)


def _choices(override: Override) -> list[str]:
    """The values of a list or range, always in the same order: Optuna wants no other.

    Hydra shuffles anew each time that it is asked; the search goes by no order, so a shuffled one
    is put into the order of its texts.
    """
    values = list(override.sweep_string_iterator())
    return sorted(values) if getattr(override.value(), "shuffle", False) else values


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
