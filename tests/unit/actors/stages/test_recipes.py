"""What a run says that it learns from, for every recipe and every judge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from actors.stages.recipes import RECIPES, labels_of, make_recipe
from rl.problems.levels import make_prompts
from rl.problems.oracles import right_output
from rl.types import Evidence, Extraction, JudgeKind, Reason, SamplingConfig, Task
from tests.settings import POLICY, run_config
from tests.unit.rl.fakes import make_group, make_judged

pytestmark = pytest.mark.unit

URL = "reward.url=[http://127.0.0.1:1]"
FOUND = {  # of the experiments, all of whose judges are tests
    "grpo": "gold_tests",
    "cure": "gold_tests",
    "codrlplus": "gold_tests",
    "crpe": "gold_tests",
    "aletheia": "gold_tests",
    "actor_critic": "gold_tests",
    "stepcoder": "gold_tests, gold_code",
    "cvedrl": "gold_code",
    "sol_ver": "none",
    "sft": "given_answers",
    "dpo": "given_pairs",
}


def labels(*overrides: str) -> str:
    cfg = run_config([*overrides])
    return labels_of(make_recipe(cfg, SamplingConfig(group_size=4, max_tokens=8)), cfg.reward)


@pytest.mark.parametrize("is_right", [True, False])
def test_sol_ver_on_minipy_knows_collusion_where_no_program_is_right(is_right: bool) -> None:
    cfg = run_config(["experiment=recipe_sol_ver", f"model.path={POLICY}"])
    recipe = make_recipe(cfg, SamplingConfig(group_size=4, max_tokens=8))
    (problem,) = make_prompts("flat", "eval", 1, 0)
    xs = [3, -4, 8]
    output = right_output(problem, [xs]) if is_right else "wrong"
    programs = make_judged(make_group(problem, 2), [0.0, 0.0], [False, False])
    made = make_judged(make_group(problem, 1), [0.0])
    tests = replace(
        made,
        group=replace(made.group, ask=replace(made.group.ask, task=Task.TEST)),
        extractions_G=(Extraction(reason=Reason.OK, code=f"assert f({xs}) == {output!r}"),),
        judge=JudgeKind.MATRIX,
        evidence=Evidence(passed_NM=np.array([[True], [False]])),
    )
    metrics = recipe.teach(1, [programs, tests], {}).metrics
    assert metrics["task/pair/unknown"] == 0.0
    assert metrics["task/pair/test_right"] == float(is_right)
    assert metrics["task/pair/collusion"] == float(not is_right)


def test_every_recipe_is_here() -> None:
    assert FOUND.keys() == RECIPES.keys()


@pytest.mark.parametrize(("recipe", "found"), FOUND.items())
def test_every_recipe_says_what_it_learns_from(recipe: str, found: str) -> None:
    experiment = "quickstart_execution" if recipe == "grpo" else f"recipe_{recipe}"
    assert labels(f"experiment={experiment}", f"model.path={POLICY}") == found


@pytest.mark.parametrize("recipe", ["grpo", "cure"])
def test_a_recipe_of_judged_programs_learns_from_what_the_judge_has(recipe: str) -> None:
    assert labels(f"recipe={recipe}", "reward=codescaler") == "rm"


def test_stepcoder_without_its_curriculum_reads_no_solution() -> None:
    none = ("recipe=stepcoder", "recipe_args.curriculum=none")
    assert labels(*none, "reward=execution") == "gold_tests"


@pytest.mark.parametrize(
    ("reward", "found"),
    [
        ("reward=codescaler", "rm"),
        (f"reward=remote {URL}", "rm"),
        ("reward=execution", "gold_tests"),
        ("reward=hybrid", "gold_tests, rm"),
        (f"reward=generative {URL} reward.generative.model=served", "a served language model"),
        ("reward.kind=mine:judge", "those of mine:judge"),
        ("reward=sum reward.components={a:{judge:rm},b:{judge:execution}}", "rm, gold_tests"),
        ("reward=sum reward.components={a:{judge:length}}", "none"),
    ],
)
def test_every_judge_is_named_by_what_it_was_told(reward: str, found: str) -> None:
    assert labels(*reward.split()) == found
