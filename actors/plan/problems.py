"""The problems of a run: made by minipy, or read from canonical parquet files."""

from __future__ import annotations

from conf.errors import UserError
from conf.imports import load_function
from conf.schema import DataConfig
from rl.problems.levels import make_prompts
from rl.problems.prompts import load_prompts
from rl.types import Prompt

_FORM = "it must take a DataConfig and a seed, and return problems of training and held-out ones"


def load_problems(data: DataConfig, seed: int) -> tuple[list[Prompt], list[Prompt]]:
    """Training and held-out problems of a run with this seed; those of a recipe may be none.

    `data.kind` may be the path of a function from outside this tree that returns them.
    """
    train, held_out = _tested(data, seed)
    if data.untested_path is not None:
        train = [*train, *load_prompts(data.untested_path, data.max_bad_rows)]
    return train, held_out


def _tested(data: DataConfig, seed: int) -> tuple[list[Prompt], list[Prompt]]:
    if data.kind == "minipy":
        train = make_prompts(data.level, "train", data.num_train, seed)
        # The test split is that of seed 0 for every run, so that figures can be compared.
        return train, make_prompts(data.level, "eval", data.num_eval, 0)
    if data.kind != "parquet":
        return _made(data, seed)
    return (
        load_prompts(data.train_path, data.max_bad_rows) if data.train_path else [],
        load_prompts(data.eval_path or "", data.max_bad_rows),
    )


def _made(data: DataConfig, seed: int) -> tuple[list[Prompt], list[Prompt]]:
    """What a function from outside this tree returns. Raises UserError where it is not problems."""
    try:
        train, held_out = map(list, load_function(data.kind, "data.kind")(data, seed))
    except (TypeError, ValueError) as error:
        raise UserError(f"data.kind: {data.kind}: {_FORM} ({error})") from error
    if not all(isinstance(prompt, Prompt) for prompt in [*train, *held_out]):
        raise UserError(f"data.kind: {data.kind}: {_FORM}")
    if not train:
        raise UserError(f"data.kind: {data.kind} returns no training problem; {_FORM}")
    return train, held_out
