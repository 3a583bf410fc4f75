"""Rules that tie several keys together, as data for the check and for the reference."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import PurePath

from conf.algorithm_relations import (
    ALGORITHM_CAUTIONS,
    ALGORITHM_RELATIONS,
    JUDGE_RELATIONS,
    LORA_RELATIONS,
)
from conf.keys import keys_of
from conf.relation import Relation
from conf.rules.arguments import OUTSIDE_RELATIONS
from conf.rules.problems import (
    CURRICULUM_RELATIONS,
    DIFFICULTY_RELATIONS,
    FILE_RELATIONS,
    SOURCE_RELATIONS,
    UNTESTED_CAUTIONS,
    UNTESTED_RELATIONS,
    most_tested,
)
from conf.rules.recipes import RECIPE_RELATIONS
from conf.rules.trackers import TRACKER_RELATIONS
from conf.schema import Config, ResourceConfig


def _owned_gpus(group: str, tensor_parallel: str | None) -> Relation:
    """On GPUs that are not shared an actor owns what its engine spans."""

    def holds(config: Config) -> bool:
        modelless = group == "reward" and not config.reward.uses_model
        if config.placement.device == "cpu" or config.placement.colocate or modelless:
            return True
        spans = {
            "rollout": config.rollout.tensor_parallel,
            "reward": config.reward.tensor_parallel,
            "policy": 1,
        }
        return resources(config)[group].gpus == spans[group]

    own = f"placement.{group}.gpus"
    spanned = f"equals {tensor_parallel}" if tensor_parallel else "is 1"
    extra = (tensor_parallel,) if tensor_parallel else ()
    return Relation(
        path=own,
        involves=(own, *extra, "placement.device", "placement.colocate"),
        rule=f"on cuda without colocate, {own} {spanned}: an actor owns the GPUs of its engine",
        fix=f"set {own}, or placement=one_gpu to share a device",
        holds=holds,
    )


def _no_gpus_on_cpu(group: str) -> Relation:
    own = f"placement.{group}.gpus"
    return Relation(
        path=own,
        involves=(own, "placement.device"),
        rule=f"{own} is 0 when placement.device is cpu",
        fix=f"set {own}=0, or choose a placement with GPUs",
        holds=lambda c: c.placement.device == "cuda" or resources(c)[group].gpus == 0,
    )


def resources(config: Config) -> dict[str, ResourceConfig]:
    """What one actor of each group takes, by name of the group."""
    place = config.placement
    return {"rollout": place.rollout, "reward": place.reward, "policy": place.policy}


def _stays_inside(name: str) -> bool:
    """Whether a path lies below the directory that it is joined to."""
    parts = name.split("/")
    return PurePath(name).as_posix() == name and not {"", ".", ".."} & set(parts)


MAX_NAME_BYTES = 200  # of a part of a name: ".old-20260131-235959" and the like come after it


def _has_short_parts(name: str) -> bool:
    return all(len(part.encode()) <= MAX_NAME_BYTES for part in name.split("/"))


def _is_of_keys(pattern: str) -> bool:
    """Whether a pattern matches some key of a run."""
    return any(fnmatchcase(key.path, pattern) for key in keys_of(Config))


SECRET_WORDS = frozenset({"TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "CREDENTIALS"})


def is_secret(name: str) -> bool:
    """Whether an environment variable of this name probably holds a secret.

    >>> is_secret("WANDB_API_KEY"), is_secret("TOKENIZERS_PARALLELISM")
    (True, False)
    """
    words = name.upper().split("_")
    return bool(SECRET_WORDS & set(words)) or words[-1] in {"KEY", "PAT"}


def _shares_fit(config: Config) -> bool:
    shares = [resource.gpus for resource in resources(config).values()]
    fits = min(shares) > 0 and sum(shares) <= 1 + 1e-9  # the sum of three decimal fractions
    return not config.placement.colocate or fits


def _minibatch_feeds_ranks(config: Config) -> bool:
    algorithm = config.algorithm
    samples = algorithm.prompts_per_step * algorithm.group_size // algorithm.minibatches_per_step
    return samples >= config.policy.ranks


SHARES = ("placement.rollout.gpus", "placement.reward.gpus", "placement.policy.gpus")

RELATIONS: tuple[Relation, ...] = (
    Relation(
        path="name",
        involves=("name",),
        rule="name is a path below output_dir/experiment",
        fix="give a name such as name=run or name=tries/first",
        holds=lambda c: _stays_inside(c.name),
    ),
    Relation(
        path="name",
        involves=("name",),
        rule=f"each part of name has at most {MAX_NAME_BYTES} bytes, as it names a directory",
        fix="give a shorter one",
        holds=lambda c: _has_short_parts(c.name),
    ),
    Relation(
        path="overwrite",
        involves=("overwrite", "resume"),
        rule="a run goes on with the steps of its directory (resume=auto), or overwrites them",
        fix="leave out one of the two",
        holds=lambda c: not c.overwrite or c.resume == "never",
    ),
    Relation(
        path="resume_allow",
        involves=("resume_allow", "resume"),
        rule="resume_allow says what a resumed run may change, so it needs resume=auto",
        fix="give resume=auto, or no resume_allow",
        holds=lambda c: c.resume_allow is None or c.resume == "auto",
    ),
    Relation(
        path="resume_allow",
        involves=("resume_allow",),
        rule="each of resume_allow is a key of the run, or a pattern of some",
        fix="give the key as the refusal of the resumed run names it",
        holds=lambda c: all(map(_is_of_keys, c.resume_allow or ())),
    ),
    Relation(
        path="ray.env",
        involves=("ray.env",),
        rule="ray.env is stored with the run and shown, so it holds no secrets",
        fix="export the variable, and give its name instead: ray.env_from=[HF_TOKEN]",
        holds=lambda c: not any(map(is_secret, c.ray.env)),
    ),
    *FILE_RELATIONS,
    Relation(
        path="data.level",
        involves=("data.level", "data.kind", "loop.enabled"),
        rule="levels are those of data.kind=minipy, and the loop makes flat problems",
        fix="give data.level=flat, or data=minipy and loop.enabled=false",
        holds=lambda c: c.data.level == "flat" or (c.data.kind == "minipy" and not c.loop.enabled),
    ),
    Relation(
        path="data.num_train",
        involves=("data.kind", "data.num_train", "algorithm.prompts_per_step"),
        rule="each group of a step has its own problem: data.num_train >= prompts_per_step, "
        "those without tests left out",
        fix="raise data.num_train, or lower algorithm.prompts_per_step",
        holds=lambda c: c.data.kind != "minipy" or c.data.num_train >= most_tested(c),
    ),
    *DIFFICULTY_RELATIONS,
    *CURRICULUM_RELATIONS,
    *TRACKER_RELATIONS,
    *RECIPE_RELATIONS,
    *SOURCE_RELATIONS,
    *UNTESTED_RELATIONS,
    Relation(
        path="probe.path",
        involves=("probe.path", "data.kind"),
        rule="minipy makes the problems of its probe, so probe.path needs data.kind=parquet",
        fix="remove probe.path, or give data=parquet",
        holds=lambda c: c.probe.path is None or c.data.kind == "parquet",
    ),
    Relation(
        path="sandbox.tolerance",
        involves=("sandbox.protocol", "sandbox.tolerance"),
        rule="protocols other than default compare numbers by rules of their own",
        fix="leave out sandbox.tolerance, or give sandbox.protocol=default",
        holds=lambda c: c.sandbox.tolerance is None or c.sandbox.protocol == "default",
    ),
    Relation(
        path="reward.model",
        involves=("reward.kind", "reward.model", "loop.enabled"),
        rule="reward.kind=rm and hybrid need reward.model, as a component with the judge rm does, "
        "unless the loop makes one",
        fix="give reward.model=DIR, or reward=execution",
        holds=lambda c: not c.reward.uses_model or bool(c.reward.model) or c.loop.enabled,
    ),
    Relation(
        path="loop.enabled",
        involves=("loop.enabled", "data.kind"),
        rule="the loop makes its own problems, so loop.enabled needs data.kind=minipy",
        fix="set data=minipy, or loop.enabled=false",
        holds=lambda c: not c.loop.enabled or c.data.kind == "minipy",
    ),
    *JUDGE_RELATIONS,
    *OUTSIDE_RELATIONS,
    *ALGORITHM_RELATIONS,
    Relation(
        path="policy.ranks",
        involves=(
            "policy.ranks",
            "algorithm.prompts_per_step",
            "algorithm.group_size",
            "algorithm.minibatches_per_step",
        ),
        rule="a minibatch has at least one sample for each of policy.ranks",
        fix="lower policy.ranks or algorithm.minibatches_per_step",
        holds=_minibatch_feeds_ranks,
    ),
    Relation(
        path="policy.microbatch_tokens",
        involves=(
            "policy.microbatch_tokens",
            "model.max_prompt_tokens",
            "model.max_completion_tokens",
        ),
        rule="the longest prompt with the longest completion fits in policy.microbatch_tokens",
        fix="raise policy.microbatch_tokens to at least their sum",
        holds=lambda c: (
            c.model.max_prompt_tokens + c.model.max_completion_tokens <= c.policy.microbatch_tokens
        ),
    ),
    Relation(
        path="policy.row_tokens",
        involves=("policy.row_tokens", "policy.microbatch_tokens"),
        rule="policy.row_tokens <= policy.microbatch_tokens",
        fix="lower policy.row_tokens; 0 packs a microbatch into one row",
        holds=lambda c: c.policy.row_tokens <= c.policy.microbatch_tokens,
    ),
    Relation(
        path="policy.attention",
        involves=("policy.attention", "placement.device", "model.dtype"),
        rule="flash_attention_2 needs placement.device=cuda and model.dtype=bfloat16",
        fix="set policy.attention=sdpa",
        holds=lambda c: (
            c.policy.attention != "flash_attention_2"
            or (c.placement.device == "cuda" and c.model.dtype == "bfloat16")
        ),
    ),
    Relation(
        path="policy.attention",
        involves=("policy.attention", "policy.row_tokens"),
        # transformers tells packed samples from `position_ids` only when a batch has one row.
        rule=(
            "flash_attention_2 needs policy.row_tokens=0: with several rows, samples of one row "
            "would attend to each other"
        ),
        fix="set policy.row_tokens=0, or policy.attention=sdpa",
        holds=lambda c: c.policy.attention != "flash_attention_2" or c.policy.row_tokens == 0,
    ),
    Relation(
        path="policy.attention",
        involves=("policy.attention", "placement.device"),
        rule="flex_attention needs placement.device=cuda: on a CPU it has no backward pass",
        fix="set policy.attention=sdpa",
        holds=lambda c: c.policy.attention != "flex_attention" or c.placement.device == "cuda",
    ),
    Relation(
        path="policy.share_prefix",
        involves=("policy.share_prefix", "policy.attention"),
        rule="flash_attention_2 takes no mask of a tree, so it shares no prefixes",
        fix="set policy.attention=flex_attention, or policy.share_prefix=auto",
        holds=lambda c: c.policy.share_prefix != "on" or c.policy.attention != "flash_attention_2",
    ),
    Relation(
        path="policy.offload_optimizer",
        involves=("policy.offload_optimizer", "policy.offload_params", "placement.device"),
        rule="on a CPU there is no other memory to offload to",
        fix="set policy.offload_optimizer=false policy.offload_params=false",
        holds=lambda c: (
            c.placement.device == "cuda"
            or not (c.policy.offload_optimizer or c.policy.offload_params)
        ),
    ),
    *LORA_RELATIONS,
    Relation(
        path="rollout.tensor_parallel",
        involves=("rollout.tensor_parallel", "placement.device", "placement.colocate"),
        rule="rollout.tensor_parallel > 1 needs GPUs that are not shared",
        fix="set rollout.tensor_parallel=1",
        holds=lambda c: (
            c.rollout.tensor_parallel == 1
            or (c.placement.device == "cuda" and not c.placement.colocate)
        ),
    ),
    Relation(
        path="reward.tensor_parallel",
        involves=("reward.tensor_parallel", "placement.device", "placement.colocate"),
        rule="reward.tensor_parallel > 1 needs GPUs that are not shared",
        fix="set reward.tensor_parallel=1",
        holds=lambda c: (
            c.reward.tensor_parallel == 1
            or (c.placement.device == "cuda" and not c.placement.colocate)
        ),
    ),
    Relation(
        path="placement.num_nodes",
        involves=("placement.num_nodes", "placement.kind"),
        rule="placement.num_nodes is 1, except with placement.kind=multi_node",
        fix="choose placement=multi_node, or placement.num_nodes=1",
        holds=lambda c: c.placement.num_nodes == 1 or c.placement.kind == "multi_node",
    ),
    Relation(
        path="placement.colocate",
        involves=("placement.colocate", "placement.device"),
        rule="placement.colocate shares GPUs, so it needs placement.device=cuda",
        fix="set placement.colocate=false",
        holds=lambda c: not c.placement.colocate or c.placement.device == "cuda",
    ),
    Relation(
        path="placement.colocate",
        involves=("placement.colocate", *SHARES),
        rule="GPU shares of colocated groups are > 0 and add up to at most 1",
        fix="set e.g. 0.3 for each",
        holds=_shares_fit,
    ),
    *(_no_gpus_on_cpu(group) for group in ("rollout", "reward", "policy")),
    _owned_gpus("rollout", "rollout.tensor_parallel"),
    _owned_gpus("reward", "reward.tensor_parallel"),
    _owned_gpus("policy", None),
)

CAUTIONS: tuple[Relation, ...] = (
    *ALGORITHM_CAUTIONS,
    *UNTESTED_CAUTIONS,
    Relation(
        path="reward.kind",
        involves=("reward.kind", "data.kind"),
        rule="every problem of data.kind=minipy has tests, so a hybrid never asks its reward model",
        fix="set reward=execution, or give problems without tests (data.untested_path)",
        holds=lambda c: (
            c.reward.kind != "hybrid" or c.data.kind != "minipy" or c.data.untested_path is not None
        ),
    ),
    Relation(
        path="policy.warmup_steps",
        involves=(
            "policy.warmup_steps",
            "algorithm.num_steps",
            "algorithm.minibatches_per_step",
        ),
        rule="the run ends before its warm-up does",
        fix="lower policy.warmup_steps",
        holds=lambda c: (
            c.policy.warmup_steps < c.algorithm.num_steps * c.algorithm.minibatches_per_step
        ),
    ),
)
