"""Rollout files: every judged completion of a step as a parquet row, written and read here only.

Training rollouts also hold the tokens: `read_groups` makes the judged groups of a step of them.
"""

# pyarrow ships no type information; what leaves it is narrowed before use.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from conf.errors import DataError
from rl.base.faults import held_twice
from rl.base.files import replacing
from rl.problems.prompts import language_of
from rl.seeds import derive_seed
from rl.types import (
    Ask,
    Completion,
    Extraction,
    Finish,
    FloatArray,
    JudgedGroup,
    JudgeKind,
    Message,
    Part,
    Prompt,
    PromptGroup,
    Reason,
    SamplingConfig,
    Score,
    Verdict,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

RECIPES = ("grpo", "actor_critic")  # that learn from nothing but what a file with tokens holds
_BATCH_ROWS = 256

Row = TypeVar("Row", bound="DataclassInstance")
LongText = Annotated[str, pa.large_string()]  # all of a file may be longer than 2 GB
Int32 = Annotated[int, pa.int32()]
Int32OrNone = Annotated[int | None, pa.int32()]


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRow:
    """One completion and what became of it: the columns of a file, in their order."""

    step: Int32
    prompt_id: str
    question: LongText
    sample_idx: Int32
    text: LongText
    code: LongText  # "" unless valid
    reason: str  # of extraction
    score: float | None  # raw
    reward: float
    advantage: float | None  # None where nothing was learned from it
    num_tokens: Int32
    finish: str
    policy_version: Int32
    judge: str = ""  # "rm" or "execution"; "" in files of before it was recorded
    verdict: Verdict | None = None  # None where no test was run
    num_passed: Int32OrNone = None  # tests; None where they were not all run
    num_tests: Int32OrNone = None
    task: str = "code"  # what the answer is: a program, a test, a trace, a verdict
    parts: str = ""  # reward of each judge of a sum by its name, a JSON object; "" without one
    language: str = "python"  # that a program is asked for in
    problem_id: str | None = None  # that it is about, where that is not `prompt_id`
    # Of a test that was run: "1" for each program of its problem that passes it, "0" for others.
    # The programs are in the order of the rows.
    passed_by: str | None = None

    @property
    def problem(self) -> str:
        """Id of the problem that it is about."""
        return self.problem_id or self.prompt_id


_SPARSE = ("problem_id", "passed_by")  # columns of those files alone that have a value for them


def rollout_rows(
    step: int, groups_P: Sequence[JudgedGroup], advantages_PG: Sequence[FloatArray] | None
) -> Iterator[RolloutRow]:
    """The rows of a batch; `advantages_PG` is None for an evaluation."""
    for position, judged in enumerate(groups_P):
        for index, completion in enumerate(judged.group.completions_G):
            advantage = None if advantages_PG is None else float(advantages_PG[position][index])
            yield RolloutRow(
                step=step,
                prompt_id=completion.prompt_id,
                question=judged.group.prompt.question,
                sample_idx=completion.sample_idx,
                text=completion.text,
                code=judged.extractions_G[index].code,
                reason=judged.extractions_G[index].reason.value,
                score=judged.scores_G[index].value,
                reward=float(judged.rewards_G[index]),
                advantage=advantage,
                num_tokens=len(completion.token_ids),
                finish=completion.finish.value,
                policy_version=completion.policy_version,
                judge=judged.judge.value,
                verdict=judged.scores_G[index].verdict,
                num_passed=judged.scores_G[index].num_passed,
                num_tests=judged.scores_G[index].num_tests,
                task=judged.task.value,
                parts=_parts(judged, index),
                language=language_of(judged.group.ask.problem),
                problem_id=_other_problem(judged.group.ask),
                passed_by=_passed_by(judged, index),
            )


def _other_problem(ask: Ask) -> str | None:
    return None if ask.problem.id == ask.prompt.id else ask.problem.id


def _passed_by(judged: JudgedGroup, index: int) -> str | None:
    passed_NM = judged.evidence.passed_NM
    if passed_NM is None or not judged.extractions_G[index].valid:
        return None
    return "".join("1" if passed else "0" for passed in passed_NM[:, index])


def sample_rows(rows: Sequence[RolloutRow], num: int, seed: int) -> list[RolloutRow]:
    """At most `num` rows of a step, in their order: by the seed and what they are alone."""

    def lot(row: RolloutRow) -> int:
        return derive_seed(seed, "shown", row.step, row.prompt_id, row.sample_idx)

    chosen = {id(row) for row in sorted(rows, key=lot)[:num]}
    return [row for row in rows if id(row) in chosen]


def _parts(judged: JudgedGroup, index: int) -> str:
    parts = {name: float(part.rewards_G[index]) for name, part in judged.parts.items()}
    return json.dumps(parts) if parts else ""


TOKENS = pa.schema(
    [
        ("prompt_token_ids", pa.list_(pa.int32())),
        ("token_ids", pa.list_(pa.int32())),
        ("rollout_logprobs", pa.list_(pa.float32())),
        # Tokens that each token was sampled among, one list after another; null: all tokens.
        ("support", pa.list_(pa.int32())),
        ("masked", pa.bool_()),  # the completion carries no loss
        ("num_executed", pa.int32()),  # programs that were run for the rewards of its group
    ]
)


def write_rollouts(
    path: Path, rows: Sequence[RolloutRow], tokens_of: Sequence[JudgedGroup] = ()
) -> None:
    """Write one file, in place only when it is complete.

    The tokens of the groups that the rows are of are columns too, where they are given.
    """
    whole = schema_of(RolloutRow)
    columns: dict[str, Any] = {n: [getattr(row, n) for row in rows] for n in whole.names}
    absent = [name for name in _SPARSE if all(value is None for value in columns[name])]
    schema = pa.schema([field for field in whole if field.name not in absent])
    columns = {name: columns[name] for name in schema.names}
    if tokens_of:
        schema = pa.unify_schemas([schema, TOKENS])
        tokens = [values for judged in tokens_of for values in _tokens(judged)]
        columns |= {name: [values[name] for values in tokens] for name in TOKENS.names}
    with replacing(path) as staged:
        pq.write_table(pa.table(columns, schema=schema), staged)


def _tokens(judged: JudgedGroup) -> Iterator[dict[str, Any]]:
    for completion, taught in zip(judged.group.completions_G, judged.taught_G, strict=True):
        support_TK = completion.support_TK
        yield {
            "prompt_token_ids": judged.group.prompt_token_ids,
            "token_ids": completion.token_ids,
            "rollout_logprobs": completion.rollout_logprobs,
            "support": None if support_TK is None else support_TK.ravel(),
            "masked": not taught,
            "num_executed": judged.num_executed,
        }


def read_rollouts(path: Path) -> list[RolloutRow]:
    """Read one file. Raises DataError `file:row:column`."""
    return list(read_rows(path, RolloutRow))


def read_groups(path: Path, weights: Mapping[str, float]) -> list[JudgedGroup]:
    """The judged groups that a step learned from, in their order.

    `weights` are those of the judges of a sum, by their names. What a group was asked for is not in
    a file, and what execution saw beside its verdicts is not read. Raises DataError for one without
    tokens.
    """
    rows = read_rollouts(path)
    if not rows:
        return []
    missing = [name for name in TOKENS.names if name not in pq.read_schema(path).names]
    if missing:
        raise DataError(
            f"{path}:-:{missing[0]}: column is missing; tokens are saved in rollouts/ of a run "
            "with checkpoint.rollout_tokens=true"
        )
    columns = pq.read_table(path, columns=TOKENS.names)
    tokens = [
        _Tokens(**{name: columns[name][index] for name in TOKENS.names})
        for index in range(len(rows))
    ]
    groups = groupby(zip(rows, tokens, strict=True), key=lambda pair: pair[0].prompt_id)
    return [_group([*pairs], weights) for _, pairs in groups]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tokens:
    """The columns of `TOKENS` in one row, as arrow has them."""

    prompt_token_ids: Any
    token_ids: Any
    rollout_logprobs: Any
    support: Any
    masked: Any
    num_executed: Any


def _group(
    pairs: Sequence[tuple[RolloutRow, _Tokens]], weights: Mapping[str, float]
) -> JudgedGroup:
    rows, (first, tokens) = [row for row, _ in pairs], pairs[0]
    prompt = Prompt(id=first.prompt_id, messages=(Message("user", first.question),))
    masked_G = np.array([tokens.masked.as_py() for _, tokens in pairs], np.bool_)
    parts = [json.loads(row.parts) if row.parts else {} for row in rows]
    scores_G = tuple(
        Score(value=r.score, verdict=r.verdict, num_passed=r.num_passed, num_tests=r.num_tests)
        for r in rows
    )
    return JudgedGroup(
        group=PromptGroup(
            ask=Ask.code(prompt, SamplingConfig(group_size=len(rows), max_tokens=0)),
            prompt_token_ids=_array(tokens.prompt_token_ids, np.int32),
            completions_G=tuple(_completion(row, tokens) for row, tokens in pairs),
            engine="",
            finished_s=0.0,
        ),
        extractions_G=tuple(Extraction(reason=Reason(row.reason), code=row.code) for row in rows),
        scores_G=scores_G,
        rewards_G=np.array([row.reward for row in rows], np.float32),
        judge=JudgeKind(first.judge),
        actor="",
        scored_s=0.0,
        num_executed=tokens.num_executed.as_py(),
        masked_G=masked_G if masked_G.any() else None,
        parts={
            name: Part(
                weight=weights[name],
                scores_G=scores_G,
                rewards_G=np.array([part[name] for part in parts], np.float32),
                judge=JudgeKind.OWN,  # not in a file
            )
            for name in parts[0]
        },
    )


def _completion(row: RolloutRow, tokens: _Tokens) -> Completion:
    token_ids, support = _array(tokens.token_ids, np.int32), tokens.support
    return Completion(
        prompt_id=row.prompt_id,
        sample_idx=row.sample_idx,
        text=row.text,
        token_ids=token_ids,
        rollout_logprobs=_array(tokens.rollout_logprobs, np.float32),
        finish=Finish(row.finish),
        policy_version=row.policy_version,
        support_TK=_array(support, np.int32).reshape(len(token_ids), -1)
        if support.is_valid and token_ids.size
        else None,
    )


def _array(scalar: Any, dtype: type) -> Any:  # noqa: ANN401 - an arrow scalar, an array
    return np.array(scalar.values.to_numpy(zero_copy_only=False), dtype)


def read_rows(path: Path, kind: type[Row], **given: object) -> Iterator[Row]:
    """Yield the rows of a file as `kind`, a dataclass whose fields are columns of it.

    Columns that `kind` has a default for may be missing; fields that are `given` are no columns.
    Files are read in batches, so their size does not matter. Raises DataError `file:row:column`.
    """
    try:
        parquet = pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: is not a readable parquet file ({error})") from error
    names: list[str] = parquet.schema_arrow.names
    wanted = [column for column in _columns(kind) if column.name not in given]
    for column in wanted:
        if column.required and column.name not in names:
            raise DataError(f"{path}:-:{column.name}: column is missing (has {names})")
    present = [column.name for column in wanted if column.name in names]
    for fault in held_twice(path, names, present).values():
        raise DataError(fault)
    number = 0
    try:
        for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, columns=present):
            for values in batch.to_pylist():
                number += 1
                yield row_of(kind, values | given, f"{path}:{number}")
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path}:{number + 1}: is not readable ({error})") from error


