"""Arguments that a run passes through are those that the library takes, and contradict no key."""

from __future__ import annotations

import pytest

from actors.engines.given import library_faults
from actors.groups.fleet import reward_spec, rollout_spec
from actors.plan.checks import engine_args
from actors.plan.checks.engine_args import check_engine_args
from conf.errors import UserError
from tests.settings import run_config

pytestmark = pytest.mark.unit


def refusal(*overrides: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        check_engine_args(run_config(overrides))
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("rollout.engine_args={max_num_seqs: 8}", "rollout.max_num_seqs"),
        ("rollout.engine_args={dtype: half}", "model.dtype"),
        ("reward.engine_args={dtype: half}", "reward.dtype"),
        ("reward.engine_args={data_parallel_size: 2}", "reward.shards"),
        ("rollout.engine_args={trust_remote_code: true}", "is never run"),
        ("rollout.engine_args={enable_chunked_prefill: true}", "cannot be rewound"),
        ("policy.deepspeed={gradient_clipping: 1}", "policy.grad_clip"),
        ("policy.deepspeed={bf16: {enabled: true}}", "model.dtype"),
        ("policy.deepspeed={zero_optimization: {stage: 2}}", "none: it is 3"),
        (
            "policy.deepspeed={zero_optimization: {offload_param: {device: cpu}}}",
            "policy.offload_params",
        ),
    ],
)
def test_what_a_key_of_the_run_says_is_refused_with_that_key(override: str, what: str) -> None:
    (line,) = refusal(f"++{override}")
    assert line.startswith(override.partition("=")[0])
    assert what in line


def test_vllms_own_classes_find_unknown_names_and_wrong_types() -> None:
    given = "{max_num_batched_tokns: 5, block_size: 16, compilation_config: {mdoe: 0}}"
    assert refusal(f"++rollout.engine_args={given}") == [
        "rollout.engine_args.max_num_batched_tokns: vllm has no such argument; nearest: "
        "max_num_batched_tokens",
        "rollout.engine_args.compilation_config.mdoe: Unexpected keyword argument; nearest: mode",
    ]


def test_deepspeeds_own_classes_find_unknown_names_and_wrong_types() -> None:
    given = "{zero_optimization: {reduce_bucket_size: many, sub_group_siz: 1}, prescale: true}"
    first, second, third = refusal(f"++policy.deepspeed={given}")
    assert first.startswith("policy.deepspeed.zero_optimization.reduce_bucket_size: ")
    assert second.endswith("nearest: sub_group_size")
    assert third.startswith("policy.deepspeed.prescale: deepspeed has no such argument")
    good = {"zero_optimization": {"stage3_prefetch_bucket_size": 100}}
    assert list(library_faults("deepspeed", good)) == []


def test_nothing_is_loaded_where_nothing_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_args, "_asked_of", pytest.fail)
    check_engine_args(run_config())
    # Nor for a reward model that is not used.
    check_engine_args(run_config(["reward=execution", "++reward.engine_args={block_size: 32}"]))


def test_what_is_given_reaches_the_engines_of_its_group_alone() -> None:
    cfg = run_config(["++rollout.engine_args={block_size: 16}", "++reward.model=DIR"])
    assert rollout_spec(cfg, "DIR", trains=True).given == {"block_size": 16}
    assert reward_spec(cfg.reward, cfg.placement, cfg.seed).given == {}
