"""Given examples of a run are refused before anything starts, each with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from actors.plan.checks.inputs import check_inputs
from actors.plan.examples import PolicyTexts, load_examples
from actors.stages.recipes import RECIPES, make_recipe
from conf.errors import UserError
from conf.recipes import is_anchored
from rl.problems.minipy import make_prompts
from rl.problems.minipy_examples import right_answers
from rl.problems.prompts import write_prompts
from rl.problems.warm_start import answer_samples
from rl.recipes.crpe import steps_of
from rl.text.tokenizer import load_tokenizer
from rl.types import SamplingConfig
from tests.settings import POLICY, shipped_config

pytestmark = pytest.mark.unit

SAMPLING = SamplingConfig(group_size=2, max_tokens=8)


def refusal(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        check_inputs(shipped_config(overrides))
    return str(caught.value)


def given(folder: Path, *answers: str) -> str:
    path = folder / "own.jsonl"
    rows = [{"prompt": "Return xs.", "completion": answer} for answer in answers]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"++recipe_args.data={path}"


@pytest.mark.parametrize("experiment", ["recipe_sft", "recipe_dpo"])
def test_the_shipped_examples_are_found_from_any_folder_and_welcome(
    experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_inputs(shipped_config([f"experiment={experiment}"]))


def test_bad_rows_and_long_rows_are_refused_with_file_and_row(tmp_path: Path) -> None:
    bad = refusal("experiment=recipe_sft", given(tmp_path, "x = 1", ""))
    assert f"{tmp_path}/own.jsonl:2:completion: must be text that is not empty" in bad
    long = refusal("experiment=recipe_sft", given(tmp_path, "x = 1", "x = 1\n" * 90))
    assert f"{tmp_path}/own.jsonl:2: the answer has " in long
    assert "above model.max_completion_tokens=64" in long
    assert "does not exist" in refusal("experiment=recipe_sft", "++recipe_args.data=no.jsonl")


def test_supervised_runs_on_files_need_held_out_problems_alone(tmp_path: Path) -> None:
    write_prompts(tmp_path / "eval.parquet", make_prompts("eval", 4, 0))
    files = ["data=parquet", f"++data.eval_path={tmp_path / 'eval.parquet'}"]
    check_inputs(shipped_config(["experiment=recipe_sft", *files]))


def test_an_answer_is_encoded_as_the_warm_start_does() -> None:
    cfg = shipped_config(["experiment=recipe_sft"])
    data = (cfg.recipe_args or {})["data"]
    (first, *_), *_ = load_examples(data, "answers", PolicyTexts(cfg.model).encode)
    row = json.loads(Path(data).read_text().splitlines()[0])
    tokenizer = load_tokenizer(str(POLICY), "model.path")
    (expected,) = answer_samples([(row["prompt"], row["completion"])], tokenizer)
    assert first.token_ids.tolist() == expected.token_ids.tolist()
    assert first.num_prompt_tokens == expected.num_prompt_tokens


def test_a_prefix_belongs_to_the_prompt_and_an_open_answer_has_no_end() -> None:
    texts = PolicyTexts(shipped_config(["experiment=quickstart"]).model)
    prompt = make_prompts("train", 1, 0)[0]
    whole = texts.encode(prompt, "def f(xs):\n    return xs")
    part = texts.encode(prompt, "    return xs", prefix="def f(xs):\n", ends=False)
    assert part.num_prompt_tokens > whole.num_prompt_tokens
    assert part.token_ids[-1] != whole.token_ids[-1]
    assert len(part.rollout_logprobs) == len(part.token_ids) - part.num_prompt_tokens


@pytest.mark.parametrize("step_end", ["", r"(?=\n)"])  # of the experiment, the default
def test_steps_are_encoded_as_the_policy_writes_them(step_end: str) -> None:
    cfg = shipped_config(["experiment=recipe_crpe"])
    texts = PolicyTexts(cfg.model)
    step_end = step_end or (cfg.recipe_args or {})["step_end"]
    prompt = make_prompts("train", 1, 0)[0]
    for _, answer in right_answers(20, 0):
        steps = steps_of(answer, step_end)
        assert len(steps) >= 4
        whole = texts.encode(prompt, answer)
        parts = [
            texts.encode(prompt, step, prefix="".join(steps[:number]), ends=step is steps[-1])
            for number, step in enumerate(steps)
        ]
        own = [token for part in parts for token in part.token_ids[part.num_prompt_tokens :]]
        assert own == whole.token_ids[whole.num_prompt_tokens :].tolist()


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_plan_counts_the_initial_policy_for_the_recipes_that_need_it(recipe: str) -> None:
    cfg = shipped_config([] if recipe == "grpo" else [f"experiment=recipe_{recipe}"])
    assert cfg.recipe == recipe
    said = is_anchored(cfg.recipe, cfg.recipe_args)
    assert make_recipe(cfg, SAMPLING).needs_reference == said


@pytest.mark.parametrize("learn", ["grpo", "raft", "dpo"])
def test_the_plan_counts_the_initial_policy_for_the_arm_that_needs_it(learn: str) -> None:
    cfg = shipped_config(["experiment=recipe_aletheia", f"recipe_args.learn={learn}"])
    said = is_anchored(cfg.recipe, cfg.recipe_args)
    assert said == make_recipe(cfg, SAMPLING).needs_reference == (learn == "dpo")
