"""Steps of a run beside TRL's `GRPOTrainer`: same models, prompts, lengths, threads.

TRL runs in an environment of its own that this bench makes: its packages beside those of this
project, so that both use the same torch and transformers. A run without a reward model is given one
of its policy's size, whose scores mean nothing: here they cost what they cost.
"""

from __future__ import annotations

import json
import site
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from actors.cluster.session import session
from actors.groups.fleet import start_fleet
from actors.plan.checks.inputs import check_inputs
from conf.errors import EngineError, UserError
from conf.schema import Config
from launch.benches.steps.quickstart import Steps, fleet_spec
from launch.benches.timing import Timing, ratio, spread, timed
from rl.base.console import Console
from rl.types import Prompt

_PACKAGES = ("trl==1.16.0", "accelerate==1.14.0")
_SCRIPT = Path(__file__).with_name("trl_grpo.py")
_CORES = 2
Row = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """How the two sides take turns."""

    repeats: int
    steps: int  # of each turn; the first warms up
    rows: int  # completions that TRL computes at once, a part of a step


def measure_rivals(cfg: Config, directory: Path, turns: Turns) -> None:
    """Print what a step takes here and with TRL, in turns."""
    with TemporaryDirectory(prefix="rival-model-") as folder:
        cfg = with_reward_model(cfg, Path(folder))
        check_inputs(cfg)
        python = _environment(directory)
        with session(cfg.ray, "bench-rivals") as run:
            rows = run(_measure(cfg, python, turns))
    Console().table(f"step of {cfg.experiment} beside TRL's", rows)


def rows_at_once(cfg: Config, rows: int | None) -> int:
    """How many completions TRL computes at once: those of a step, unless `rows` are asked.

    Raises:
        UserError: where a step is not made of such parts.
    """
    step = cfg.algorithm.prompts_per_step * cfg.algorithm.group_size
    rows = step if rows is None else rows
    if step % rows:
        raise UserError(
            f"rows: {rows} does not divide the {step} completions of a step; give a divisor of it"
        )
    return rows


def with_reward_model(cfg: Config, directory: Path) -> Config:
    """The run with a reward model: its own, else the policy with a random score head."""
    if cfg.reward.model is not None:
        return cfg
    tokenizer = AutoTokenizer.from_pretrained(cfg.model.path)
    torch.manual_seed(cfg.seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        cfg.model.path, num_labels=1, dtype=torch.float32
    )
    model.config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    reward = replace(
        cfg.reward, kind="rm", model=str(directory), adapter="sequence_classifier", dtype="float32"
    )
    return replace(cfg, reward=reward)


def _environment(directory: Path) -> Path:
    """The Python of an environment with the rival's packages, made where it is missing."""
    python = directory / "bin" / "python"
    done = directory / "installed.json"
    if done.is_file() and json.loads(done.read_text()) == list(_PACKAGES):
        return python
    venv.create(directory, clear=True, with_pip=True)
    here = directory / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    (here / "project.pth").write_text("\n".join(site.getsitepackages()))
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--no-deps", *_PACKAGES], check=True
    )
    done.write_text(json.dumps(_PACKAGES))
    return python


async def _measure(cfg: Config, python: Path, turns: Turns) -> list[Row]:
    ours: list[Timing] = []
    theirs: list[Timing] = []
    first_s: list[float] = []
    async with start_fleet(cfg, fleet_spec(cfg), "bench-rivals") as fleet:
        steps = Steps(cfg, fleet)
        for _ in range(turns.repeats):
            ours += [(await timed(steps.run()))[1] for _ in range(turns.steps)][1:]
            lines = _run_trl(cfg, python, steps.problems, turns)
            theirs += [Timing(wall_s=x["wall_s"], cpu_s=x["cpu_s"]) for x in lines[1:]]
            first_s.append(lines[0]["first_s"])
    wall = [[t.wall_s for t in timings] for timings in (ours, theirs)]
    cpu = [[t.cpu_s for t in timings] for timings in (ours, theirs)]
    return [
        ("ours", spread(wall[0]), f"CPU {spread(cpu[0])}"),
        (_PACKAGES[0], spread(wall[1]), f"CPU {spread(cpu[1])}"),
        ("ratio", ratio(*wall), f"CPU {ratio(*cpu)}"),
        ("its first step", spread(first_s), "from its start"),
    ]


def _run_trl(
    cfg: Config, python: Path, prompts: Sequence[Prompt], turns: Turns
) -> list[dict[str, float]]:
    """Step times of one run of TRL."""
    with TemporaryDirectory(prefix="rival-") as folder:
        job = Path(folder) / "job.json"
        job.write_text(
            json.dumps(
                {
                    "policy": cfg.model.path,
                    "reward_model": cfg.reward.model,
                    "prompts": [
                        [{"role": m.role, "content": m.content} for m in prompt.messages]
                        for prompt in prompts
                    ],
                    "prompts_per_step": cfg.algorithm.prompts_per_step,
                    "group_size": cfg.algorithm.group_size,
                    "rows": turns.rows,
                    "max_completion_tokens": cfg.model.max_completion_tokens,
                    "temperature": cfg.rollout.temperature,
                    "lr": cfg.policy.lr,
                    "kl_coef": cfg.algorithm.kl_coef,
                    "steps": turns.steps,
                    "seed": cfg.seed,
                    "threads": _CORES,
                    "output": folder,
                }
            )
        )
        done = subprocess.run(
            [str(python), str(_SCRIPT), str(job)], check=False, capture_output=True, text=True
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"step"')]
    if done.returncode or len(lines) != turns.steps:
        raise EngineError(f"TRL ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return [json.loads(line) for line in lines]
