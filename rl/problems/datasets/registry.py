"""The sources: name, reader, hub id and the columns that are read (explained in `docs/data.md`)."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from conf.errors import UserError
from conf.imports import load
from rl.problems.datasets.rows import Row, Skipped
from rl.problems.datasets.sources import (
    code_contests,
    cure,
    deepcoder,
    human_eval,
    kodcode,
    live_code_bench,
    mbpp,
    prime_intellect,
    taco,
)
from rl.types import Prompt

Reader = Callable[[Row], Prompt | Skipped | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One published data set."""

    name: str
    about: str
    read: Reader  # None, and faults in the row, when a column breaks the schema
    columns: tuple[str, ...]  # nothing else is read of a columnar file
    hub_id: str | None = None  # None when it lies nowhere but in files
    split: str = "train"  # of the hub; `data.split` overrides it
    subsets: tuple[str, ...] = ()  # read one after the other; `data.subset` chooses one
    known_subsets: tuple[str, ...] = ()  # a directory of this name tells the subset
    files: str | None = None  # pattern, `{split}` in it; for repositories with a loading script
    revision: str | None = None  # pinned, where we know which one was used
    id_column: str | None = None  # None when the statement names the problem
    is_benchmark: bool = False  # all of it is held out


_ALL = (
    Source(
        name="human_eval",
        id_column="task_id",
        about="HumanEval and HumanEval+",
        read=human_eval.human_eval,
        columns=human_eval.COLUMNS,
        hub_id="openai/openai_humaneval",
        split="test",
        is_benchmark=True,
    ),
    Source(
        name="mbpp",
        id_column="task_id",
        about="MBPP, full or sanitized, and MBPP+",
        read=mbpp.mbpp,
        columns=mbpp.COLUMNS,
        hub_id="google-research-datasets/mbpp",
    ),
    Source(
        name="live_code_bench",
        id_column="question_id",
        about="LiveCodeBench, code generation",
        read=live_code_bench.live_code_bench,
        columns=live_code_bench.COLUMNS,
        hub_id="livecodebench/code_generation_lite",
        split="test",
        files="{split}*.jsonl",
        revision="0fe84c3912ea0c4d4a78037083943e8f0c4dd505",
        is_benchmark=True,
    ),
    Source(
        name="live_bench",
        about="LiveBench coding, as CURE evaluates it",
        read=cure.cure("live_bench"),
        columns=cure.COLUMNS,
        id_column="task_id",
        hub_id="Gen-Verse/LiveBench-ReasonFlux",
        split="test",
        is_benchmark=True,
    ),
    Source(
        name="code_contests",
        about="CodeContests, as CURE evaluates it",
        read=cure.cure("code_contests"),
        columns=cure.COLUMNS,
        id_column="task_id",
        hub_id="Gen-Verse/CodeContests",
        split="test",
        is_benchmark=True,
    ),
    Source(
        name="deepmind_code_contests",
        about="CodeContests, as DeepMind publishes it",
        read=code_contests.code_contests,
        columns=code_contests.COLUMNS,
        id_column="name",
        hub_id="deepmind/code_contests",
    ),
    Source(
        name="code_forces",
        about="CodeForces, as CURE evaluates it",
        read=cure.cure("code_forces"),
        columns=cure.COLUMNS,
        id_column="task_id",
        hub_id="Gen-Verse/CodeForces",
        split="test",
        is_benchmark=True,
    ),
    Source(
        name="cure_mbpp",
        about="MBPP on standard input, as CURE evaluates it",
        read=cure.cure("cure_mbpp"),
        columns=cure.COLUMNS,
        id_column="task_id",
        hub_id="Gen-Verse/MBPP-ReasonFlux",
        split="test",
        is_benchmark=True,
    ),
    Source(
        name="deepcoder",
        about="DeepCoder-Preview, the training set of CodeScaler",
        read=deepcoder.deepcoder,
        columns=deepcoder.COLUMNS,
        hub_id="agentica-org/DeepCoder-Preview-Dataset",
        subsets=("lcbv5", "primeintellect", "taco"),
        known_subsets=deepcoder.SUBSETS,
        revision="177913a7bd43791646ef6a43645caa3c871ab3db",
    ),
    Source(
        name="taco",
        about="TACO",
        read=taco.taco,
        columns=taco.COLUMNS,
        hub_id="BAAI/TACO",
        files="ALL/{split}-*.parquet",
    ),
    Source(
        name="prime_intellect",
        id_column="problem_id",
        about="SYNTHETIC-1, verifiable coding problems",
        read=prime_intellect.prime_intellect,
        columns=prime_intellect.COLUMNS,
        hub_id="PrimeIntellect/verifiable-coding-problems",
    ),
    Source(
        name="kodcode",
        id_column="question_id",
        about="KodCode-V1",
        read=kodcode.kodcode,
        columns=kodcode.COLUMNS,
        hub_id="KodCode/KodCode-V1",
    ),
)

SOURCES = {source.name: source for source in _ALL}


def source_named(name: str, key: str = "source", others: tuple[str, ...] = ()) -> Source:
    """The source of a name, in which `-` counts as `_`; `others` are what else `key` may be.

    `my_package.module:SOURCE` is one from outside this tree.

    Raises:
        UserError: for an unknown name, and for an import path that leads to no `Source`.
    """
    if ":" in name:
        found = load(name, key)
        if not isinstance(found, Source):
            raise UserError(
                f"{key}: {name} is a {type(found).__name__}; it must be a "
                "rl.problems.datasets.Source"
            )
        return found
    wanted = name.replace("-", "_")
    if wanted in SOURCES:
        return SOURCES[wanted]
    known = [*others, *sorted(SOURCES)]
    close = difflib.get_close_matches(wanted, known, n=1)
    advice = f" (nearest: {close[0]})" if close else ""
    raise UserError(f"{key}: {name!r} is not one of {', '.join(known)}{advice}")
