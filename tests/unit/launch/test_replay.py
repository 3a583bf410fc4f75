"""`launch/replay.py` refuses what cannot be trained again, before anything starts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from actors.stages import replay as stage
from actors.stages.replay import Replay
from conf.validate import to_dict
from launch import replay
from launch.common.cli import main_simple
from launch.replay import ReplayArgs
from rl.run.directory import RolloutFolder, RunDirectory
from rl.run.rollouts import rollout_rows, write_rollouts
from tests.settings import run_config
from tests.unit.rl.fakes import make_group, make_judged, make_prompts

pytestmark = pytest.mark.unit


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Replay]:
    """What would have been trained again."""
    started: list[Replay] = []
    monkeypatch.setattr(stage, "replay", started.append)
    monkeypatch.setattr(sys, "argv", ["replay.py"])
    return started


def make_run(root: Path, steps: tuple[int, ...], *overrides: str) -> Path:
    run = RunDirectory(root)
    root.mkdir(parents=True)
    run.config.write_text(json.dumps(to_dict(run_config(list(overrides)))))
    judged = make_judged(make_group(make_prompts(1)[0], 2), (0.0, 1.0))
    for step in steps:
        path = run.rollout_file(RolloutFolder.TRAINING, step)
        write_rollouts(path, list(rollout_rows(step, [judged], None)), [judged])
    return root


def given(run: Path, *more: str) -> int:
    return main_simple(ReplayArgs, replay.run, [f"run={run}", f"output={run.parent / 'o'}", *more])


def test_all_saved_steps_are_trained_again_with_the_settings_of_the_run(
    tmp_path: Path, jobs: list[Replay]
):
    run = make_run(tmp_path / "run", (1, 2, 3), "++policy.lr=3e-5", "++seed=7")
    assert given(run) == 0
    assert (jobs[0].num_steps, jobs[0].cfg.policy.lr, jobs[0].cfg.seed) == (3, 3e-5, 7)
    assert given(run, "steps=2", "settings={policy.lr: 1e-4, algorithm.kl_coef: 0.5}") == 0
    changed = jobs[1]
    assert (changed.num_steps, changed.cfg.policy.lr, changed.cfg.seed) == (2, 1e-4, 7)
    assert changed.cfg.algorithm.kl_coef == 0.5
    assert changed.cfg.policy.ranks == jobs[0].cfg.policy.ranks
    assert given(run, "in_process=true") == 0
    assert jobs[2].cfg.policy.ranks == 1


@pytest.mark.usefixtures("jobs")
@pytest.mark.parametrize(
    ("steps", "keys", "said"),
    [
        ((1, 3), (), "no rollouts of step 2"),
        ((), (), "no rollouts of step 1"),
        ((1,), ("steps=2",), "no rollouts of step 2"),
        ((1,), ("++recipe=cure",), "recipe=cure, which learns from more than rollout files hold"),
        ((1,), ("settings={policy.rate: 1}",), "policy.rate"),
        ((1,), ("settings={policy.lr: fast}",), "policy.lr"),
        ((1,), ("scores=nowhere.jsonl",), "nowhere.jsonl"),
    ],
)
def test_what_cannot_be_trained_again_is_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    steps: tuple[int, ...],
    keys: tuple[str, ...],
    said: str,
):
    of_run = [key for key in keys if key.startswith("++")]
    more = [key for key in keys if key not in of_run]
    assert given(make_run(tmp_path / "run", steps, *of_run), *more) == 2
    assert said in capsys.readouterr().err


def test_no_run_and_a_run_as_the_output_are_refused(
    tmp_path: Path, jobs: list[Replay], capsys: pytest.CaptureFixture[str]
):
    assert given(tmp_path) == 2
    assert "has no config.yaml" in capsys.readouterr().err
    run = make_run(tmp_path / "run", (1,))
    args: Any = [f"run={run}", f"output={run}"]
    assert main_simple(ReplayArgs, replay.run, args) == 2
    assert "1 step of an earlier run" in capsys.readouterr().err
    assert not jobs
