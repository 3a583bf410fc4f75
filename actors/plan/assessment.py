"""What a reward model is judged by: pairs and executed programs, read and checked."""

from __future__ import annotations

from conf.commands.judge_rm import JudgeArgs
from conf.errors import DataError, UserError
from reward.pairs.labelled import Labelled, read_labelled
from reward.pairs.pairs import Pair, load_pairs


def read_material(args: JudgeArgs) -> tuple[list[Pair], Labelled]:
    """The pairs and the executed programs; raises UserError when there are none of either."""
    if args.pairs is None and args.rollouts is None:
        raise UserError("pairs, rollouts: give at least one of them")
    labelled = Labelled()
    if args.rollouts is not None:
        labelled = read_labelled(args.rollouts)
    pairs: list[Pair] = []
    if args.pairs is not None:
        pairs, validation = load_pairs(args.pairs, "pairs")
        pairs = pairs if validation is None else validation
    if not pairs and not labelled.codes:
        left_out = ", ".join(f"{n} {why}" for why, n in labelled.left_out.most_common())
        raise DataError(
            f"{args.pairs or args.rollouts}: holds nothing to judge by"
            f"{f' (left out: {left_out})' if left_out else ''}"
        )
    return pairs, labelled
