"""Wrong overrides through `launch/train.py`: exit code 2, a text with the key, nothing written.

Each is of another kind; the good ones beside them are composed and checked to the end, so that no
rule refuses too much.
"""

from __future__ import annotations

import pytest

from tests.unit.launch.commands import Training

pytestmark = pytest.mark.unit

# Override, and what of the message names the thing and the rule.
WRONG: tuple[tuple[str, str], ...] = (
    ("sede=1", "sede"),
    ("policy.learning_rate=1", "policy.learning_rate"),
    ("nothing.at.all=1", "nothing"),
    ("experiment=quickstat", "quickstart"),
    ("reward=none_such", "is not one of"),
    ("reward=[execution]", "reward"),
    ("placement=moon", "is not one of"),
    ("recipe=grpoo", "recipe"),
    ("recipe=os:no_such", "recipe"),
    ("seed=one", "seed"),
    ("seed=1.5", "seed"),
    ("seed=-1", "seed"),
    ("seed=null", "seed"),
    ("seed=[1]", "seed"),
    ("seed={a: 1}", "seed"),
    ("seed=1e400", "seed"),
    ("seed=true", "seed"),
    ("name=''", "name"),
    ("name=../up", "name"),
    (f"name={'x' * 300}", "name"),
    ("policy.lr=0", "policy.lr"),
    ("policy.lr=nan", "policy.lr"),
    ("policy.lr=inf", "policy.lr"),
    ("policy.lr=fast", "policy.lr"),
    ("policy.ranks=0", "policy.ranks"),
    ("policy.ranks=1000", "1000"),
    ("policy.lr_schedule=zigzag", "policy.lr_schedule"),
    ("policy.attention=none", "policy.attention"),
    ("++policy.lora.rank=-1", "policy.lora.rank"),
    ("++policy.lora={rank: 4, layers: [no_such]}", "no_such"),
    ("algorithm.group_size=0", "algorithm.group_size"),
    ("algorithm.group_size=1", "algorithm.group_size"),
    ("algorithm.num_steps=-1", "algorithm.num_steps"),
    ("algorithm.kind=ppo", "algorithm.kind"),
    ("algorithm.prompts_per_step=0", "algorithm.prompts_per_step"),
    ("algorithm.max_staleness=-1", "algorithm.max_staleness"),
    ("rollout.engines=0", "rollout.engines"),
    ("rollout.temperature=0", "rollout.temperature"),
    ("rollout.top_p=2", "rollout.top_p"),
    ("model.max_prompt_tokens=0", "model.max_prompt_tokens"),
    ("model.max_completion_tokens=100000", "model.max_completion_tokens"),
    ("model.dtype=float8", "model.dtype"),
    ("model.path=''", "model.path"),
    ("model.path=/no/such/model", "model.path"),
    ("model.chat_template=/no/such/file", "model.chat_template"),
    ("model.chat_template='{{ 1 / 0 }}'", "model.chat_template"),
    ("model.chat_template='{% for %}'", "model.chat_template"),
    ("model.chat_template='{{ 1 }}'", "model.chat_template"),
    ("reward.model=/no/such/model", "reward.model"),
    ("reward.model=null", "reward.model"),
    ("reward.max_tokens=100000", "reward.max_tokens"),
    ("reward.adapter=unknown", "reward.adapter"),
    ("reward.adapter=themis", "reward.system"),
    ("reward.shards=0", "reward.shards"),
    ("data=parquet", "data.train_path"),
    ("data.num_train=0", "data.num_train"),
    ("data.level=99", "data.level"),
    ("++ray.env_from=[NO_SUCH_VARIABLE]", "NO_SUCH_VARIABLE"),
    ("++ray.address=http://head:8265", "ray.address"),
    ("output_dir=/dev/null/x", "output_dir"),
    ("resume=perhaps", "resume"),
    ("parts=[a", "is not an override"),
    ("seed", "seed"),
    ("=1", "names no key"),
    ("policy.lr=\uff15", "it cannot be read from '\uff15' on"),
    ("model.path=~/policy", "it cannot be read from '~/policy' on"),
    ("model.path='~/policy'", "no shell has read its ~"),
    ("name=x#y", "it cannot be read from '#y' on"),
    ("seed=${oc.env:NO_SUCH_VARIABLE}", "error: seed: KeyError"),
    ("policy.lr=${algorithm.no_such}", "error: policy.lr: Interpolation key"),
    ("model.path=${no_such:1}", "error: model.path: Unsupported interpolation type"),
    ("model.path=${oc.env:A", "model.path"),
    ("algorithm.num_steps=1e3", "algorithm.num_steps"),
    ("algorithm.group_size='8'", "algorithm.group_size"),
    ("model.path=https://huggingface.co/Qwen/Qwen3-8B", "model.path"),
    ("model.path=s3://bucket/model", "model.path"),
)


@pytest.mark.parametrize(("override", "word"), WRONG, ids=[o[:40] for o, _ in WRONG])
def test_a_wrong_override_is_refused_by_its_name(training: Training, override: str, word: str):
    assert word in training.refusal("dry_run=true", override)


def test_a_cluster_that_does_not_answer_ends_a_run_and_not_its_plan(training: Training):
    address = "++ray.address=127.0.0.1:1"
    text = training.refusal("--multirun", "seed=0,1", address)  # jobs are checked before the first
    assert text.startswith("error: ray.address: the cluster at 127.0.0.1:1 does not answer")
    assert training("dry_run=true", address).code == 0


def test_the_wrong_overrides_are_of_many_kinds():
    assert len({override for override, _ in WRONG}) == len(WRONG) >= 60
    assert len({override.partition("=")[0] for override, _ in WRONG}) >= 40


GOOD = (
    "seed=0",
    "seed=2000000000",
    "name=my-run_1.2",
    "policy.lr=1e-9",
    "policy.lr=1",
    "policy.lr_schedule=constant",
    "policy.warmup_steps=0",
    "policy.weight_decay=0",
    "policy.gradient_checkpointing=true",
    "policy.attention=eager",
    "++policy.lora.rank=4",
    "algorithm.group_size=2",
    "algorithm.num_steps=1",
    "algorithm.max_staleness=1",
    "algorithm.prompts_per_step=1",
    "algorithm.kl_coef=0",
    "rollout.temperature=0.5",
    "rollout.top_p=1",
    "rollout.top_p=0.5",
    "model.max_completion_tokens=16",
    "model.dtype=bfloat16",
    "reward=execution",
    "reward=hybrid",
    "reward.shaping=raw",
    "reward.max_tokens=512",
    "reward.adapter=sequence_classifier",
    "data.num_train=64",
    "probe.every=0",
    "probe.every=1",
    "checkpoint.every=0",
    "checkpoint.every=1",
    "evaluation.num_samples=1",
    "report.every=0",
    "overwrite=true",
    "resume=auto",
    "recipe=grpo",
    "++ray.env={A: b}",
    "experiment=quickstart_execution",
    "experiment=reward_hacking",
    "experiment=whole_loop",
    "experiment=rlvr_rollouts",
    "sandbox.tolerance=0",
)


@pytest.mark.parametrize("override", GOOD)
def test_a_good_override_is_planned(training: Training, override: str):
    code, err = training("dry_run=true", override)
    assert (code, "error: " in err) == (0, False), err


def test_the_good_overrides_are_many():
    assert len(set(GOOD)) >= 40
