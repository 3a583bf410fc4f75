"""Every fault of a configuration is found, named and explained before anything starts."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from conf.commands.best_of_n import BestOfNArgs
from conf.groups import CONF_DIR
from conf.keys import EXAMPLES, keys_of, nearest
from conf.rules.problems import source_counts
from conf.schema import Config, key
from conf.validate import (
    ConfigError,
    Fault,
    build,
    build_config,
    cautions,
    to_dict,
)
from tests.settings import run_config

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def quickstart() -> dict[str, Any]:
    return to_dict(run_config(["experiment=quickstart"]))


def changed(raw: dict[str, Any], **values: object) -> dict[str, Any]:
    """A copy with `a__b=value` put at key `a.b`."""
    result = copy.deepcopy(raw)
    for path, value in values.items():
        *parents, leaf = path.split("__")
        section = result
        for parent in parents:
            section = section[parent]
        section[leaf] = value
    return result


def faults_of(raw: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        build_config(raw)
    return [str(fault) for fault in caught.value.faults]


def test_a_configuration_survives_the_round_trip_through_plain_values(
    quickstart: dict[str, Any],
) -> None:
    assert to_dict(build_config(quickstart)) == quickstart


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "rollout__temperature",
            0.005,
            "rollout.temperature: 0.005 is not a number >= 0.01 (give e.g. rollout.temperature=1)",
        ),
        (
            "policy__lr",
            "fast",
            "policy.lr: 'fast' is not a number > 0 and <= 1 (give e.g. policy.lr=1e-5)",
        ),
        ("policy__lr", 0, "policy.lr: 0 is not a number > 0 and <= 1 (give e.g. policy.lr=1e-5)"),
        (
            "policy__lr",
            True,
            "policy.lr: True is not a number > 0 and <= 1 (give e.g. policy.lr=1e-5)",
        ),
        (
            "policy__lr",
            "nan",
            "policy.lr: 'nan' is not a number > 0 and <= 1 (give e.g. policy.lr=1e-5)",
        ),
        (
            "policy__lr",
            None,
            "policy.lr: has no value: peak learning rate (give e.g. policy.lr=1e-5)",
        ),
        (
            "policy__lr",
            "???",
            "policy.lr: has no value: peak learning rate (give e.g. policy.lr=1e-5)",
        ),
        (
            "policy__ranks",
            2.0,
            "policy.ranks: 2.0 is not an integer >= 1 and <= 4096 (give e.g. policy.ranks=1)",
        ),
        (
            "policy__ranks",
            True,
            "policy.ranks: True is not an integer >= 1 and <= 4096 (give e.g. policy.ranks=1)",
        ),
        (
            "rollout__top_p",
            1.5,
            "rollout.top_p: 1.5 is not a number > 0 and <= 1 (give e.g. rollout.top_p=1)",
        ),
        ("dry_run", 1, "dry_run: 1 is not true or false (give e.g. dry_run=false)"),
        ("output_dir", [], "output_dir: [] is not text (give e.g. output_dir=outputs)"),
        (
            "placement__device",
            "gpu",
            "placement.device: 'gpu' is not one of cpu, cuda (give e.g. placement.device=cpu)",
        ),
        (
            "policy__attention",
            "flash",
            "policy.attention: 'flash' is not one of sdpa, flash_attention_2, flex_attention, "
            "eager (nearest: flash_attention_2)",
        ),
        (
            "ray__env",
            {"A": [1]},
            "ray.env: {'A': [1]} is not a mapping of text to text "
            "(give e.g. ray.env={OMP_NUM_THREADS:'1'})",
        ),
        (
            "algorithm__dual_clip",
            "off",
            "algorithm.dual_clip: 'off' is not a number > 1, or null "
            "(give e.g. algorithm.dual_clip=3)",
        ),
        ("placement__rollout", 3, "placement.rollout: 3 stands where a group of keys is expected"),
        ("policy", None, "policy: None stands where a group of keys is expected"),
        ("polcy", {"lr": 1.0}, "polcy.lr: unknown key; nearest valid: policy.lr"),
        (
            "policy__learnrate",
            1,
            "policy.learnrate: unknown key; nearest valid: policy.lr",
        ),
        ("group_sise", 4, "group_sise: unknown key; nearest valid: algorithm.group_size"),
        ("placment", "laptop", "placment: unknown key; nearest valid: placement"),
        ("_target_", "os.system", "_target_: unknown key; --help lists the keys"),
        ("zzz", {}, "zzz: unknown key; --help lists the keys"),
    ],
)
def test_a_wrong_value_is_reported_with_key_value_rule_and_fix(
    quickstart: dict[str, Any], path: str, value: object, message: str
) -> None:
    assert faults_of(changed(quickstart, **{path: value})) == [message]


@pytest.mark.parametrize(
    ("changes", "path", "got"),
    [
        ({"name": "../elsewhere"}, "name", "name=../elsewhere"),
        (
            {"sandbox__protocol": "taco", "sandbox__tolerance": 0.1},
            "sandbox.tolerance",
            "sandbox.protocol=taco",
        ),
        (
            {"data__kind": "parquet", "data__eval_path": "x"},
            "data.train_path",
            "data.train_path=null",
        ),
        (
            {"data__kind": "parquet", "data__train_path": "x"},
            "data.eval_path",
            "data.eval_path=null",
        ),
        (
            {"data__train_path": "x"},
            "data.kind",
            "data.kind=minipy, data.train_path=x, data.eval_path=null",
        ),
        (
            {"data__level": "branchy", "loop__enabled": True},
            "data.level",
            "data.level=branchy, data.kind=minipy, loop.enabled=true",
        ),
        (
            {"data__num_train": 15},
            "data.num_train",
            "data.num_train=15, algorithm.prompts_per_step=16",
        ),
        ({"reward__model": None}, "reward.model", "reward.kind=rm, reward.model=null"),
        (
            {
                "loop__enabled": True,
                "data__kind": "parquet",
                "data__train_path": "x",
                "data__eval_path": "x",
            },
            "loop.enabled",
            "data.kind=parquet",
        ),
        (
            {"algorithm__minibatches_per_step": 3},
            "algorithm.minibatches_per_step",
            "algorithm.prompts_per_step=16, algorithm.minibatches_per_step=3",
        ),
        (
            {"algorithm__group_size": 1},
            "algorithm.group_size",
            "algorithm.group_size=1, algorithm.advantage_baseline=group",
        ),
        (
            {
                "algorithm__advantage_baseline": "leave_one_out",
                "algorithm__advantage_scale": "rank",
            },
            "algorithm.advantage_baseline",
            "algorithm.advantage_baseline=leave_one_out, algorithm.advantage_scale=rank",
        ),
        (
            {"algorithm__advantage_baseline": "batch", "algorithm__advantage_scale": "group_std"},
            "algorithm.advantage_baseline",
            "algorithm.advantage_baseline=batch, algorithm.advantage_scale=group_std",
        ),
        (
            {"algorithm__advantage_baseline": "none", "algorithm__advantage_scale": "group_std"},
            "algorithm.advantage_baseline",
            "algorithm.advantage_baseline=none, algorithm.advantage_scale=group_std",
        ),
        (
            {"recipe": "actor_critic", "recipe_args": {"replay": "none"}},
            "algorithm.advantage_baseline",
            "whose mean cancels it",
        ),
        (
            {
                "recipe": "actor_critic",
                "recipe_args": {"critic": "none"},
                "algorithm__tis_cap": None,
            },
            "algorithm.tis_cap",
            "replayed programs are of older policies",
        ),
        (
            {"algorithm__surrogate": "cispo"},
            "algorithm.dual_clip",
            "algorithm.dual_clip=3, algorithm.surrogate=cispo",
        ),
        (
            {"algorithm__kl_kind": "k2", "algorithm__kl_gradient": "expectation"},
            "algorithm.kl_gradient",
            "algorithm.kl_gradient=expectation, algorithm.kl_kind=k2",
        ),
        (
            {"algorithm__truncated": "zero", "reward__shaping": "raw"},
            "algorithm.truncated",
            "algorithm.truncated=zero, reward.kind=rm, reward.shaping=raw",
        ),
        (
            {"algorithm__truncated": "penalty"},
            "algorithm.truncated_cache_tokens",
            "algorithm.truncated=penalty, algorithm.truncated_cache_tokens=null",
        ),
        (
            {"algorithm__truncated": "penalty", "algorithm__truncated_cache_tokens": 65},
            "algorithm.truncated_cache_tokens",
            "algorithm.truncated_cache_tokens=65, model.max_completion_tokens=64",
        ),
        (
            {"algorithm__truncated_cache_tokens": 8},
            "algorithm.truncated_cache_tokens",
            "algorithm.truncated=score, algorithm.truncated_cache_tokens=8",
        ),
        ({"policy__ranks": 129}, "policy.ranks", "policy.ranks=129"),
        (
            {"algorithm__max_staleness": 1, "algorithm__tis_cap": None},
            "algorithm.tis_cap",
            "algorithm.tis_cap=null, algorithm.max_staleness=1",
        ),
        (
            {"policy__microbatch_tokens": 191, "policy__row_tokens": 0},
            "policy.microbatch_tokens",
            "model.max_prompt_tokens=128, model.max_completion_tokens=64",
        ),
        ({"policy__row_tokens": 32768}, "policy.row_tokens", "policy.row_tokens=32768"),
        (
            {"policy__attention": "flash_attention_2", "policy__row_tokens": 0},
            "policy.attention",
            "placement.device=cpu",
        ),
        ({"policy__attention": "flex_attention"}, "policy.attention", "placement.device=cpu"),
        ({"policy__offload_params": True}, "policy.offload_optimizer", "placement.device=cpu"),
        ({"policy__lora__layers": ["q_proj"]}, "policy.lora.layers", "policy.lora.rank=0"),
        ({"policy__lora__rank": 8, "loop__enabled": True}, "policy.lora.rank", "loop.enabled=true"),
        ({"rollout__tensor_parallel": 2}, "rollout.tensor_parallel", "placement.device=cpu"),
        ({"reward__tensor_parallel": 2}, "reward.tensor_parallel", "placement.device=cpu"),
        ({"placement__num_nodes": 2}, "placement.num_nodes", "placement.kind=laptop"),
        ({"placement__rollout__gpus": 1}, "placement.rollout.gpus", "placement.device=cpu"),
    ],
)
def test_fields_that_contradict_each_other_are_reported_with_their_values(
    quickstart: dict[str, Any], changes: dict[str, object], path: str, got: str
) -> None:
    (fault,) = faults_of(changed(quickstart, **changes))
    assert fault.startswith(f"{path}: ")
    assert got in fault


ON_GPUS = ["placement=one_node", "rollout=gpu", "policy=zero3", "model.dtype=bfloat16"]
ON_ONE_GPU = ["placement=one_gpu", *ON_GPUS[1:]]


@pytest.mark.parametrize(
    ("overrides", "path"),
    [
        ([*ON_GPUS, "++placement.policy.gpus=0"], "placement.policy.gpus"),
        ([*ON_GPUS, "++rollout.tensor_parallel=2"], "placement.rollout.gpus"),
        ([*ON_ONE_GPU, "++placement.reward.gpus=0.5"], "placement.colocate"),
        ([*ON_ONE_GPU, "++placement.reward.gpus=0"], "placement.colocate"),
        ([*ON_ONE_GPU, "++algorithm.max_staleness=1"], "algorithm.max_staleness"),
        ([*ON_ONE_GPU, "++reward.tensor_parallel=2"], "reward.tensor_parallel"),
        (["++placement.colocate=true", "++placement.device=cpu"], "placement.colocate"),
    ],
)
def test_a_layout_on_gpus_that_can_not_work_is_refused(overrides: list[str], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run_config(overrides)
    assert path in [fault.path for fault in caught.value.faults]


def test_flash_attention_is_refused_where_samples_would_attend_to_each_other() -> None:
    in_rows = [*ON_GPUS, "++policy.attention=flash_attention_2", "++policy.row_tokens=256"]
    with pytest.raises(ConfigError) as caught:
        run_config(in_rows)
    (fault,) = caught.value.faults
    assert fault.path == "policy.attention"
    assert "policy.row_tokens=256" in fault.message


def test_flash_attention_is_refused_where_prefixes_have_to_be_shared() -> None:
    flash = [*ON_GPUS, "++policy.attention=flash_attention_2", "++policy.row_tokens=0"]
    with pytest.raises(ConfigError) as caught:
        run_config([*flash, "++policy.share_prefix=on"])
    (fault,) = caught.value.faults
    assert fault.path == "policy.share_prefix"
    assert "policy.share_prefix=on, policy.attention=flash_attention_2" in fault.message


@pytest.mark.parametrize(
    "overrides",
    [
        ON_GPUS,
        [*ON_GPUS, "++policy.attention=flash_attention_2", "++policy.row_tokens=0"],
        [*ON_GPUS, "++policy.attention=sdpa", "++policy.row_tokens=256"],
        [*ON_GPUS, "++policy.attention=flex_attention", "++policy.share_prefix=on"],
        ON_ONE_GPU,
        [*ON_GPUS, "++rollout.tensor_parallel=2", "++placement.rollout.gpus=2"],
        [*ON_GPUS, "reward=execution", "++placement.reward.gpus=0"],
        ["reward=execution", "++reward.model=null"],
        ["reward=hybrid"],
        ["experiment=whole_loop", "++reward.model=null"],
        ["++algorithm.max_staleness=1"],
    ],
)
def test_a_layout_that_works_is_accepted(overrides: list[str]) -> None:
    assert isinstance(run_config(overrides), Config)


@pytest.mark.parametrize("override", ["reward=execution", "++reward.kind=execution"])
def test_execution_shows_no_reward_model_whichever_the_experiment_names(override: str) -> None:
    quickstart, executing = run_config(), run_config([override])
    assert quickstart.reward.model is not None
    assert (executing.reward.kind, executing.reward.execution) == ("execution", "binary")
    assert (executing.reward.model, executing.reward.shaping) == (None, "raw")
    assert executing.reward.adapter == quickstart.reward.adapter


def test_a_hybrid_needs_a_reward_model() -> None:
    assert run_config(["reward=hybrid"]).reward.model == run_config().reward.model
    with pytest.raises(ConfigError, match=r"give reward\.model=DIR"):
        run_config(["reward=hybrid", "++reward.model=null"])


def test_all_faults_are_reported_at_once(quickstart: dict[str, Any]) -> None:
    raw = changed(
        quickstart,
        policy__lr="fast",
        reward__shards=0,
        polcy=1,
        placement__rollout=None,
        algorithm__minibatches_per_step=3,
        policy__row_tokens=32768,
    )
    assert [fault.partition(":")[0] for fault in faults_of(raw)] == [
        "reward.shards",
        "policy.lr",
        "placement.rollout",
        "polcy",
        "algorithm.minibatches_per_step",
        "policy.row_tokens",
    ]


@pytest.mark.parametrize(
    ("recipe", "args", "expected"),
    [
        (
            "cure",
            {"reward": "big"},
            "'big' is not one of mean, strict, sign (give e.g. recipe_",
        ),
        ("cure", {"num_tests": 1}, "1 is not an integer >= 2 (give e.g. recipe_args.num_tests=8)"),
        ("codrlplus", {"drw": 1}, "unknown key; nearest valid: draw"),
        ("grpo", {"anything": 1}, "unknown key; valid: none"),
    ],
)
def test_arguments_of_a_recipe_are_checked_like_keys(
    quickstart: dict[str, Any], recipe: str, args: dict[str, Any], expected: str
) -> None:
    reward = quickstart["reward"] | {"kind": "execution"}
    given = {"recipe": recipe, "recipe_args": args, "reward": reward}
    (fault,) = faults_of(quickstart | given)
    assert fault.startswith(f"recipe_args.{next(iter(args))}: {expected}")


@pytest.mark.parametrize(
    ("kind", "args", "is_fault"),
    [
        ("rm", None, True),
        ("rm", {"programs": "rollouts.parquet"}, False),
        ("execution", None, False),
        ("hybrid", None, False),
    ],
)
def test_a_recipe_that_asks_about_programs_needs_some_with_a_verdict(
    quickstart: dict[str, Any], kind: str, args: dict[str, Any] | None, is_fault: bool
) -> None:
    reward = quickstart["reward"] | {"kind": kind}
    given = {"recipe": "aletheia", "recipe_args": args, "reward": reward}
    if not is_fault:
        assert build_config(quickstart | given).recipe == "aletheia"
        return
    (fault,) = faults_of(quickstart | given)
    assert fault.startswith("recipe: ") and "recipe_args.programs=FILE" in fault


@pytest.mark.parametrize(
    ("kind", "is_fault"), [("rm", True), ("execution", False), ("hybrid", False)]
)
def test_a_recipe_that_asks_what_wrong_programs_do_needs_tests_that_find_them_wrong(
    quickstart: dict[str, Any], kind: str, is_fault: bool
) -> None:
    given = {"recipe": "codrlplus", "reward": quickstart["reward"] | {"kind": kind}}
    if not is_fault:
        assert build_config(quickstart | given).recipe == "codrlplus"
        return
    (fault,) = faults_of(quickstart | given)
    assert fault.startswith("recipe: ") and "give reward=execution" in fault


def test_answers_to_traces_of_variables_are_not_shuffled(quickstart: dict[str, Any]) -> None:
    reward = quickstart["reward"] | {"kind": "execution"}
    args = {"ask": "variables", "answers": "shuffled"}
    given = {"recipe": "codrlplus", "recipe_args": args, "reward": reward}
    (fault,) = faults_of(quickstart | given)
    assert fault.startswith("recipe_args: ") and "recipe_args.ask=output" in fault
    for name in args:
        left = {key: value for key, value in args.items() if key != name}
        assert build_config(quickstart | given | {"recipe_args": left}).recipe == "codrlplus"


def test_lengths_that_no_answer_reaches_are_refused_where_they_would_leave_nothing_to_learn(
    quickstart: dict[str, Any],
) -> None:
    longest = quickstart["model"]["max_completion_tokens"]
    given = {"recipe": "cure", "recipe_args": {"regularise_length": True}}
    (fault,) = faults_of(quickstart | given)
    assert fault.startswith("recipe_args.min_length_tokens: ")
    given["recipe_args"]["min_length_tokens"] = longest - 1
    assert build_config(quickstart | given).recipe == "cure"


@pytest.mark.parametrize(
    ("values", "path", "expected"),
    [
        ({"reward__kind": "remote"}, "reward.url", "need addresses that begin with http"),
        (
            {"reward__kind": "remote", "reward__url": ["http://a", "host:8000"]},
            "reward.url",
            "need addresses that begin with http",
        ),
        (
            {"reward__kind": "generative", "reward__url": ["https://a/v1"]},
            "reward.generative.model",
            "needs the name of the served model",
        ),
        ({"reward__generative__lowest": 10}, "reward.generative.highest", "is below"),
        (
            {"reward__request__token_from": "TOKEN", "ray__env_from": ["HF_TOKEN"]},
            "reward.request.token_from",
            "is one of ray.env_from",
        ),
    ],
)
def test_a_judge_that_is_served_has_addresses_a_model_and_a_token_that_travels(
    quickstart: dict[str, Any], values: dict[str, Any], path: str, expected: str
) -> None:
    (fault,) = faults_of(changed(quickstart, **values))
    assert fault.startswith(f"{path}: ") and expected in fault


def test_a_served_reward_model_is_shaped_and_none_is_loaded_beside_it(
    quickstart: dict[str, Any],
) -> None:
    url = {"reward__url": ["http://a"], "reward__generative__model": "m"}
    remote = build_config(changed(quickstart, reward__kind="remote", **url)).reward
    assert (remote.model, remote.shaping, remote.url) == (None, "softplus", ("http://a",))
    generative = build_config(changed(quickstart, reward__kind="generative", **url)).reward
    assert (generative.model, generative.shaping) == (None, "raw")
    assert build_config(changed(quickstart, **url)).reward.url is None
    by_tests = build_config(changed(quickstart, reward__kind="execution", **url)).reward
    assert by_tests.url is None


def test_a_wrong_recipe_is_one_fault_whatever_its_arguments(quickstart: dict[str, Any]) -> None:
    (fault,) = faults_of(quickstart | {"recipe": "cur", "recipe_args": {"num_tests": 3}})
    assert fault.startswith("recipe: 'cur' is not one of grpo, cure") and "nearest: cure" in fault
    own = quickstart | {"recipe": "my.module:make", "recipe_args": {"x": [1]}}
    assert build_config(own).recipe_args == {"x": [1]}  # it checks its own


@pytest.mark.parametrize(
    ("recipe", "args", "refused"),
    [
        ("sol_ver", None, "zero penalty"),
        ("crpe", None, "zero penalty"),
        ("aletheia", {"learn": "raft"}, "zero penalty"),
        ("aletheia", {"learn": "dpo"}, "zero penalty"),
        ("aletheia", None, ""),
        ("stepcoder", {"learn": "sft"}, "zero penalty"),
        ("stepcoder", None, ""),
        ("sft", {"data": "a.jsonl"}, "zero penalty mask"),
        ("dpo", {"data": "a.jsonl"}, "zero penalty mask"),
    ],
)
def test_what_is_done_with_long_answers_is_refused_where_it_would_do_nothing(
    quickstart: dict[str, Any], recipe: str, args: dict[str, Any] | None, refused: str
) -> None:
    for kind in ("score", "zero", "penalty", "mask"):
        cache = 8 if kind == "penalty" else None
        raw = changed(
            quickstart,
            reward__kind="execution",
            recipe=recipe,
            recipe_args=args,
            algorithm__truncated=kind,
            algorithm__truncated_cache_tokens=cache,
        )
        if kind in refused.split():
            (fault,) = faults_of(raw)
            assert fault.startswith("algorithm.truncated: answers that are imitated or preferred")
        else:
            assert build_config(raw).algorithm.truncated == kind


SERVED = {"reward__kind": "generative", "reward__url": ["http://a"]}
SERVED |= {"reward__generative__model": "m", "reward__generative__read_out": "choice"}
DISTANCE = {"recipe": "aletheia", "recipe_args": {"reward": "distance"}}


@pytest.mark.parametrize(
    ("values", "mend", "path"),
    [
        (
            DISTANCE | {"reward__kind": "execution"},
            {"reward__execution": "pass_rate"},
            "reward.execution",
        ),
        (
            DISTANCE | {"reward__kind": "hybrid"},
            {"reward__early_stop": False},
            "reward.execution",
        ),
        (
            {"recipe": "sol_ver", "recipe_args": {"filter": "gold"}},
            {"reward__kind": "execution"},
            "recipe_args",
        ),
        (
            {"recipe": "sol_ver", "recipe_args": {"filter": "none"}},
            {"recipe_args": {"filter": "none", "learn": "sft"}},
            "recipe_args",
        ),
        (
            {"recipe": "stepcoder", "recipe_args": None},
            {"recipe_args": {"curriculum": "fixed"}},
            "recipe_args",
        ),
        (
            {"recipe": "stepcoder", "recipe_args": {"curriculum": "reverse"}},
            {"reward__kind": "execution"},
            "recipe_args",
        ),
        (
            SERVED
            | {"algorithm__group_size": 1, "algorithm__advantage_baseline": "batch"}
            | {"algorithm__advantage_scale": "batch_std"},
            {"algorithm__group_size": 2},
            "algorithm.group_size",
        ),
    ],
)
def test_what_nothing_would_come_of_is_refused(
    quickstart: dict[str, Any], values: dict[str, Any], mend: dict[str, Any], path: str
) -> None:
    (fault,) = faults_of(changed(quickstart, **values))
    assert fault.startswith(f"{path}: ")
    build_config(changed(quickstart, **values | mend))


def test_what_crpe_needs_is_asked_for_before_a_start(quickstart: dict[str, Any]) -> None:
    by_tests = quickstart | {"reward": quickstart["reward"] | {"kind": "execution"}}
    broken = {"recipe": "crpe", "recipe_args": {"step_end": "("}}
    (fault,) = faults_of(by_tests | broken)
    assert fault.startswith("recipe_args: with recipe=crpe, recipe_args.step_end is a regular")
    (fault,) = faults_of(quickstart | {"recipe": "crpe", "recipe_args": None})
    assert fault.startswith("recipe: recipe=crpe learns from programs that tests call right and")
    assert build_config(by_tests | {"recipe": "crpe", "recipe_args": None}).recipe == "crpe"


def test_a_relation_is_not_judged_when_a_key_of_it_is_wrong(quickstart: dict[str, Any]) -> None:
    raw = changed(quickstart, policy__microbatch_tokens="many", policy__row_tokens=32768)
    assert [fault.partition(":")[0] for fault in faults_of(raw)] == ["policy.microbatch_tokens"]


def test_numbers_are_read_the_way_people_write_them(quickstart: dict[str, Any]) -> None:
    raw = changed(quickstart, policy__lr="3e-4", policy__grad_clip=1, name=7)
    config = build_config(raw)
    assert config.policy.lr == pytest.approx(3e-4)
    assert isinstance(config.policy.grad_clip, float)
    assert config.name == "7"


def test_environment_variables_become_text(quickstart: dict[str, Any]) -> None:
    config = build_config(changed(quickstart, ray__env={"OMP_NUM_THREADS": 1}))
    assert config.ray.env == {"OMP_NUM_THREADS": "1"}


def test_every_key_of_the_schema_has_a_type_that_the_walk_knows() -> None:
    assert all(leaf.rule and leaf.example and leaf.doc for leaf in keys_of(Config))


def test_every_key_without_a_default_has_a_valid_example() -> None:
    required = {leaf.path for leaf in keys_of(Config) if leaf.required and not leaf.choices}
    assert required == set(EXAMPLES)


def test_every_default_satisfies_its_own_rule() -> None:
    with pytest.raises(ConfigError) as caught:
        build(Config, {})
    without_value = {leaf.path for leaf in keys_of(Config) if leaf.required}
    assert {fault.path for fault in caught.value.faults} == without_value


def test_a_small_schema_is_built_by_the_same_rules() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Small:
        model: str = key("directory")
        limit: int = key("lines", 10, ge=1)

    assert build(Small, {"model": "m"}) == Small(model="m", limit=10)
    with pytest.raises(ConfigError) as caught:
        build(Small, {"limits": 3, "limit": 0})
    assert [str(fault) for fault in caught.value.faults] == [
        "model: has no value: directory (give e.g. model=...)",
        "limit: 0 is not an integer >= 1 (give e.g. limit=10)",
        "limits: unknown key; nearest valid: limit",
    ]


@pytest.mark.parametrize("override", ["rollout.top_p=0.95", "rollout.top_k=101"])
def test_truncated_sampling_that_is_not_recorded_is_allowed_with_a_warning(override: str) -> None:
    (caution,) = cautions(run_config([f"++{override}"]))
    assert caution.path == "rollout.top_p"
    assert "importance ratio" in caution.message


@pytest.mark.parametrize("top_p", [1.0, 0.95])
def test_the_sampling_of_the_authors_is_exact(top_p: float) -> None:
    config = run_config([f"++rollout.top_p={top_p}", "++rollout.top_k=20"])
    assert config.rollout.is_exact
    assert cautions(config) == []


def test_a_hybrid_that_has_only_one_judge_or_mixes_their_units_is_allowed_with_a_warning() -> None:
    (caution,) = cautions(run_config(["reward=hybrid"]))
    assert caution.path == "reward.kind"
    parquet = ["data=parquet", "++data.train_path=x", "++data.eval_path=x", "reward=hybrid"]
    assert cautions(run_config(parquet)) == []
    (caution,) = cautions(run_config([*parquet, "++algorithm.advantage_scale=none"]))
    assert caution.path == "algorithm.advantage_scale"


SYNTHETIC = "experiment=synthetic"


def test_a_hybrid_on_tested_and_untested_problems_has_both_of_its_judges() -> None:
    assert cautions(run_config([SYNTHETIC])) == []
    staged = [SYNTHETIC, "++data.num_train=16", "++data.untested_from_step=30"]
    assert cautions(run_config(staged)) == []
    (caution,) = cautions(run_config([*staged, "++algorithm.num_steps=29"]))
    assert caution.path == "data.untested_from_step"


def test_a_step_without_any_tested_problem_needs_none_of_them() -> None:
    run_config([SYNTHETIC, "++data.untested_share=1", "++data.num_train=1", "reward=codescaler"])


@pytest.mark.parametrize(
    ("overrides", "path", "said"),
    [
        (["reward=execution"], "data.untested_path", "set reward=hybrid"),
        (["++loop.enabled=true"], "data.untested_path", "loop.enabled=false"),
        (
            ["++data.untested_share=0.05", "++data.num_train=16"],
            "data.untested_share",
            "two groups with tests and two",
        ),
        (["++data.untested_share=0.95"], "data.untested_share", "two groups with tests and two"),
        (["++algorithm.prompts_per_step=3"], "data.untested_share", "raise algorithm.prompts_per"),
        (
            ["++algorithm.num_refills=1", "++algorithm.min_spread=0.1"],
            "data.untested_path",
            "set algorithm.num_refills=0",
        ),
        (["++data.num_train=7"], "data.num_train", "those without tests left out"),
        (["++data.untested_from_step=2"], "data.num_train", "data.num_train >= prompts_per_step"),
        (
            ["++data.untested_from_step=2", "++data.untested_path=null", "++data.num_train=16"],
            "data.untested_from_step",
            "give data.untested_path=FILE",
        ),
    ],
)
def test_a_mix_that_leaves_a_judge_without_groups_is_refused(
    overrides: list[str], path: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        run_config([SYNTHETIC, *overrides])
    assert [fault.path for fault in caught.value.faults] == [path]
    assert said in str(caught.value)


def test_a_run_that_ends_in_its_warm_up_is_allowed_with_a_warning() -> None:
    (caution,) = cautions(run_config(["++policy.warmup_steps=60"]))
    assert caution.path == "policy.warmup_steps"


def test_a_kl_penalty_without_a_gradient_is_allowed_with_a_warning() -> None:
    (caution,) = cautions(run_config(["++algorithm.kl_kind=k1", "++algorithm.kl_coef=0.1"]))
    assert caution.path == "algorithm.kl_kind"
    assert cautions(run_config(["++algorithm.kl_kind=k1", "++algorithm.kl_coef=0"])) == []
    assert cautions(run_config(["++algorithm.kl_kind=k3", "++algorithm.kl_coef=0.1"])) == []
    whole = ["++algorithm.kl_kind=k1", "++algorithm.kl_gradient=expectation"]
    assert cautions(run_config([*whole, "++algorithm.kl_coef=0.1"])) == []


def test_a_ratio_of_completions_with_what_is_made_for_tokens_is_allowed_with_a_warning() -> None:
    geometric = ["++algorithm.ratio_level=geometric"]
    found = [caution.path for caution in cautions(run_config(geometric))]
    assert found == ["algorithm.clip_eps_high", "algorithm.loss_aggregation"]
    assert cautions(run_config(["algorithm=gspo"])) == []


@pytest.mark.parametrize(
    "file", sorted((CONF_DIR / "algorithm").glob("*.yaml")), ids=lambda file: file.stem
)
def test_an_algorithm_is_chosen_by_its_name_in_every_experiment(file: Path) -> None:
    config = run_config([f"algorithm={file.stem}"])
    sizes = {"defaults", "num_steps", "prompts_per_step", "minibatches_per_step", "kl_coef"}
    for name, value in yaml.safe_load(file.read_text(encoding="utf-8")).items():
        if name not in sizes:  # which an experiment may choose
            expected = float(value) if isinstance(value, str) and "e-" in value else value
            assert getattr(config.algorithm, name) == expected
    assert cautions(config) == []


def test_the_quickstart_gives_no_warning(quickstart: dict[str, Any]) -> None:
    assert cautions(build_config(quickstart)) == []


def test_an_error_survives_pickling_with_its_faults() -> None:
    error = pickle.loads(pickle.dumps(ConfigError([Fault("a", "b"), Fault("c", "d")])))
    assert str(error) == "a: b\nc: d"
    assert error.faults == [Fault("a", "b"), Fault("c", "d")]


def test_no_suggestion_is_better_than_a_wild_one() -> None:
    assert nearest("xyzzy", ["policy.lr", "seed"]) is None


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("rollout__actors", "rollout.engines"),
        ("reward__actors", "reward.shards"),
        ("policy__workers", "policy.ranks"),
        ("policy__learning_rate", "policy.lr"),
        ("policy__lora_rank", "policy.lora.rank"),
        ("policy__lora__target_modules", "policy.lora.layers"),
        ("algorithm__batch_size", "algorithm.prompts_per_step"),
        ("algorithm__num_generations", "algorithm.group_size"),
        ("rollout__n", "algorithm.group_size"),
        ("data__train_files", "data.train_path"),
        ("data__val_files", "data.eval_path"),
        ("data__max_response_length", "model.max_completion_tokens"),
        ("algorithm__adv_estimator", "algorithm.advantage_baseline"),
        ("algorithm__loss_type", "algorithm.loss_aggregation"),
        ("policy__gradient_accumulation_steps", "policy.microbatch_tokens"),
        ("reward__tp", "reward.tensor_parallel"),
        ("policy__save_steps", "checkpoint.every"),
        ("report_to", "trackers"),
        ("reward_pretrain", "reward.model"),
        ("n_samples_per_prompt", "algorithm.group_size"),
    ],
)
def test_the_name_that_other_tools_give_a_key_is_understood(
    quickstart: dict[str, Any], path: str, meant: str
) -> None:
    (fault,) = faults_of(changed(quickstart, **{path: 2}))
    assert fault == f"{path.replace('__', '.')}: unknown key; nearest valid: {meant}"


def test_a_key_of_another_tools_groups_is_understood(quickstart: dict[str, Any]) -> None:
    groups = {"actor_rollout_ref": {"rollout": {"n": 8}}, "trainer": {"total_epochs": 3}}
    assert faults_of({**quickstart, **groups}) == [
        "actor_rollout_ref.rollout.n: unknown key; nearest valid: algorithm.group_size",
        "trainer.total_epochs: unknown key; nearest valid: algorithm.num_steps",
    ]


def test_another_tools_name_is_understood_by_small_commands_too() -> None:
    with pytest.raises(ConfigError, match="n: unknown key; nearest valid: num_samples"):
        build(BestOfNArgs, {"n": 4})


def test_faults_are_told_in_the_words_of_a_command() -> None:
    error = ConfigError([Fault("policy.attention", "set policy.attention=a; policy.attentions")])
    assert str(error.under({"policy.attention": "attention"})) == (
        "attention: set attention=a; policy.attentions"
    )


@pytest.mark.parametrize("name", ["x" * 201, "tries/" + "x" * 201, "\u00e9" * 101])
def test_a_name_that_no_directory_can_have_is_refused(
    quickstart: dict[str, Any], name: str
) -> None:
    (fault,) = faults_of(changed(quickstart, name=name))
    assert "each part of name has at most 200 bytes" in fault
    build_config(changed(quickstart, name="x" * 200))


RM, FORM = {"judge": "rm"}, {"judge": "format", "weight": 0.5}
RANKED = {"judge": "rm", "shaping": "rank"}
OTHER_RM = {"judge": "remote", "url": ["http://a:8000"]}


@pytest.mark.parametrize(
    ("changes", "path", "got"),
    [
        ({"reward__components": None}, "reward.components", "reward.components=null"),
        ({"reward__components": {}}, "reward.components", "adds up what its components say"),
        ({"reward__components": {"a": RM, "b": RM}}, "reward.components", "one reward model"),
        ({"reward__components": {"reason": RM}}, "reward.components", "reason are taken"),
        ({"reward__components": {"a": 3}}, "reward.components.a", "3 stands where"),
        ({"reward__components": {"A b": RM}}, "reward.components.A b", "small letters"),
        (
            {"reward__components": {"a": RM | {"weight": 0}}},
            "reward.components.a.weight",
            "0 leaves the component out",
        ),
        (
            {"reward__components": {"a": {"judge": "fromat"}}},
            "reward.components.a.judge",
            "nearest: format",
        ),
        (
            {"reward__components": {"a": {"weight": 1}}},
            "reward.components.a.judge",
            "give e.g. reward.components.a.judge=rm",
        ),
        (
            {"reward__components": {"a": RM | {"wieght": 1}}},
            "reward.components.a.wieght",
            "nearest valid: weight",
        ),
        (
            {"reward__components": {"a": {"judge": "remote"}}},
            "reward.components.a.url",
            "reward.components.a.url=null",
        ),
        (
            {
                "reward__components": {
                    "a": {"judge": "generative", "url": ["http://a/v1"]},
                }
            },
            "reward.components.a.generative.model",
            "reward.components.a.judge=generative",
        ),
        (
            {"reward__components": {"a": {"judge": "length", "length": {"from_chars": 4000}}}},
            "reward.components.a.length.to_chars",
            "from_chars=4000, to_chars=4000",
        ),
        (
            {"reward__components": {"a": RM}, "reward__model": None},
            "reward.model",
            "reward.kind=sum",
        ),
        (
            {
                "reward__components": {"a": RM, "b": FORM},
                "reward__combine": "normalized",
                "recipe": "cure",
            },
            "reward.combine",
            "recipe=cure",
        ),
        (
            {
                "reward__components": {"a": RM, "b": FORM},
                "reward__combine": "normalized",
                "algorithm__truncated": "penalty",
                "algorithm__truncated_cache_tokens": 8,
            },
            "reward.combine",
            "algorithm.truncated=penalty",
        ),
        (
            {"reward__components": {"a": RM, "b": FORM}, "reward__disagreement_coef": 1},
            "reward.disagreement_coef",
            "reward.disagreement_coef=1",
        ),
        (
            {"reward__components": {"a": RM, "b": OTHER_RM}, "reward__disagreement_coef": 1},
            "reward.disagreement_coef",
            "shaping: rank or sigmoid",
        ),
        (
            {
                "reward__components": {"a": RANKED, "b": OTHER_RM | {"weight": -1}},
                "reward__shaping": "rank",
                "reward__disagreement_coef": 1,
            },
            "reward.disagreement_coef",
            "a positive weight",
        ),
        (
            {
                "reward__components": {"a": RANKED, "b": OTHER_RM | {"shaping": "rank"}},
                "reward__disagreement_coef": 1,
                "reward__combine": "normalized",
            },
            "reward.disagreement_coef",
            "reward.combine=normalized",
        ),
        (
            {"reward__components": {"a": RM, "b": FORM}, "algorithm__truncated": "zero"},
            "algorithm.truncated",
            "reward.kind=sum",
        ),
    ],
)
def test_a_sum_that_cannot_be_meant_is_refused(
    quickstart: dict[str, Any], changes: dict[str, object], path: str, got: str
) -> None:
    (fault,) = faults_of(changed(quickstart, reward__kind="sum", **changes))
    assert fault.startswith(f"{path}: ")
    assert got in fault


def test_two_models_on_one_scale_may_disagree(quickstart: dict[str, Any]) -> None:
    served = OTHER_RM | {"shaping": "rank"}
    components = {"a": RANKED, "b": served, "form": FORM}
    raw = changed(
        quickstart,
        reward__kind="sum",
        reward__components=components,
        reward__disagreement_coef=0.5,
    )
    assert build_config(raw).reward.disagreement_coef == 0.5
    raw["reward"]["kind"] = "rm"
    assert build_config(raw).reward.disagreement_coef == 0


def test_every_judge_of_a_sum_has_its_own_settings_and_the_rest_of_the_run(
    quickstart: dict[str, Any],
) -> None:
    components = {
        "quality": RM | {"shaping": "sigmoid"},
        "tests": {"judge": "execution", "weight": 2, "execution": "pass_rate"},
        "form": FORM,
    }
    raw = changed(quickstart, reward__kind="sum", reward__components=components)
    config = build_config(raw)
    assert to_dict(build_config(to_dict(config))) == to_dict(config)
    reward = config.reward
    assert (reward.uses_model, reward.by_tests, reward.is_served) == (True, True, False)
    quality, tests, form = reward.judges.values()
    assert (quality.kind, quality.shaping, quality.model) == ("rm", "sigmoid", reward.model)
    assert (tests.kind, tests.execution, tests.model) == ("execution", "pass_rate", None)
    assert (form.kind, (reward.components or {})["form"].weight) == ("format", 0.5)
    raw["reward"]["kind"] = "execution"
    assert build_config(raw).reward.components is None


@pytest.mark.parametrize(
    ("weights", "num", "counts"),
    [
        ({"a": 1, "b": 1}, 16, {"a": 8, "b": 8}),
        ({"a": 3, "b": 1}, 16, {"a": 12, "b": 4}),
        ({"a": 1, "b": 1, "c": 1}, 16, {"a": 6, "b": 5, "c": 5}),
        ({"a": 0.5, "b": 0.3, "c": 0.2}, 8, {"a": 4, "b": 2, "c": 2}),
    ],
)
def test_a_step_is_shared_out_by_weight_and_by_largest_remainder(
    quickstart: dict[str, Any], weights: dict[str, float], num: int, counts: dict[str, int]
) -> None:
    raw = of_sources(quickstart, weights)
    config = build_config(changed(raw, algorithm__prompts_per_step=num))
    assert source_counts(config) == counts


def of_sources(raw: dict[str, Any], weights: dict[str, float], **changes: object) -> dict[str, Any]:
    """The configuration with such sources of training problems."""
    sources = {name: {"path": f"{name}.parquet", "weight": w} for name, w in weights.items()}
    given: dict[str, object] = {"data__kind": "parquet", "data__eval_path": "eval.parquet"}
    return changed(raw, **{**given, "data__sources": sources, **changes})


@pytest.mark.parametrize(
    ("weights", "changes", "path", "got"),
    [
        ({"a": 1}, {"data__train_path": "x"}, "data.sources", "data.train_path=x"),
        ({"a": 1, "b": 0.01}, {}, "data.sources", "every source has a problem in each step"),
        (
            {"a": 1},
            {"algorithm__num_refills": 1, "algorithm__min_spread": 0},
            "data.sources",
            "algorithm.num_refills=1",
        ),
        ({"a": 0}, {}, "data.sources.a.weight", "> 0"),
        ({"a": 1}, {"data__eval_sets": {"MBPP+": "x"}}, "data.eval_sets", "small letters"),
    ],
)
def test_sources_and_sets_that_cannot_be_meant_are_refused(
    quickstart: dict[str, Any],
    weights: dict[str, float],
    changes: dict[str, object],
    path: str,
    got: str,
) -> None:
    (fault,) = faults_of(of_sources(quickstart, weights, **changes))
    assert fault.startswith(f"{path}: ")
    assert got in fault


def test_a_number_without_a_bound_of_its_own_has_that_of_its_type() -> None:
    for override in ("seed=2147483648", "algorithm.num_steps=1e10", "policy.deadline_s=1e10"):
        name = override.partition("=")[0]
        with pytest.raises(ConfigError, match=rf"{name}: .*"):
            run_config([override])
    with pytest.raises(ConfigError, match="is not an integer >= 0, at most 2147483647"):
        run_config(["seed=2147483648"])
    assert run_config(["seed=2147483647"]).seed == 2**31 - 1
