"""Programs of an earlier run as the lists of Aletheia."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.stages.recipes import make_recipe
from actors.stages.rl_run import training_sampling
from conf.errors import UserError
from rl.recipes.recipe import Recipe
from rl.run.rollouts import RolloutRow, write_rollouts
from rl.types import Task, Verdict
from tests.settings import run_config
from tests.unit.rl.fakes import make_prompts

pytestmark = pytest.mark.unit


def row(question: str, code: str, verdict: Verdict | None, task: str = "code") -> RolloutRow:
    return RolloutRow(
        step=1,
        prompt_id="p",
        question=question,
        sample_idx=0,
        text="",
        code=code,
        reason="ok",
        score=None,
        reward=0.0,
        advantage=None,
        num_tokens=1,
        finish="stop",
        policy_version=0,
        verdict=verdict,
        task=task,
    )


def made(file: Path) -> Recipe:
    cfg = run_config(
        [
            "experiment=recipe_aletheia",
            "model.path=assets/minipy/policy_tasks",
            f"recipe_args.programs={file}",
        ]
    )
    sampling = training_sampling(cfg.algorithm, cfg.model, cfg.rollout, cfg.seed)
    return make_recipe(cfg, sampling)


def test_programs_of_a_rollout_file_are_asked_about_where_their_problem_comes(tmp_path: Path):
    first, second = make_prompts(2)
    rows = [
        row(first.question, "a", Verdict.PASSED),
        row(first.question, "b", Verdict.WRONG_ANSWER),
        row(first.question, "assert f() == 1", Verdict.PASSED, task="test"),
        row(second.question, "c", Verdict.PASSED),
    ]
    write_rollouts(tmp_path / "step.parquet", rows)
    asks = made(tmp_path / "step.parquet").ask(1, [first, second], {})
    assert [ask.task for ask in asks] == [Task.VERDICT, Task.CODE]
    assert asks[0].lineup is not None and sorted(asks[0].lineup.codes_N) == ["a", "b"]


def test_a_file_that_is_missing_or_holds_no_verdict_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"recipe_args\.programs: .* does not exist; give"):
        made(tmp_path / "nothing.parquet")
    write_rollouts(tmp_path / "rm.parquet", [row("q", "a", None)])
    with pytest.raises(UserError, match="holds no program with a verdict"):
        made(tmp_path / "rm.parquet")
