"""A tiny model that writes tests for minipy problems: the policy and the reward model cannot.

It has the size of both, so that selection by its tests and by the reward model can be compared. It
learns from training problems only, by the warm start that also makes the policy.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from actors.cluster.session import session
from actors.cluster.signals import run_until_stopped
from actors.stages.pipeline import Figures, StageCache
from actors.stages.training import warm_start
from conf.schema import Config
from reward.verify.generated_tests import request_for_test
from rl.base.console import Console
from rl.problems import minipy

_NUM_TESTS = 20_000
_STEPS = 500
_ROW_TOKENS = 320  # two requests with their answers


def make_tester(cfg: Config, console: Console) -> Path:
    """Train the tester of minipy, unless `loop.cache_dir` has it; returns its directory."""
    stages = StageCache(Path(cfg.loop.cache_dir), console)
    cfg = dataclasses.replace(
        cfg,
        policy=dataclasses.replace(cfg.policy, row_tokens=_ROW_TOKENS),
        loop=dataclasses.replace(cfg.loop, warm_steps=_STEPS),
    )
    settings = {
        "seed": cfg.seed,
        "num_tests": _NUM_TESTS,
        "steps": _STEPS,
        "batch": cfg.loop.warm_batch,
        "lr": cfg.loop.warm_lr,
    }

    async def build(directory: Path) -> Figures:
        answers = [
            (request_for_test(prompt).question, minipy.fenced(test))
            for prompt, test in minipy.warm_start_tests(_NUM_TESTS, cfg.seed)
        ]
        with session(cfg.ray, "minipy-tester"):
            return await warm_start(cfg, answers, directory, console)

    about = f"a model that writes tests, {_STEPS} supervised steps, once, ~4 min"
    stage = run_until_stopped(stages.run("minipy_tester", about, settings, [], build))
    return stage.directory
