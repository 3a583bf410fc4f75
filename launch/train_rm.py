"""Preference pairs -> reward model: `python launch/train_rm.py data=PAIRS model=BASE output=DIR`.

Bradley-Terry on DeepSpeed ZeRO-3 ranks, from a causal language model or a sequence classifier. The
output is a Hugging Face sequence classifier with a card; docs/reward_model.md describes the keys.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from math import log
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from actors.plan.engine_support import EngineNeeds, device_of, engine_note
from actors.plan.model_shape import ModelShape, shape_of
from conf.errors import UserError
from conf.schema import Config, PolicyConfig, key
from launch.common.arguments import REWARD_KEYS, default_context
from launch.common.cli import compose_config, main_simple
from launch.common.outputs import check_output_dir
from reward.model.directory import check_trainable
from reward.model.files import (
    AdapterName,
    check_context,
    check_family,
    check_has_template,
    find_model,
    is_local,
    model_digest,
    read_system,
)
from reward.model.loading import check_attention, check_tensors
from reward.pairs.pairs import Pair, load_pairs, pairs_digest, split_by_prompt
from rl.base.console import Console
from rl.loss import PairObjective

RESULT = "training.json"
# What the learning rate was on two models of very different size: the tiny one of minipy (here) and
# CodeScaler-8B's base (Skywork-Reward-V2, arXiv 2507.01352, appendix E). Between them it falls
# with a power of the size, which gives 3e-6 for 1.7 B (Skywork: 4e-6) and 1.7e-5 for 135 M.
_TINY, _LARGE = (0.85e6, 6e-4), (8.2e9, 1e-6)


@dataclass(frozen=True, kw_only=True)
class TrainRmArgs:
    """What `launch/train_rm.py` takes."""

    data: str = key(
        "preference pairs: a directory of launch/mine_pairs.py, a parquet file, or a hub id"
    )
    model: str = key("directory or hub id of the base: a causal language model or a classifier")
    output: str = key("directory of the reward model")
    validation_share: float = key(
        "share of the problems held out, where the data have no validation part", 0.1, ge=0, le=1
    )
    adapter: AdapterName = key(
        "family of the reward model: system prompt and template", "sequence_classifier"
    )
    system: str | None = key(
        "file with the system turn of the reward model, which it is asked with ever after",
        None,
    )
    max_tokens: int | None = key(
        "context of the reward model, problem and code, in tokens; longer pairs are left out; "
        "null is the model's own, at most 4096",
        None,
        ge=8,
    )
    dtype: Literal["auto", "float32", "bfloat16"] = key(
        "data type of weights and activations; auto is float32 on a CPU, else bfloat16", "auto"
    )
    lr: float | None = key("peak learning rate; null goes by the number of parameters", None, gt=0)
    epochs: int | None = key(
        "passes over the pairs; null goes by the number of parameters: 6 below 10 million, "
        "1 above a billion, else 2",
        None,
        ge=1,
    )
    batch_pairs: int = key("pairs of one optimizer step", 64, ge=1)
    weight_decay: float = key("weight decay of AdamW", 0.0, ge=0)
    margin: float = key("margin by which the chosen score has to be higher", 0.0, ge=0)
    centring: float = key("weight of (chosen + rejected score)^2", 1e-4, ge=0)
    lm_coef: float = key("weight of the language-model loss on the chosen code", 0.0, ge=0)
    share_prefix: Literal["auto", "on", "off"] = key(
        "whether both programs of a pair share one copy of the problem; auto does where it "
        "saves a tenth of the tokens",
        "auto",
    )
    evaluate_every: int | None = key(
        "steps between validations; the best model is kept; null is an eighth of the training",
        None,
        ge=1,
    )
    checkpoint_every: int = key("steps between checkpoints; 0 keeps none", 0, ge=0)
    resume: Literal["auto", "never"] = key(
        "whether an earlier training is continued after its newest checkpoint (auto) or "
        "replaced (never)",
        "never",
    )
    seed: int = key("seed of the order, the split and a new score head", 0, ge=0)
    placement: Literal["laptop", "one_gpu", "one_node", "multi_node"] = key(
        "layout of the ranks", "laptop"
    )
    ranks: int | None = key("ZeRO-3 ranks; null is 2 on a laptop, 1 on one GPU, else 8", None, ge=1)
    cpu_threads: int = key("threads of one rank on a CPU", 1, ge=1)
    microbatch_tokens: int | None = key(
        "tokens of one forward/backward of a rank, at least two contexts; null goes by the model: "
        "activations of 2 GiB on a CPU, else 16",
        None,
        ge=16,
    )
    attention: Literal["sdpa", "flash_attention_2", "eager"] = key(
        "attention kernel; flash attention shares no prefixes", "sdpa"
    )
    gradient_checkpointing: bool = key(
        "whether activations are recomputed in the backward pass", False
    )
    offload_optimizer: bool = key("whether the optimizer state is kept in host memory", False)


def run(args: TrainRmArgs) -> None:
    """Train the reward model."""
    output = check_output_dir(args.output)
    if args.resume == "auto" and (output / RESULT).is_file():
        sys.stdout.write(f"{output} is finished; resume=never trains it again\n")
        return
    shape = shape_of(args.model, scores=True)
    check_arguments(args, shape)
    train, validation = load_pairs(args.data)
    if validation is None:
        train, validation = split_by_prompt(train, args.validation_share, args.seed)
        if not train:
            raise UserError(
                f"validation_share={args.validation_share}: leaves no problem of {args.data} to "
                "train on; lower it"
            )
    if not train:
        raise UserError(
            f"data: all problems of {args.data} are held out for validation; mine more, or "
            "with a lower validation_share"
        )
    cfg = configure(args, shape)
    from actors.cluster.placement import Needs  # noqa: PLC0415
    from actors.plan.checks import preflight  # noqa: PLC0415 - after the arguments are good
    from actors.plan.rehearsal import rehearse  # noqa: PLC0415
    from actors.stages.rm_training import RmTraining, run_training  # noqa: PLC0415

    preflight(cfg, Needs(policy=cfg.policy.ranks))
    becomes = rehearse(args.model, "model", "score", num_tokens=cfg.reward.max_tokens, saves=True)
    if becomes is not None:
        _say_what_scores(args, becomes)
    epochs = args.epochs or epochs_of_size(None if shape is None else shape.num_parameters)
    steps = epochs * max(1, len(train) // args.batch_pairs)
    job = RmTraining(
        model=args.model,
        directory=output,
        train=tuple(train),
        validation=tuple(validation),
        objective=PairObjective(margin=args.margin, centring=args.centring, lm_coef=args.lm_coef),
        lr=cfg.policy.lr,
        epochs=epochs,
        batch_pairs=args.batch_pairs,
        share_prefix={"auto": None, "on": True, "off": False}[args.share_prefix],
        evaluate_every=args.evaluate_every or max(1, steps // 8),
        checkpoint_every=args.checkpoint_every,
        resume=args.resume == "auto",
        settings=settings_of(replace(args, epochs=epochs), cfg, train, validation),
    )
    run_training(cfg, job, output / RESULT)


def _say_what_scores(args: TrainRmArgs, architecture: str) -> None:
    """Say it before the training where no engine here can hold what comes out."""
    needs = EngineNeeds("pooling", device_of(args.placement))
    note = engine_note(Path(args.model), architecture, needs)
    if note is not None:
        Console().say(note)


def check_arguments(args: TrainRmArgs, shape: ModelShape | None) -> None:
    """Refuse what cannot work, before anything is read or started."""
    directory = find_model(args.model, "model")
    _check_output(Path(args.output), directory)
    check_family(args.adapter, read_system(args.system, "system"), REWARD_KEYS)
    if directory is not None:
        check_has_template(directory, "model", "put a chat_template.jinja beside it")
        check_trainable(directory, "model")
    if directory is not None and args.max_tokens is not None:
        check_context(directory, args.max_tokens, "max_tokens")
    if directory is not None:
        check_tensors(directory, "model", "score")
        check_attention(directory, "attention", "score", args.attention)
    if shape is None and args.lr is None:
        raise UserError(
            f"lr: null goes by the number of parameters, which neither the files nor the name of "
            f"model={args.model} tell; give lr="
        )
    if args.attention == "flash_attention_2" and args.share_prefix == "on":
        raise UserError(
            "share_prefix=on: flash attention takes no mask of its own; set attention=sdpa, or "
            "share_prefix=auto"
        )
    if args.resume == "auto" and not args.checkpoint_every:
        raise UserError(
            "resume=auto: checkpoint_every=0 keeps nothing to go on from; set checkpoint_every"
        )


def _check_output(output: Path, base: Path | None) -> None:
    """Refuse a directory in which the training would overwrite or drop what is not its own."""
    if base is not None and base.resolve() == output.resolve():
        raise UserError(f"output: {output} is the base model itself; give another directory")
    if (output / "config.yaml").is_file():
        raise UserError(
            f"output: {output} is the directory of a run, whose checkpoints would be dropped; give "
            "another directory"
        )


def configure(args: TrainRmArgs, shape: ModelShape | None) -> Config:
    """The configuration of the ranks; the other groups are not started."""
    on_cpu = args.placement == "laptop"
    dtype = args.dtype
    if dtype == "auto":
        dtype = "float32" if on_cpu else "bfloat16"
    base = compose_config(
        [
            f"placement={args.placement}",
            f"policy={'cpu' if on_cpu else 'zero3'}",
            f"++policy.attention={args.attention}",
            f"++model.dtype={dtype}",
        ]
    )
    max_tokens = args.max_tokens or default_context(args.model)
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
        reward=replace(
            base.reward,
            model=args.model,
            adapter=args.adapter,
            dtype=dtype,
            max_tokens=max_tokens,
            system=read_system(args.system, "system"),
        ),
        policy=replace(policy, microbatch_tokens=max(tokens, pair_tokens)),
    )


def _microbatch(shape: ModelShape | None, policy: PolicyConfig, dtype: str, *, on_cpu: bool) -> int:
    from actors.plan.memory import DTYPE_BYTES, GIB, microbatch_within  # noqa: PLC0415 - after arguments

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
    args: TrainRmArgs, cfg: Config, train: list[Pair], validation: list[Pair]
) -> dict[str, object]:
    """Whatever the weights depend on."""
    places = ("output", "resume", "placement", "cpu_threads", "checkpoint_every", "data")
    given = {name: value for name, value in asdict(args).items() if name not in places}
    return given | {
        "model": model_digest(Path(args.model)) if is_local(args.model) else args.model,
        "train_pairs": pairs_digest(train),
        "validation_pairs": pairs_digest(validation),
        "lr": cfg.policy.lr,
        "dtype": cfg.reward.dtype,
        "max_tokens": cfg.reward.max_tokens,
        "ranks": cfg.policy.ranks,
        "microbatch_tokens": cfg.policy.microbatch_tokens,
    }


if __name__ == "__main__":
    sys.exit(main_simple(TrainRmArgs, run))
