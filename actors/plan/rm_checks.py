"""What a training of a reward model refuses before anything is read or started."""

from __future__ import annotations

from pathlib import Path

from actors.plan.layout.model_shape import ModelShape
from actors.plan.reward_group import REWARD_KEYS
from conf.commands.train_rm import TrainRmArgs
from conf.errors import UserError
from reward.model.directory import check_trainable
from reward.model.files import (
    check_context,
    check_family,
    check_has_template,
    find_model,
    read_system,
)
from reward.model.loading import check_attention, check_kernel, check_tensors
from reward.pairs.pairs import Pair, load_pairs, split_by_prompt
from rl.run.checkpoint import Checkpoint, complete_checkpoints, find_resumable
from rl.run.directory import RunDirectory
from rl.run.start.claim import Claim, refusal


def check_arguments(args: TrainRmArgs, shape: ModelShape | None) -> None:
    """Refuse what cannot work, before anything is read or started."""
    directory = find_model(args.model, "model")
    _check_output(args, directory)
    check_family(args.adapter, read_system(args.system, "system"), REWARD_KEYS)
    if directory is not None:
        check_has_template(directory, "model", "put a chat_template.jinja beside it")
        check_trainable(directory, "model")
    if directory is not None and args.max_tokens is not None:
        check_context(directory, args.max_tokens, "max_tokens")
    check_kernel("attention", args.attention)
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
    if args.resume == "auto":
        find_resumable(RunDirectory(Path(args.output)).checkpoints)


def _check_output(args: TrainRmArgs, base: Path | None) -> None:
    """Refuse a directory in which the training would overwrite or drop what is not its own."""
    output = Path(args.output)
    if base is not None and base.resolve() == output.resolve():
        raise UserError(f"output: {output} is the base model itself; give another directory")
    if RunDirectory(output).config.is_file():
        raise UserError(
            f"output: {output} is the directory of a run, whose checkpoints would be dropped; give "
            "another directory"
        )
    if args.overwrite and args.resume == "auto":
        raise UserError(
            "overwrite: a training goes on with what is in its output (resume=auto), or overwrites "
            "it; leave out one of the two"
        )
    what = _held(output)
    if not what or args.overwrite or _goes_on(args):
        return
    if _checkpoints(output):
        raise UserError(refusal(output, what, "output"))
    raise UserError(
        f"output: {output} holds {what}; give another output=, or overwrite=true to move it aside"
    )


def claim_of(args: TrainRmArgs) -> Claim:
    """What a training whose arguments have been checked writes."""
    return Claim(
        name=args.output,
        key="output",
        resume="auto" if _goes_on(args) else "never",
        overwrite=args.overwrite,
        roots=lambda name: [Path(name)],
        held=_held,
        check=lambda: None,
        named=True,
    )


def _goes_on(args: TrainRmArgs) -> bool:
    return args.resume == "auto" and bool(_checkpoints(Path(args.output)))


def _held(output: Path) -> str:
    """What lies in an output already, in words; "" where a training takes nothing from anybody."""
    if found := _checkpoints(output):
        return f"an earlier training up to step {found[-1].step}"
    return "a model" if any(output.glob("*.safetensors")) else ""


def _checkpoints(output: Path) -> list[Checkpoint]:
    return complete_checkpoints(RunDirectory(output).checkpoints)


def read_training_pairs(args: TrainRmArgs) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on and to validate on; raises UserError where there are none of the first."""
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
    return train, validation
