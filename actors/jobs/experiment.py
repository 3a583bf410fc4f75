"""One experiment: join Ray, make or take the models, run the RL, write the summary."""

from __future__ import annotations

import dataclasses
import shlex
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from actors.cluster.deadlines import LOST
from actors.cluster.session import session
from actors.cluster.signals import how_to_go_on
from actors.plan.checks.inputs import check_contents
from actors.stages.export import export_models
from actors.stages.pipeline import Stage, WholeLoop
from actors.stages.rl_run import RlResult, RlRun
from conf.errors import HackingError, IncompleteError, SaveError, StoppedError
from conf.schema import Config, RewardConfig
from reward.model.directory import read_object
from rl.base.best_effort import BestEffort
from rl.base.console import Console
from rl.base.files import replace_file
from rl.base.process import return_large_blocks
from rl.base.versions import installed_versions, tree_commit
from rl.metrics import about
from rl.report.live import LiveReport
from rl.report.model_card import policy_card
from rl.run.alarm import MIN_READINGS
from rl.run.directory import RolloutFolder, RunDirectory
from rl.run.start.claim import begin, how_to_resume, remove_staged
from rl.run.summary import RunSummary, Watch, write_summary

_CARD = "README.md"
_WHEN = "checkpoint.every, checkpoint.minutes"  # keys that say when one is written


def run_experiment(cfg: Config) -> None:
    """Run `cfg`, whose files have been checked, to its end in the directory that it has claimed."""
    return_large_blocks()
    console = Console()
    run = RunDirectory.of(cfg)
    namespace = f"{cfg.experiment}-{cfg.name}".replace("/", "-")
    try:
        # Nothing of an earlier run is touched before the contents are good too.
        with session(cfg.ray, namespace, partial(check_contents, cfg)) as run_in:
            begin(run, cfg)
            if found := ", ".join(map(str, remove_staged(run.root))):
                console.say(f"removed what a killed run was still writing: {found}")
            console.stage("run", str(run.root))
            run_in(_run(cfg, run, console))
    except (StoppedError, *LOST) as error:
        advice = how_to_go_on(run.checkpoints, _WHEN, how_to_resume(cfg.name))
        raise type(error)(f"{error}; {advice}") from error
    except SaveError as error:
        advice = how_to_go_on(run.checkpoints, _WHEN, how_to_resume(cfg.name))
        raise SaveError(f"{error}; make room: {advice}") from error


async def _run(cfg: Config, run: RunDirectory, console: Console) -> None:
    start_s = time.perf_counter()
    stages: dict[str, Stage] = {}
    if cfg.loop.enabled:
        policy, reward_model, stages = await WholeLoop(cfg, console).run()
        if cfg.loop.export_dir is not None:
            target = Path(cfg.loop.export_dir)
            export_models(policy, reward_model, target, cfg.reward, cfg.seed, console=console)
        cfg = dataclasses.replace(
            cfg,
            model=dataclasses.replace(cfg.model, path=str(policy)),
            reward=dataclasses.replace(cfg.reward, model=str(reward_model)),
        )
    rl_start_s = time.perf_counter()
    effort = BestEffort(console.warn)
    with LiveReport(run.root, cfg.report.every, effort) as report:
        result = await RlRun(cfg, run.root, console, effort, report).run()
        now_s = time.perf_counter()
        seconds = {name: stage.seconds for name, stage in stages.items()}
        seconds |= {"engines": result.start_s, "rl": now_s - rl_start_s - result.start_s}
        accuracy = reward_model_accuracy(cfg.reward, stages)
        summary = summarise(cfg, result, accuracy, now_s - start_s, seconds)
        with effort.trying(run.summary.name):
            write_summary(run.summary, summary)
        with effort.trying(f"{run.hf.name}/{_CARD}"):
            write_card(cfg, run.hf / _CARD, summary, result.num_problems)
    show_summary(console, summary, run)
    alarm = summary.watch.alarm
    if alarm is not None and alarm.stopped_at is not None:
        raise HackingError(
            f"the alarm ended the run after step {alarm.stopped_at} (alarm.action=stop): the "
            "reward climbed while the probe fell; the best policy before that is in "
            f"{alarm.best_policy}, and {how_to_resume(cfg.name)} goes on from the last"
        )
    if effort.missing:
        raise IncompleteError(
            f"the policy in {run.hf} is complete, but not what tells of the run: "
            f"{', '.join(effort.missing)} (the warnings above say why)"
        )


def write_card(cfg: Config, path: Path, summary: RunSummary, num_problems: int) -> None:
    """Write what the final policy was made of and what it can, beside it."""
    program, *overrides = sys.argv  # which Hydra sees with `++` before most keys
    tree = Path(__file__).resolve().parents[2]
    file = Path(program).resolve()
    name = str(file.relative_to(tree)) if file.is_relative_to(tree) else file.name
    card = policy_card(
        summary,
        base=cfg.model.path,
        num_problems=num_problems,
        command=shlex.join(["python", name, *(one.removeprefix("++") for one in overrides)]),
        commit=tree_commit(),
    )
    replace_file(path, card)