def row_of(kind: type[Row], values: Mapping[str, Any], place: str) -> Row:
    """A row from the values of its columns. Raises DataError `place:column`."""
    fields = {c.name: c.read(values[c.name], place) for c in _columns(kind) if c.name in values}
    return kind(**fields)


def schema_of(kind: type[DataclassInstance]) -> pa.Schema:
    """The columns of a dataclass: an annotated arrow type, or the one of the Python type."""
    return pa.schema([(column.name, column.arrow) for column in _columns(kind)])


_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64()}
_WORDS = {str: "text", int: "a whole number", float: "a number"}


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    stored: type  # str, int or float
    is_verdict: bool
    nullable: bool
    required: bool
    arrow: pa.DataType

    def read(self, value: Any, place: str) -> Any:  # noqa: ANN401 - of the type that it checks
        """The value of a row. Raises DataError when it is none of this column."""
        if value is None and self.nullable:
            return None
        if not isinstance(value, self.stored):
            what = _WORDS[self.stored] + " or null" * self.nullable
            raise DataError(f"{place}:{self.name}: must be {what} ({value!r})")
        return Verdict.read(str(value), f"{place}:{self.name}") if self.is_verdict else value


@cache
def _columns(kind: type[DataclassInstance]) -> tuple[_Column, ...]:
    bare, full = get_type_hints(kind), get_type_hints(kind, include_extras=True)
    return tuple(
        _column(field.name, bare[field.name], full[field.name], field.default)
        for field in dataclasses.fields(kind)
    )


def _column(name: str, bare: Any, full: Any, default: object) -> _Column:  # noqa: ANN401 - hints
    of = next(kind for kind in get_args(bare) or (bare,) if kind is not NoneType)
    stored = str if of is Verdict else of
    return _Column(
        name=name,
        stored=stored,
        is_verdict=of is Verdict,
        nullable=NoneType in get_args(bare),
        required=default is dataclasses.MISSING,
        arrow=next(iter(getattr(full, "__metadata__", ())), _ARROW[stored]),
    )
