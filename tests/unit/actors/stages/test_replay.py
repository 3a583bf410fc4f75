"""A replay teaches what the run has taught, or what other scores say of the same completions."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from actors.stages import replay as stage
from actors.stages.replay import Replay, replay
from conf.errors import DataError
from conf.schema import Config
from reward.judges.answers import read_scores
from rl.parcels import Minibatch
from rl.run.directory import RolloutFolder, RunDirectory
from rl.run.rollouts import rollout_rows, write_rollouts
from rl.types import Finish, UpdateReport
from tests.settings import run_config
from tests.unit.rl.fakes import FakeFleet, make_group, make_judged, make_prompts

pytestmark = pytest.mark.unit

REWARDS = ((0.0, 1.0), (2.0, 0.5))


class Learned:
    """Remembers the advantages of each update."""

    def __init__(self) -> None:
        self.fleet = FakeFleet()
        self.packing = self.fleet.policy.packing
        self.advantages: list[list[float]] = []

    async def outputs(self, minibatch: Minibatch) -> Any:
        return await self.fleet.policy.outputs(minibatch)

    async def update(self, minibatch: Minibatch, *_: Any) -> UpdateReport:
        seen = {
            int(sample): round(float(advantage), 4)
            for of_rank in minibatch.microbatches_by_rank
            for one in of_rank
            for sample, advantage in zip(one.sample_index_M, one.advantages_M, strict=True)
        }
        self.advantages.append([seen[sample] for sample in sorted(seen)])
        return UpdateReport(metrics={"policy/loss": 0.0, "policy/grad_norm": 1.0}, lr=0.1)

    async def publish(self, policy_version: int) -> None:
        """Nothing to send to."""

    async def save_hf(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch) -> Learned:
    learned = Learned()

    @asynccontextmanager
    async def given(*_: Any) -> AsyncIterator[Learned]:
        yield learned

    monkeypatch.setattr(stage, "_policy", given)
    monkeypatch.setattr(stage, "check_written", lambda _: None)
    return learned


def config(*overrides: str) -> Config:
    return run_config(
        ["++algorithm.advantage_scale=none", "++algorithm.minibatches_per_step=1", *overrides]
    )


def saved(root: Path) -> RunDirectory:
    """A run of two steps with a group each."""
    run = RunDirectory(root)
    for step, rewards in enumerate(REWARDS, start=1):
        judged = make_judged(make_group(make_prompts(step)[-1], 2), rewards)
        rows = list(rollout_rows(step, [judged], None))
        write_rollouts(run.rollout_file(RolloutFolder.TRAINING, step), rows, [judged])
    return run


def job(tmp_path: Path, cfg: Config, **more: Any) -> Replay:
    run = saved(tmp_path / "run")
    target = RunDirectory(tmp_path / "target")
    return Replay(cfg=cfg, run=run, target=target, num_steps=2, in_process=True, **more)


def write_scores(path: Path, scores: Mapping[tuple[int, str, int], float]) -> Path:
    lines = [
        {"step": step, "prompt_id": prompt, "sample_idx": index, "score": score, "reward": score}
        for (step, prompt, index), score in scores.items()
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_rewards_of_the_run_are_taught_step_by_step(tmp_path: Path, policy: Learned):
    replay(job(tmp_path, config()))
    assert policy.advantages == [[-0.5, 0.5], [0.75, -0.75]]
    lines = (tmp_path / "target/metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    assert [step["step"] for step in steps] == [1, 2]
    assert [step["reward/mean"] for step in steps] == [0.5, 1.25]
    assert not {"time/rollout_s", "rollout/tokens_per_s"} & steps[0].keys()


def test_other_scores_of_the_same_completions_are_taught_instead(tmp_path: Path, policy: Learned):
    given = {(1, "p0", 0): 3.0, (1, "p0", 1): 1.0, (2, "p1", 0): 0.0, (2, "p1", 1): 1.0}
    scores = read_scores(write_scores(tmp_path / "scored.jsonl", given))
    replay(job(tmp_path, config(), scores=scores))
    assert policy.advantages == [[1.0, -1.0], [-0.5, 0.5]]


def test_a_group_that_is_flat_by_other_scores_teaches_nothing(tmp_path: Path, policy: Learned):
    given = {(1, "p0", 0): 1.0, (1, "p0", 1): 1.05, (2, "p1", 0): 0.0, (2, "p1", 1): 1.0}
    scores = read_scores(write_scores(tmp_path / "scored.jsonl", given))
    replay(job(tmp_path, config("++algorithm.min_spread=0.1"), scores=scores))
    assert policy.advantages == [[-0.5, 0.5]]


def test_scores_that_lack_a_completion_are_refused_by_its_name(tmp_path: Path, policy: Learned):
    scores = read_scores(write_scores(tmp_path / "scored.jsonl", {(1, "p0", 0): 3.0}))
    with pytest.raises(DataError, match=r"has none of step 1, p0, sample 1.*input=RUN"):
        replay(job(tmp_path, config(), scores=scores))
    assert not policy.advantages


def test_lines_that_score_no_completion_of_a_run_are_refused_by_their_place(tmp_path: Path):
    path = write_scores(tmp_path / "scored.jsonl", {(1, "p0", 0): 3.0})
    first = path.read_text()
    row = {"step": 1, "prompt_id": "a", "sample_idx": 0, "score": None, "reward": 1}
    read_scores(_added(path, first, row))
    for name, value in (
        ("step", "1"),
        ("prompt_id", ["a"]),
        ("sample_idx", True),
        ("score", "nan"),
        ("reward", None),
        ("reward", 10**400),
    ):
        with pytest.raises(DataError, match=r"scored.jsonl:2:-: is no scored .*launch/score.py"):
            read_scores(_added(path, first, row | {name: value}))
    with pytest.raises(DataError, match=r"scored.jsonl:2:-: .*step is missing"):
        read_scores(_added(path, first, {"prompt": "Add.", "reward": 1}))


def _added(path: Path, lines: str, row: object) -> Path:
    path.write_text(f"{lines}{json.dumps(row)}\n")
    return path


def test_truncated_answers_are_settled_again_under_other_scores(tmp_path: Path, policy: Learned):
    run = job(tmp_path, config("++algorithm.truncated=zero"))
    group = make_group(make_prompts(1)[0], 2)
    first, second = group.completions_G
    cut = (first, dataclasses.replace(second, finish=Finish.LENGTH))
    judged = make_judged(dataclasses.replace(group, completions_G=cut), (0.0, 0.0))
    path = run.run.rollout_file(RolloutFolder.TRAINING, 1)
    write_rollouts(path, list(rollout_rows(1, [judged], None)), [judged])
    given = {(1, "p0", 0): 1.0, (1, "p0", 1): 9.0, (2, "p1", 0): 0.0, (2, "p1", 1): 1.0}
    scores = read_scores(write_scores(tmp_path / "scored.jsonl", given))
    replay(dataclasses.replace(run, scores=scores))
    assert policy.advantages[0] == [0.5, -0.5]
