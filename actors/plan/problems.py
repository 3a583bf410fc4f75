"""The problems of a run: made by minipy, or read from canonical parquet files."""

from __future__ import annotations

from conf.imports import load
from conf.schema import DataConfig
from rl.problems.minipy import make_prompts
from rl.problems.prompts import load_prompts
from rl.types import Prompt


def load_problems(data: DataConfig, seed: int) -> tuple[list[Prompt], list[Prompt]]:
    """Training and held-out problems of a run with this seed.

    `data.kind` may be the path of a function from outside this tree that returns them.
    """
    if data.kind == "minipy":
        train = make_prompts("train", data.num_train, seed)
        # The test split is that of seed 0 for every run, so that figures can be compared.
        return train, make_prompts("eval", data.num_eval, 0)
    if data.kind != "parquet":
        return load(data.kind, "data.kind")(data, seed)
    return (
        load_prompts(data.train_path or "", data.max_bad_rows),
        load_prompts(data.eval_path or "", data.max_bad_rows),
    )
