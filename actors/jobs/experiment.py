"""One experiment: join Ray, make or take the models, run the RL, write the summary."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actors.cluster.session import session
from actors.cluster.signals import how_to_go_on
from actors.stages.export import export_models
from actors.stages.pipeline import Stage, WholeLoop
from actors.stages.rl_run import RlResult, RlRun
from conf.errors import HackingError, StoppedError
from conf.schema import Config
from conf.validate import to_dict
from rl.base.console import Console
from rl.base.versions import installed_versions
from rl.report.live import LiveReport


def run_experiment(cfg: Config) -> None:
    """Run `cfg` to its end in `output_dir/experiment/name`."""
    console = Console()
    directory = Path(cfg.output_dir) / cfg.experiment / cfg.name
    _prepare_directory(cfg, directory)
    console.stage("run", str(directory))
    try:
        with session(cfg, f"{cfg.experiment}-{cfg.name}".replace("/", "-")) as run:
            run(_run(cfg, directory, console))
    except StoppedError as error:
        advice = how_to_go_on(directory / "checkpoints", "checkpoint.every")
        raise StoppedError(f"{error}; {advice}") from error


def _prepare_directory(cfg: Config, directory: Path) -> None:
    if cfg.resume == "never":  # what an earlier run of this name left would mix with this one
        for name in ("metrics.jsonl", "probe.jsonl", "timeline.json"):
            (directory / name).unlink(missing_ok=True)
        for name in ("checkpoints", "rollouts", "evaluation", "probe", "best", "trackers"):
            shutil.rmtree(directory / name, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("summary.json", "report.html"):  # made at the end of a run, and this one begins
        (directory / name).unlink(missing_ok=True)
    text = json.dumps(to_dict(cfg), indent=2)
    (directory / "config.yaml").write_text(text + "\n", encoding="utf-8")


async def _run(cfg: Config, directory: Path, console: Console) -> None:
    start_s = time.perf_counter()
    stages: dict[str, Stage] = {}
    if cfg.loop.enabled:
        policy, reward_model, stages = await WholeLoop(cfg, console).run()
        if cfg.loop.export_dir is not None:
            export_models(cfg, policy, reward_model, Path(cfg.loop.export_dir))
        cfg = dataclasses.replace(
            cfg,
            model=dataclasses.replace(cfg.model, path=str(policy)),
            reward=dataclasses.replace(cfg.reward, model=str(reward_model)),
        )
    rl_start_s = time.perf_counter()
    with LiveReport(directory, cfg.report.every, console.warn) as report:
        result = await RlRun(cfg, directory, console, report).run()
        rl_s = time.perf_counter() - rl_start_s - result.start_s
        stage_s = {name: stage.seconds for name, stage in stages.items()}
        stage_s |= {"engines": result.start_s, "rl": rl_s}
        summary = summarise(cfg, result, stages) | {
            "wall_s": time.perf_counter() - start_s,
            "stage_s": stage_s,
            "seed": cfg.seed,
            "versions": installed_versions(),
        }
        path = directory / "summary.json"
        path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    show_summary(console, summary, directory)
    stopped_at = result.probe["alarm"] and result.probe["alarm"]["stopped_at"]
    if stopped_at is not None:
        raise HackingError(
            f"the alarm ended the run after step {stopped_at} (alarm.action=stop): the reward "
            "climbed while the probe fell; the best policy before that is in "
            f"{result.probe['alarm']['best_policy']}, and resume=auto goes on from the last"
        )


def summarise(cfg: Config, result: RlResult, stages: Mapping[str, Stage]) -> dict[str, Any]:
    """The final figures of a run."""
    n, reward = cfg.evaluation.num_samples, cfg.reward
    return {
        "reward": reward.kind,
        "reward_execution": None if reward.kind == "rm" else reward.execution,
        "reward_model": reward.model if reward.uses_model else None,
        "base_pass@1": result.base.pass_at_1,
        "final_pass@1": result.final.pass_at_1,
        f"bon{n}_pass@1": result.base.best_of,
        f"oracle_pass@{n}": result.base.pass_at(n),
        f"final_bon{n}_pass@1": result.final.best_of,
        f"final_oracle_pass@{n}": result.final.pass_at(n),
        "rm_pair_accuracy": reward_model_accuracy(cfg, stages),
        "valid_rate_first": result.valid_rate_first,
        "valid_rate_last": result.valid_rate_last,
        "steps": result.num_steps,
        "programs_executed_for_reward": result.executed_for_reward,
        "programs_executed_for_evaluation": result.executed_for_evaluation,
        "zero3_partition": result.partition,
        **result.probe,
    }


def reward_model_accuracy(cfg: Config, stages: Mapping[str, Stage]) -> float | None:
    """Pairwise accuracy on held-out problems: just measured, or as the model's record states it."""
    if "reward_model" in stages:
        return stages["reward_model"].figures["rm_pair_accuracy"]
    if not cfg.reward.uses_model or cfg.reward.model is None:
        return None
    record = Path(cfg.reward.model) / "stage.json"
    if not record.is_file():
        return None
    return json.loads(record.read_text(encoding="utf-8"))["figures"]["rm_pair_accuracy"]


def show_summary(console: Console, summary: Mapping[str, Any], directory: Path) -> None:
    """The table at the end, and where the files are."""
    n = next(key for key in summary if key.startswith("oracle")).removeprefix("oracle_pass@")

    def share(key: str) -> str:
        return "-" if summary[key] is None else f"{summary[key]:.3f}"

    console.table(
        "held-out problems",
        [
            ("reward", summary["reward"], _about_judges(summary)),
            ("before", share("base_pass@1"), "pass@1 of the initial policy"),
            ("after", share("final_pass@1"), "pass@1 of the trained policy"),
            (
                f"best of {n}",
                share(f"bon{n}_pass@1"),
                f"initial policy, chosen by {'the RM' if summary['reward'] == 'rm' else 'tests'}",
            ),
            ("oracle", share(f"oracle_pass@{n}"), f"initial policy, any of {n} passes"),
            ("RM accuracy", share("rm_pair_accuracy"), "pairs of held-out problems ordered right"),
            ("alarm", *_about_alarm(summary)),
            (
                "executed",
                str(summary["programs_executed_for_reward"]),
                "programs that were run to compute a reward",
            ),
            ("wall", f"{summary['wall_s']:.0f} s", "all of it"),
        ],
    )
    console.say("")
    console.say(f"policy    {directory / 'hf'}")
    console.say(f"figures   {directory / 'summary.json'}, {directory / 'metrics.jsonl'}")
    console.say(f"rollouts  {directory / 'rollouts'}")
    console.say(f"report    {directory / 'report.html'}")


def _about_alarm(summary: Mapping[str, Any]) -> tuple[str, str]:
    if summary["alarm"] is None:
        return "-", "no probe: nobody watched the reward model"
    probe, fired_at = summary["probe"], summary["alarm"]["fired_at"]
    cost = f"{probe['num_probes']} probes, {probe['time_share']:.0%} of the time"
    if fired_at:
        return f"step {fired_at[0]}", f"reward climbed, probe fell; {cost}"
    return "never", f"the probe held; {cost}"


def _about_judges(summary: Mapping[str, Any]) -> str:
    tests = f"tests, {summary['reward_execution']}"
    about = {
        "rm": "a reward model; no tests",
        "execution": f"{tests}; no reward model",
        "hybrid": f"{tests}; a reward model where there are none",
    }
    return about.get(summary["reward"], "a judge of your own")
