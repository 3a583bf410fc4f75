"""Problems that a run could not use are refused before an engine starts."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from actors.plan.checks.inputs import check_inputs
from actors.plan.problems import load_problems
from conf.errors import UserError
from rl.problems.minipy import make_prompts
from rl.problems.prompts import write_prompts
from tests.settings import shipped_config
from tests.unit.reward.judges.servers import serving

pytestmark = pytest.mark.unit


@pytest.fixture
def overrides(tmp_path: Path) -> list[str]:
    """A run on 8 problems of a file, the second half of them without tests."""
    train, held_out = make_prompts("train", 8, 0), make_prompts("eval", 4, 0)
    train[4:] = [replace(prompt, tests=None) for prompt in train[4:]]
    write_prompts(tmp_path / "train.parquet", train)
    write_prompts(tmp_path / "eval.parquet", held_out)
    paths = [f"data.{split}_path={tmp_path / split}.parquet" for split in ("train", "eval")]
    return ["data=parquet", "++algorithm.prompts_per_step=8", *(f"++{path}" for path in paths)]


def check(overrides: list[str]) -> None:
    check_inputs(shipped_config(overrides))


def refusal(overrides: list[str]) -> str:
    with pytest.raises(UserError) as caught:
        check(overrides)
    return str(caught.value)


def test_problems_without_tests_are_welcome_where_a_reward_model_judges(overrides: list[str]):
    check(overrides)


def test_execution_refuses_a_problem_without_tests_and_names_it_and_the_fix(overrides: list[str]):
    message = refusal([*overrides, "reward=execution"])
    assert message.startswith("data.train_path: problem minipy-train-0-4 has no tests")
    assert "4 of 8 problems" in message
    assert "reward=hybrid" in message and "reward=codescaler" in message


@pytest.mark.parametrize(
    ("lora", "words"),
    [
        ("{rank: 8, layers: [q_proj, c_attn]}", "c_attn is no linear layer of Qwen3ForCausalLM"),
        ("{rank: 8, layers: [lm_head]}", "lm_head is the LM head (they share their weights)"),
        ("{rank: 65}", "policy.lora.rank: 65 is more than the layer model.layers.0.self_attn.k_pr"),
    ],
)
def test_adapters_that_the_policy_cannot_have_are_refused(lora: str, words: str):
    assert words in refusal([f"++policy.lora={lora}"])


def test_adapters_of_every_linear_layer_are_welcome():
    check(["++policy.lora.rank=64"])


@pytest.mark.parametrize("key", ["model.path", "reward.model"])
def test_adapters_in_the_place_of_a_model_are_refused_with_how_to_merge_them(
    tmp_path: Path, key: str
):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").touch()
    message = refusal([f"++{key}={tmp_path}"])
    assert message.startswith(f"{key}: {tmp_path} holds a LoRA adapter (adapter_config.json)")
    assert "merge it into its base with launch/merge_adapter.py" in message


def test_a_step_longer_than_the_data_set_is_refused(overrides: list[str]):
    message = refusal([*overrides, "++algorithm.prompts_per_step=9"])
    assert "holds 8 problems" in message
    assert "set algorithm.prompts_per_step=8" in message


def test_a_mix_of_which_a_step_cannot_take_its_share_is_refused(tmp_path: Path):
    check(["experiment=synthetic"])
    few = tmp_path / "few.parquet"
    write_prompts(few, [replace(prompt, tests=None) for prompt in make_prompts("train", 7, 1)])
    message = refusal(["experiment=synthetic", f"++data.untested_path={few}"])
    assert "data.untested_share: a step takes 8 problems without tests, and there are 7" in message
    few.unlink()
    message = refusal(["experiment=synthetic", f"++data.untested_path={few}"])
    assert message.startswith(f"data.untested_path: the file {few} does not exist; give data.unt")


@pytest.fixture
def probed(tmp_path: Path) -> str:
    """The override that names a good file of probe problems."""
    write_prompts(tmp_path / "probe.parquet", make_prompts("eval", 20, 9))
    return f"++probe.path={tmp_path / 'probe.parquet'}"


def test_a_probe_apart_from_training_and_evaluation_is_welcome(overrides: list[str], probed: str):
    check([*overrides, probed])


@pytest.mark.parametrize("split", ["train", "eval"])
def test_a_probe_that_is_trained_or_evaluated_on_is_refused(
    overrides: list[str], probed: str, tmp_path: Path, split: str
):
    shared = make_prompts(split, 1, 0)  # pyright: ignore[reportArgumentType]  # one of the two
    others = make_prompts("eval", 20, 9)
    write_prompts(tmp_path / "probe.parquet", [*others, replace(shared[0], id="shared")])
    message = refusal([*overrides, probed])
    assert message.startswith("probe.path: 1 of 21 problems are also in data.")
    assert f"data.{split}_path=" in message and "the first is shared" in message


def test_a_probe_needs_tests_and_enough_problems(overrides: list[str], probed: str, tmp_path: Path):
    few = make_prompts("eval", 3, 9)
    write_prompts(tmp_path / "probe.parquet", few)
    assert "holds 3 problems" in refusal([*overrides, probed])
    write_prompts(tmp_path / "probe.parquet", [replace(few[0], tests=None)])
    assert "has no tests" in refusal([*overrides, probed])
    assert "does not exist" in refusal([*overrides, "++probe.path=nowhere.parquet"])
    check([*overrides, "++probe.path=nowhere.parquet", "++probe.every=0"])


def test_held_out_problems_need_tests_whoever_judges(overrides: list[str], tmp_path: Path):
    message = refusal([*overrides, f"++data.eval_path={tmp_path / 'train.parquet'}"])
    assert message.startswith("data.eval_path: problem minipy-train-0-4 has no tests")


def test_what_settings_import_is_looked_for_before_anything_starts_all_at_once():
    said = refusal(
        [
            "++recipe=no_module:make",
            "++algorithm.kind=json:no_name",
            "++reward.kind=no_judges:make",
            "++reward.rule=no_rules:read",
            "++data.kind=no_problems:make",
        ]
    )
    assert [line.split(": ", 1)[0] for line in said.splitlines()] == [
        "recipe",
        "algorithm.kind",
        "reward.kind",
        "reward.rule",
        "data.kind",
    ]
    assert "'json' has no 'no_name'" in said and "must be on PYTHONPATH" in said


WRONG = """
def takes_nothing():
    return 3

