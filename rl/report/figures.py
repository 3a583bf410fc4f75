"""The figures at the head of a report: what a run is, how it stands, what came out of it."""

from __future__ import annotations

from dataclasses import dataclass

from rl import metrics
from rl.report.curves import ends, values
from rl.report.record import RunRecord
from rl.run.summary import RunSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One figure in large type."""

    name: str
    value: str
    about: str
    kind: str = ""  # bad: it must not be overlooked


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How a run stands, and the class that colours it."""

    kind: str
    text: str


def status(record: RunRecord, *, live: bool) -> Status:
    """Running, finished, stopped by the alarm, or ended before its end."""
    of = record.config.get("algorithm", {}).get("num_steps", "?")
    if live:
        return Status(kind="live", text=f"running, step {record.last_step} of {of}")
    if record.summary is None:
        return Status(kind="warn", text=f"unfinished, step {record.last_step} of {of}")
    alarm = record.summary.watch.alarm
    if alarm is not None and alarm.stopped_at is not None:
        return Status(kind="bad", text=f"stopped by the alarm after step {alarm.stopped_at}")
    return Status(kind="good", text="finished")


def facts(record: RunRecord) -> list[tuple[str, str]]:
    """What was run: recipe, labels, model, judge, sizes, seed, digest of the configuration.

    Labels are known at the end of a run.
    """
    config = record.config
    if not {"algorithm", "reward", "model", "seed"} <= config.keys():
        return [("directory", str(record.directory))]
    algorithm, reward = config["algorithm"], config["reward"]
    judge = (
        reward["kind"] if reward.get("model") is None else f"{reward['kind']}, {reward['model']}"
    )
    size = f"{algorithm['prompts_per_step']} problems x {algorithm['group_size']}"
    labels = record.summary and record.summary.labels
    return [
        *([("recipe", str(config["recipe"]))] if "recipe" in config else []),
        *([("labels", labels)] if labels else []),
        ("model", str(config["model"]["path"])),
        ("reward", judge),
        ("step", size),
        ("seed", str(config["seed"])),
        ("configuration", record.digest),
    ]


def tiles(record: RunRecord) -> list[Tile]:
    """The figures that tell most; those that a run lacks are left out."""
    found: list[Tile] = []
    base, final = ends(record.summary)
    if base is not None and final is not None:
        about = f"pass@1 before {base:.3f}, {final - base:+.3f}"
        found.append(Tile(name="Held-out problems", value=f"{final:.3f}", about=about))
    for name, title in (
        ("probe/pass@1", "Probe, pass@1"),
        ("reward/mean", "Reward"),
        ("reward/valid_rate", "Valid code"),
        ("rm/exec_agreement", "RM against execution"),
    ):
        seen = values(record.metrics, name)
        if seen:
            (first_step, first), (_, last) = seen[0], seen[-1]
            about = f"{first:.3f} at step {first_step}"
            found.append(Tile(name=title, value=f"{last:.3f}", about=about))
    return [*found, *_alarm(record), _time(record)]


def _alarm(record: RunRecord) -> list[Tile]:
    probed = values(record.metrics, "alarm/fired")
    if not probed:
        return []
    fired = [step for step, value in probed if value]
    value, kind = (f"step {fired[0]}", "bad") if fired else ("silent", "")
    about = "reward climbed, probe fell" if fired else f"after {len(probed)} probes"
    return [Tile(name="Alarm", value=value, about=about, kind=kind)]


def _time(record: RunRecord) -> Tile:
    seconds = sum(line.get("time/step_s", 0.0) for line in record.metrics)
    wall_s = record.summary and record.summary.wall_s
    about = f"in steps: {duration(seconds)}" if record.summary else "all in steps"
    shown = duration(seconds if wall_s is None else wall_s)
    return Tile(name=f"{record.last_step} steps in", value=shown, about=about)


def duration(seconds: float) -> str:
    """A time for people.

    >>> duration(8.04), duration(259), duration(7322)
    ('8.0 s', '4 min 19 s', '2 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def final_table(summary: RunSummary | None) -> list[tuple[str, str, str]]:
    """The table that a run ends with: name, value, meaning; empty before."""
    if summary is None:
        return []
    n, base, final = summary.num_samples, summary.base, summary.final
    chosen = f"chosen by {summary.chooser}"
    passes = f"any of {n} passes"
    rows: list[tuple[str, float | None, str]] = [
        ("before", base.pass_at_1, "pass@1 of the initial policy"),
        ("after", final.pass_at_1, "pass@1 of the trained policy"),
        (f"best of {n}", base.best_of, f"initial policy, {chosen}"),
        (f"oracle of {n}", base.oracle, f"initial policy, {passes}"),
        (f"best of {n}, after", final.best_of, f"trained policy, {chosen}"),
        (f"oracle of {n}, after", final.oracle, f"trained policy, {passes}"),
        ("RM accuracy", summary.rm_pair_accuracy, "pairs of held-out problems ordered right"),
        ("valid, first step", summary.valid_rate_first, "completions with code to judge"),
        ("valid, last step", summary.valid_rate_last, "completions with code to judge"),
    ]
    counts: list[tuple[str, int | None, str]] = [
        ("executed", summary.executed_for_reward, "programs run to compute a reward"),
        ("executed, evaluation", summary.executed_for_evaluation, "programs run for pass@1"),
        ("executed, probe", summary.watch.num_executed, "programs run for the probe"),
    ]
    return [
        *((name, f"{value:.3f}", about) for name, value, about in rows if value is not None),
        *((name, f"{value:,}", about) for name, value, about in counts if value is not None),
        *_marks(summary),
    ]


def _marks(summary: RunSummary) -> list[tuple[str, str, str]]:
    """Figures of the recipe on the held-out problems, before and after."""
    before = summary.base.marks
    return [
        (
            name.removeprefix("eval/").replace("_", " "),
            f"{before[name]:.3f} -> {after:.3f}" if name in before else f"{after:.3f}",
            metrics.about(name).meaning,
        )
        for name, after in summary.final.marks.items()
    ]
