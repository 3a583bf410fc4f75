"""An arm of an ablation: its arguments, with and without changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.jobs import ablation
from conf.schema import Config
from conf.validate import build
from launch.ablation import MOVED, AblationArgs, exam_args, run
from launch.common.cli import main_simple
from launch.common.compose import compose_config
from launch.common.overrides import forced_overrides
from rl.types import SamplingConfig, Task
from tests.unit.rl.fakes import make_prompts

pytestmark = pytest.mark.unit

OF_ONES_OWN = """
from dataclasses import dataclass
from conf.schema import key
from conf.validate import build
from rl.recipes.recipe import Recipe

@dataclass(frozen=True, kw_only=True)
class Args:
    depth: int = key("depth")

def make(setup, args):
    return Recipe(setup) if build(Args, args).depth else None

def careless(setup, args):
    return Recipe(setup) if args["depth"] else None
"""


def test_an_arm_needs_a_label_alone() -> None:
    args = build(AblationArgs, {"label": "recipe"})
    assert (args.experiment, args.changes, args.exam) == ("quickstart", None, None)


def test_changes_are_overrides_of_the_experiment() -> None:
    changes = ["recipe=grpo", "recipe_args=null", "algorithm.group_size=16"]
    args = build(AblationArgs, {"label": "programs", "changes": changes})
    assert args.changes is not None
    cfg = compose_config(["experiment=recipe_cure", *forced_overrides(args.changes)])
    assert (cfg.recipe, cfg.recipe_args, cfg.algorithm.group_size) == ("grpo", None, 16)


@pytest.mark.parametrize(
    ("experiment", "exam", "expected"),
    [
        ("recipe_aletheia", "aletheia", {"num_programs": [2, 3], "answer": "steps"}),
        ("recipe_sol_ver", "sol_ver", {"num_tests": 16, "tests_see": "problem", "accept": 0.1}),
        ("recipe_sol_ver", "cure", None),  # its defaults
        ("recipe_sol_ver", None, None),
    ],
)
def test_an_exam_has_the_arguments_of_the_experiment_whose_recipe_it_is(
    experiment: str, exam: str | None, expected: dict[str, object] | None
) -> None:
    assert exam_args(experiment, exam) == expected


def test_arms_with_other_arguments_sit_the_same_exam(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arms: list[tuple[Config, ablation.Arm]] = []
    monkeypatch.setattr(ablation, "run_arm", lambda cfg, arm, _: arms.append((cfg, arm)))
    monkeypatch.setattr("actors.plan.checks.inputs.check_inputs", lambda cfg: None)
    monkeypatch.setattr("launch.ablation.draw_arms", lambda *_: None)
    for changes in (("recipe_args.tests_see=program",), ("recipe=grpo", "recipe_args=null")):
        given = AblationArgs(
            label=changes[0],
            experiment="recipe_sol_ver",
            exam="sol_ver",
            changes=changes,
            output=str(tmp_path),
        )
        run(given)
    (problem,), sampling = make_prompts(1), SamplingConfig(group_size=2, max_tokens=8)
    for cfg, arm in arms:
        examiner = ablation.examiner_of(cfg, arm, sampling)
        assert examiner is not None
        asked = [ask.task for ask in examiner.exam([problem], sampling)]
        assert asked == [Task.CODE, Task.TEST]  # the test is asked of the problem alone


def test_a_former_key_names_what_is_given_now(capsys: pytest.CaptureFixture[str]) -> None:
    for old in ("policy=a", "reward_model=a", "scale=std", "kl_coef=0.1"):
        assert main_simple(AblationArgs, run, ["label=x", old], moved=MOVED) == 2
        key = old.partition("=")[0]
        assert f"{key}: is no key any more; give changes=[" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["exam=grop"], "exam: 'grop' is not one of grpo, cure"),
        (["exam=grop"], "(nearest: grpo)"),
        (["exam=no_such_module:make"], "exam: 'no_such_module' cannot be imported"),
        (["exam=json:make"], "exam: 'json' has no 'make'"),
        (["exam=conf.errors:UserError.x"], "exam: "),
        (["exam=builtins:dict"], "exam: builtins:dict cannot be called with a Setup and arguments"),
        (["exam=builtins:print"], "exam: builtins:print returns a NoneType"),
        (["exam=my_exam:careless"], "a Setup and arguments (KeyError: 'depth')"),
        (["exam=sft"], "exam: sft: recipe_args.data: has no value"),
        (["exam=sft"], "(give such an experiment, or another exam)"),
        (["exam=my_exam:make"], "exam: my_exam:make: recipe_args.depth: has no value"),
        (["exam=cure", 'changes=["model.max_prompt_tokens=48"]'], "prompts that the recipe makes"),
        (['changes=["recipe=grop"]'], "recipe: 'grop' is not one of grpo, cure"),
        (['changes=["recipe=json:make"]'], "recipe: 'json' has no 'make'"),
        (['changes=["recipe=builtins:print"]'], "recipe: builtins:print returns a NoneType"),
        (
            ['changes=["recipe=my_exam:make","++recipe_args.dept=1"]'],
            "recipe_args.dept: unknown key; nearest valid: depth",
        ),
        (['changes=["recipe=cure","++recipe_args.dept=1"]'], "recipe_args.dept: unknown key"),
    ],
)
def test_a_wrong_recipe_or_exam_is_refused_before_anything_starts(
    overrides: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "my_exam.py").write_text(OF_ONES_OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(ablation, "session", None)  # nothing may ask for one
    output = tmp_path / "out"
    given = ["label=x", f"output={output}", *overrides]
    assert main_simple(AblationArgs, run, given) == 2
    err = capsys.readouterr().err
    assert expected in err and "Traceback" not in err
    assert not output.exists()