class TakesOne:
    def __init__(self, cfg):
        pass

number = 3
"""


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("algorithm.kind=wrong:takes_nothing", "it must take a Config (too many"),
        ("reward.kind=wrong:TakesOne", "it must take a RewardConfig and an ExecutionConfig (too"),
        ("recipe=wrong:takes_nothing", "it must take a Setup (too many"),
        ("reward.rule=wrong:takes_nothing", "it must take a text and an ExtractConfig (too many"),
        ("data.kind=wrong:number", "it must take a DataConfig and a seed; it is a int"),
    ],
)
def test_what_is_imported_must_take_what_it_is_called_with(
    override: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "wrong.py").write_text(WRONG)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wrong", raising=False)
    assert message in refusal([f"++{override}"])


OWN = """
from dataclasses import replace
from rl.problems.minipy import make_prompts

def problems(data, seed):
    return make_prompts("train", 5, seed), make_prompts("eval", 3, 0)

def words(data, seed):
    return ["one"], ["two"]

def none(data, seed):
    return [], make_prompts("eval", 3, 0)
"""


def test_problems_of_ones_own_come_from_the_function_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "own_problems.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    data = shipped_config(["++data.kind=own_problems:problems"]).data
    train, held_out = load_problems(data, 7)
    assert (len(train), len(held_out)) == (5, 3)
    for kind in ("own_problems:words", "json:loads", "builtins:print"):
        with pytest.raises(UserError, match=f"data.kind: {kind}: it must take a DataConfig"):
            load_problems(replace(data, kind=kind), 7)
    with pytest.raises(UserError, match="own_problems:none returns no training problem"):
        load_problems(replace(data, kind="own_problems:none"), 7)


def test_files_of_sources_and_sets_are_checked_as_the_others_are(tmp_path: Path) -> None:
    tested, untested = make_prompts("train", 20, 0), make_prompts("train", 20, 1)
    eval_path = tmp_path / "eval.parquet"
    write_prompts(eval_path, make_prompts("eval", 4, 0))
    write_prompts(tmp_path / "a.parquet", tested)
    write_prompts(tmp_path / "same.parquet", tested)
    write_prompts(tmp_path / "b.parquet", [replace(p, tests=None) for p in untested])
    base = ["data=parquet", f"++data.eval_path={eval_path}"]

    def sources(*names: str) -> str:
        given = (f"{name}: {{path: '{tmp_path / name}.parquet'}}" for name in names)
        return f"++data.sources={{{', '.join(given)}}}"

    absent = refusal([*base, sources("a", "absent")])
    assert absent.startswith("data.sources.absent.path: the file ")
    by_tests = refusal([*base, sources("a", "b"), "reward=execution"])
    assert by_tests.startswith("data.sources.b.path: problem ") and "has no tests" in by_tests
    twice = refusal([*base, sources("a", "same")])
    assert "data.sources.same.path: problem " in twice and "is in a too" in twice
    sets = f"++data.eval_sets={{mine: '{tmp_path}/b.parquet'}}"
    assert refusal([*base, sources("a"), sets]).startswith("data.eval_sets.mine: problem ")


def test_servers_that_judge_are_asked_before_anything_starts(overrides: list[str]):
    served = [*overrides, "reward=remote", "++reward.request.tries=1"]
    message = refusal([*served, "++reward.url=http://127.0.0.1:1"])
    assert message.startswith("reward.url: http://127.0.0.1:1 gives no score: ")
    with serving(lambda path, body: [{"valid": True, "score": 1.0}] * len(body)) as server:
        check([*served, f"++reward.url={server.url}"])


def test_recipes_that_run_programs_refuse_other_languages_and_tests_do_too(
    overrides: list[str], tmp_path: Path
) -> None:
    go = [replace(p, tests=None, meta='{"language": "go"}') for p in make_prompts("train", 12, 0)]
    write_prompts(tmp_path / "train.parquet", go)
    check(overrides)
    message = refusal([*overrides, "++recipe=cure"])
    assert "recipe: cure runs programs, which must be Python, and 12 of 12 training" in message
    assert "(go); set recipe=grpo" in message
    assert "has no tests" in refusal([*overrides, "reward=execution"])


def test_a_context_that_cuts_programs_with_golden_scores_is_refused_before_an_engine_differs() -> (
    None
):
    message = refusal(["reward.max_tokens=8"])
    assert message.startswith("reward.max_tokens: 8 tokens cut 8 of the 8 programs that ")
    assert "golden_scores.json has scores of" in message
    check(["reward.max_tokens=256"])
