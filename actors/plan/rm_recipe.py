"""The recipe of a reward model: learning rate, passes and microbatch by the size of its base."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from math import log
from pathlib import Path
from typing import Any

from actors.plan.checks.engine_support import dtype_of
from actors.plan.layout.memory import DTYPE_BYTES, GIB, microbatch_within
from actors.plan.layout.model_shape import ModelShape
from actors.plan.reward_group import default_context
from conf.commands.train_rm import TrainRmArgs
from conf.errors import UserError
from conf.offline import offline_config
from conf.schema import Config, PolicyConfig, RewardConfig
from conf.validate import ConfigError
from reward.model.files import is_local, read_system
from reward.pairs.pairs import Pair, pairs_digest
from rl.text.hub_files import model_digest

# What the learning rate was on two models of very different size: the tiny one of minipy (here) and
# CodeScaler-8B's base (Skywork-Reward-V2, arXiv 2507.01352, appendix E). Between them it falls
# with a power of the size, which gives 3e-6 for 1.7 B (Skywork: 4e-6) and 1.7e-5 for 135 M.
_TINY, _LARGE = (0.85e6, 6e-4), (8.2e9, 1e-6)
_RANKS = "ranks"


def configure(args: TrainRmArgs, shape: ModelShape | None) -> Config:
    """The configuration of the ranks; the other groups are not started."""
    on_cpu = args.placement == "laptop"
    dtype = dtype_of(args.dtype, args.placement)
    max_tokens = args.max_tokens or default_context(args.model)
    chosen = {
        "placement": args.placement,
        "policy": "cpu" if on_cpu else "zero3",
        "reward": "codescaler",
    }
    keys = {
        "policy.attention": args.attention,
        "policy.share_prefix": args.share_prefix,
        "model.dtype": dtype,
        "reward.model": args.model,
        "reward.adapter": args.adapter,
        "reward.dtype": dtype,
        "reward.max_tokens": max_tokens,
        "reward.system": read_system(args.system, "system"),
    }
    try:
        base = offline_config(chosen, keys)
    except ConfigError as error:  # in the words of this command, where each key is its last part
        raise error.under({path: path.rpartition(".")[2] for path in keys}) from error
    pair_tokens = 2 * max_tokens
    ranks = args.ranks or {"laptop": 2, "one_gpu": 1}.get(args.placement, 8)
    lr = args.lr
    if lr is None:
        assert shape is not None  # check_arguments
        lr = lr_of_size(shape.num_parameters)
    policy = replace(
        base.policy,
        ranks=ranks,
        lr=lr,
        weight_decay=args.weight_decay,
        # Without flash attention a row has a dense mask, so it is no longer than it must be.
        row_tokens=(
            0 if args.attention == "flash_attention_2" else base.policy.row_tokens or pair_tokens
        ),
        gradient_checkpointing=args.gradient_checkpointing,
        offload_optimizer=args.offload_optimizer,
        cpu_threads=args.cpu_threads,
    )
    tokens = args.microbatch_tokens or _microbatch(shape, policy, dtype, on_cpu=on_cpu)
    return replace(
        base,
        seed=args.seed,
        policy=replace(policy, microbatch_tokens=max(tokens, pair_tokens)),
    )


def _microbatch(shape: ModelShape | None, policy: PolicyConfig, dtype: str, *, on_cpu: bool) -> int:
    if shape is None or shape.dimensions is None:
        return 1  # two contexts
    budget = 2 * GIB if on_cpu else 16 * GIB
    return microbatch_within(shape.dimensions, policy, DTYPE_BYTES[dtype], budget)


def lr_of_size(num: int) -> float:
    """Learning rate for a model of `num` parameters: a power law through two known points.

    >>> f"{lr_of_size(850_000):.0e} {lr_of_size(135_000_000):.1e} {lr_of_size(8_200_000_000):.0e}"
    '6e-04 1.8e-05 1e-06'
    """
    (small, fast), (large, slow) = _TINY, _LARGE
    return fast * (num / small) ** (log(slow / fast) / log(large / small))


def epochs_of_size(num: int | None) -> int:
    """Passes over the pairs: large models learn them by heart in a second one.

    `num` parameters; None where that is not known, as of a hub id without a size in its name.

    >>> epochs_of_size(850_000), epochs_of_size(135_000_000), epochs_of_size(8_200_000_000)
    (6, 2, 1)
    """
    if num is None or num >= 10**9:
        return 1
    return 2 if num >= 10**7 else 6


def settings_of(
    args: TrainRmArgs,
    policy: PolicyConfig,
    reward: RewardConfig,
    train: list[Pair],
    validation: list[Pair],
) -> dict[str, object]:
    """Whatever the weights depend on."""
    places = {"output", "resume", "overwrite", "data"}
    ways = {"placement", "cpu_threads", "checkpoint_every", "dry_run"}
    given = {name: value for name, value in asdict(args).items() if name not in places | ways}
    return given | {
        "model": model_digest(Path(args.model)) if is_local(args.model) else args.model,
        "train_pairs": pairs_digest(train),
        "validation_pairs": pairs_digest(validation),
        "lr": policy.lr,
        "dtype": reward.dtype,
        "max_tokens": reward.max_tokens,
        _RANKS: policy.ranks,
        "microbatch_tokens": policy.microbatch_tokens,
    }


def check_settings(before: Mapping[str, Any], now: Mapping[str, Any], where: Path) -> str:
    """What a training that goes on from `where` may change and does, in words.

    The ranks are dealt what is in a checkpoint, however many wrote it.

    Raises:
        UserError: naming whatever else differs.
    """
    stored = json.loads(json.dumps(dict(now)))
    different = [n for n in sorted({*stored, *before}) if stored.get(n) != before.get(n)]
    faults = [
        f"{name}: {where} was trained with {before.get(name)}, and now it is {stored.get(name)}; "
        "give the same value, another output=, or resume=never"
        for name in different
        if name != _RANKS
    ]
    if faults:
        raise UserError("\n".join(faults))
    return f"{_RANKS} {before.get(_RANKS)} -> {stored.get(_RANKS)}" if different else ""
