"""Train again from the rollouts of a run: `python launch/replay.py run=DIR output=DIR`.

    python launch/replay.py run=outputs/quickstart/run output=outputs/replay
    python launch/replay.py run=RUN output=DIR "settings={policy.lr: 1e-4}"    # another loss, ...
    python launch/replay.py run=RUN output=DIR scores=scored.jsonl    # judged again by score.py
    python -m pdb launch/replay.py run=RUN output=DIR steps=1 in_process=true    # in a debugger

Only the policy ranks start: nothing is sampled, judged or evaluated. With the settings of the run
the weights are those of the run, bit for bit.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rl.base.early  # noqa: F401 - signals are heard from here on
from actors.plan.shipped import with_shipped_models
from conf.errors import UserError
from conf.schema import Config, key
from conf.validate import build_config
from launch.common.cli import main_simple
from reward.judges.answers import read_scores
from rl.base.outputs import check_output_dir
from rl.run.directory import RolloutFolder, RunDirectory
from rl.run.rollouts import RECIPES
from rl.run.start.changes import read_config
from rl.run.start.claim import held_of_run


@dataclass(frozen=True, kw_only=True)
class ReplayArgs:
    """What `launch/replay.py` takes."""

    run: str = key("run directory, with rollouts that hold tokens (checkpoint.rollout_tokens)")
    output: str = key("directory of the policy (hf/), the metrics and the configuration")
    steps: int | None = key(
        "steps from the first one on; null takes all that are saved", None, ge=1
    )
    scores: str | None = key(
        "JSON lines file that launch/score.py input=RUN has written, to learn from its scores and "
        "rewards; null takes those of the run",
        None,
    )
    settings: dict[str, Any] | None = key(
        "keys of the run that are changed, by their dotted names", None
    )
    in_process: bool = key("one rank in this process instead of the ranks of the run", False)


def run(args: ReplayArgs) -> None:
    """Check, then train again."""
    source, target = RunDirectory(Path(args.run)), RunDirectory(check_output_dir(args.output))
    if held := held_of_run(target.root):
        raise UserError(f"output: {target.root} holds {held}; give output=DIR that holds none")
    cfg = with_shipped_models(_config(args, source))
    num_steps = _num_steps(args, source, cfg)
    scores = None if args.scores is None else read_scores(Path(args.scores))
    from reward.model.files import check_policy  # noqa: PLC0415 - after the arguments are good

    check_policy(cfg.model.path, "run")
    from actors.stages.replay import Replay, replay  # noqa: PLC0415

    replay(
        Replay(
            cfg=cfg,
            run=source,
            target=target,
            num_steps=num_steps,
            scores=scores,
            in_process=args.in_process,
        )
    )


def _config(args: ReplayArgs, source: RunDirectory) -> Config:
    """The configuration of the run, with what is changed."""
    stored = read_config(source.config)
    if stored is None:
        raise UserError(f"run: {source.root} has no config.yaml that can be read; give run=DIR")
    raw: dict[str, Any] = {**stored}
    for path, value in (args.settings or {}).items():
        *sections, leaf = path.split(".")
        section = raw
        for name in sections:
            inner = section.get(name)
            section[name] = {**cast("Mapping[str, Any]", inner)} if isinstance(inner, dict) else {}
            section = section[name]
        section[leaf] = value
    cfg = build_config(raw)
    if cfg.recipe not in RECIPES:
        raise UserError(
            f"run: {source.root} has recipe={cfg.recipe}, which learns from more than rollout "
            f"files hold; only runs with recipe={' or '.join(RECIPES)} can be replayed"
        )
    if cfg.loop.enabled and "model.path" not in (args.settings or {}):
        raise UserError(
            f"run: {source.root} made its own policy (loop.enabled); name the directory of its "
            'warm start in loop.cache_dir: "settings={model.path: DIR}"'
        )
    ranks = 1 if args.in_process else cfg.policy.ranks
    return replace(
        cfg,
        policy=replace(cfg.policy, ranks=ranks),
        loop=replace(cfg.loop, enabled=False),
        resume="never",
    )


def _num_steps(args: ReplayArgs, source: RunDirectory, cfg: Config) -> int:
    """How many steps are trained again: the saved ones, without a gap."""
    files = source.rollout_files(RolloutFolder.TRAINING, cfg.algorithm.num_steps)
    saved = [int(file.stem.removeprefix("step-")) for file in files]
    num = args.steps or max(saved, default=0)
    missing = sorted({*range(1, max(num, 1) + 1)} - {*saved})
    if missing:
        raise UserError(
            f"run: {source.root} has no rollouts of step {missing[0]}; a replay needs every step "
            "from the first (checkpoint.rollouts_every=1): give another run, or fewer steps="
        )
    return num


if __name__ == "__main__":
    sys.exit(main_simple(ReplayArgs, run))