def summarise(
    cfg: Config,
    result: RlResult,
    rm_pair_accuracy: float | None,
    wall_s: float,
    stage_s: Mapping[str, float],
) -> RunSummary:
    """The final figures of a run."""
    reward = cfg.reward
    return RunSummary(
        recipe=cfg.recipe,
        labels=result.labels,
        reward=reward.kind,
        reward_execution=reward.execution if reward.by_tests or reward.kind == "hybrid" else None,
        reward_model=reward.model if reward.uses_model else None,
        num_samples=cfg.evaluation.num_samples,
        base=result.base,
        final=result.final,
        sets=result.sets,
        rm_pair_accuracy=rm_pair_accuracy,
        valid_rate_first=result.valid_rate_first,
        valid_rate_last=result.valid_rate_last,
        num_steps=result.num_steps,
        executed_for_reward=result.executed_for_reward,
        executed_for_evaluation=result.executed_for_evaluation,
        partition=result.partition,
        watch=result.watch,
        wall_s=wall_s,
        stage_s=stage_s,
        seed=cfg.seed,
        versions=installed_versions(),
    )


def reward_model_accuracy(reward: RewardConfig, stages: Mapping[str, Stage]) -> float | None:
    """Pairwise accuracy on held-out problems: just measured, or as the model's record states it."""
    if "reward_model" in stages:
        return stages["reward_model"].figures["rm_pair_accuracy"]
    if not reward.uses_model or reward.model is None:
        return None
    record = Path(reward.model) / "stage.json"
    if not record.is_file():
        return None
    figures = read_object(record).get("figures")
    found = figures.get("rm_pair_accuracy") if isinstance(figures, dict) else None
    return found if isinstance(found, float) else None


def show_summary(console: Console, summary: RunSummary, run: RunDirectory) -> None:
    """The table at the end, and where the files are."""
    n, base = summary.num_samples, summary.base
    chosen = f"chosen by {summary.chooser}"
    console.table(
        "held-out problems",
        [
            ("reward", summary.reward, _about_judges(summary)),
            ("before", _share(base.pass_at_1), "pass@1 of the initial policy"),
            ("after", _share(summary.final.pass_at_1), "pass@1 of the trained policy"),
            (f"best of {n}", _share(base.best_of), f"initial policy, {chosen}"),
            ("oracle", _share(base.oracle), f"initial policy, any of {n} passes"),
            *_marks(summary),
            *_sets(summary),
            (
                "RM accuracy",
                _share(summary.rm_pair_accuracy),
                "pairs of held-out problems ordered right",
            ),
            ("alarm", *_about_alarm(summary.watch)),
            (
                "executed",
                str(summary.executed_for_reward),
                "programs that were run to compute a reward",
            ),
            ("wall", f"{summary.wall_s:.0f} s", "all of it"),
        ],
    )
    console.say("")
    console.say(f"policy    {run.hf}")
    console.say(f"figures   {run.summary}, {run.metrics}")
    console.say(f"rollouts  {run.rollouts(RolloutFolder.TRAINING)}")
    console.say(f"report    {run.report}")


def _marks(summary: RunSummary) -> list[tuple[str, str, str]]:
    """Figures of the recipe, before and after."""
    before, after = summary.base.marks, summary.final.marks
    return [
        (
            name.removeprefix("eval/").replace("_", " "),
            f"{_share(before.get(name))} -> {_share(value)}",
            about(name).meaning,
        )
        for name, value in after.items()
    ]


def _sets(summary: RunSummary) -> list[tuple[str, str, str]]:
    """Further held-out problems, before and after."""
    return [
        (
            name,
            f"{_share(found.base.pass_at_1)} -> {_share(found.final.pass_at_1)}",
            f"pass@1 on {found.num_problems} problems of {name}",
        )
        for name, found in summary.sets.items()
    ]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _about_alarm(watch: Watch) -> tuple[str, str]:
    if watch.alarm is None or watch.probe is None:
        return "-", "no probe: nobody watched the reward model"
    num, share = watch.probe.num_probes, f"{watch.probe.time_share:.0%} of the time"
    cost = f"{num} probes, {share}"
    if watch.alarm.fired_at:
        return f"step {watch.alarm.fired_at[0]}", f"reward climbed, probe fell; {cost}"
    if num < MIN_READINGS:
        return "never", f"too few probes to judge ({num} of {MIN_READINGS}), {share}"
    return "never", f"the probe held; {cost}"


def _about_judges(summary: RunSummary) -> str:
    tests = f"tests, {summary.reward_execution}"
    about = {
        "rm": "a reward model; no tests",
        "execution": f"{tests}; no reward model",
        "hybrid": f"{tests}; a reward model where there are none",
        "sum": "several judges, weighed",
    }
    return about.get(summary.reward, "a judge of your own")
