"""Verified preference pairs and their files: of one problem, a right program and a wrong one.

The first three columns are those of CodeScalerPair-51K (paper, released data), which is read as it
is; the others say where the two programs come from. `reward.pairs.mining` makes pairs.
"""

# pyarrow ships no type information; what leaves it is narrowed before use.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from conf.errors import DataError, UserError
from reward.model.files import is_local
from rl.base.faults import held_twice
from rl.base.files import lack_of
from rl.base.staged_parquet import StagedParquet
from rl.seeds import derive_seed

_PAIR_SCHEMA = pa.schema(
    [
        ("question_content", pa.large_string()),
        ("code_pos", pa.large_string()),
        ("code_neg", pa.large_string()),
        ("prompt_id", pa.string()),
        ("source", pa.string()),
        *[
            (f"{side}_{name}", kind)
            for side in ("pos", "neg")
            for name, kind in (
                ("run", pa.string()),
                ("step", pa.int64()),
                ("policy_version", pa.int64()),
                ("tests_passed", pa.float64()),
            )
        ],
    ]
)
_REQUIRED = ("question_content", "code_pos", "code_neg")
_BATCH_PAIRS = 2048
_BATCH_CHARS = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledCode:
    """A program and what execution said of it.

    >>> code = LabelledCode(prompt_id="a", question="1?", code="1", passed=True, tests_passed=None)
    >>> code.source
    'rollout'
    """

    prompt_id: str
    question: str
    code: str
    passed: bool  # every test
    tests_passed: float | None  # share of the tests; None where they were not all run
    step: int = 0
    policy_version: int = 0
    run: str = ""
    source: str = "rollout"  # "rollout" | "mutant" | "swap"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One training example of a reward model; the first three fields are CodeScalerPair-51K's.

    >>> Pair(prompt_id="a", question_content="1?", code_pos="1", code_neg="2").source
    'unknown'
    """

    prompt_id: str
    question_content: str
    code_pos: str
    code_neg: str
    source: str = "unknown"  # of the negative: "rollout" | "mutant" | "swap"
    pos_run: str = ""  # that sampled the positive
    pos_step: int = 0
    pos_policy_version: int = 0
    pos_tests_passed: float | None = None  # share; None where it is not known
    neg_run: str = ""  # that sampled the negative, or the program that it was made from
    neg_step: int = 0
    neg_policy_version: int = 0
    neg_tests_passed: float | None = None


def pair_of(right: LabelledCode, wrong: LabelledCode) -> Pair:
    """The pair of two programs for one problem."""
    return Pair(
        prompt_id=right.prompt_id,
        question_content=right.question,
        code_pos=right.code,
        code_neg=wrong.code,
        source=wrong.source,
        pos_run=right.run,
        pos_step=right.step,
        pos_policy_version=right.policy_version,
        pos_tests_passed=right.tests_passed,
        neg_run=wrong.run,
        neg_step=wrong.step,
        neg_policy_version=wrong.policy_version,
        neg_tests_passed=wrong.tests_passed,
    )


# ---------------------------------------------------------------- validation


def is_for_validation(prompt_id: str, share: float, seed: int) -> bool:
    """Whether a problem belongs to the validation part, which has `share` of all problems.

    Problems are held out, never pairs; and the side of one depends on no other.
    """
    return derive_seed(seed, "held-out problem", prompt_id) % 1_000_000 < share * 1_000_000


def split_by_prompt(
    pairs: Sequence[Pair], share: float, seed: int
) -> tuple[list[Pair], list[Pair]]:
    """Return (training, validation) pairs, see `is_for_validation`.

    Raises UserError unless 0 <= share <= 1.
    """
    if not 0.0 <= share <= 1.0:
        raise UserError(f"share={share}: must be from 0 to 1")
    sides = [is_for_validation(pair.prompt_id, share, seed) for pair in pairs]
    return (
        [pair for pair, out in zip(pairs, sides, strict=True) if not out],
        [pair for pair, out in zip(pairs, sides, strict=True) if out],
    )


def pairs_digest(pairs: Sequence[Pair]) -> str:
    """Identity of pairs: what is learned from, in its order."""
    digest = blake2b(digest_size=8)
    for pair in pairs:
        for text in (pair.question_content, pair.code_pos, pair.code_neg):
            encoded = text.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.hexdigest()


# ---------------------------------------------------------------- files


class PairWriter(StagedParquet):
    """Writes a parquet file for `read_pairs`, pair by pair."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, _PAIR_SCHEMA, _BATCH_PAIRS, _BATCH_CHARS)

    def add(self, pair: Pair) -> None:
        """Add one pair."""
        num_chars = len(pair.question_content) + len(pair.code_pos) + len(pair.code_neg)
        self.add_row(asdict(pair), num_chars)


def write_pairs(path: str | Path, pairs: Iterable[Pair]) -> None:
    """Write a parquet file for `read_pairs`; an interrupted write leaves what was there before."""
    with PairWriter(path) as writer:
        for pair in pairs:
            writer.add(pair)


def read_pairs(path: str | Path) -> list[Pair]:
    """Read pairs: of `write_pairs`, or of any parquet file with the three columns of the paper's.

    Without a `prompt_id` the problem's text identifies it. Raises DataError on a missing column or
    an empty cell.
    """
    try:
        with pq.ParquetFile(path) as file:
            _require_columns(path, file.schema_arrow.names)
            known = [name for name in _PAIR_SCHEMA.names if name in file.schema_arrow.names]
            table = file.read(columns=known)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: is not a readable parquet file ({error})") from error
    return _pairs_of(path, table)


def load_pairs(data: str, key: str = "data") -> tuple[list[Pair], list[Pair] | None]:
    """Return (training, validation) pairs of a file, a directory or a hub id, the value of `key`.

    A directory of `launch/mine_pairs.py` has its validation part beside it; for anything else it is
    None. Other directories and hub ids are read as Hugging Face data sets, split "train". Raises
    DataError where there are no pairs.
    """
    if not data:
        raise DataError(f"{key}: has no value; give a parquet file, a directory or a hub id")
    path = Path(data)
    validation: list[Pair] | None = None
    if (path / "train.parquet").is_file():
        train = read_pairs(path / "train.parquet")
        if (path / "validation.parquet").is_file():
            validation = read_pairs(path / "validation.parquet")
    elif path.is_file():
        train = read_pairs(path)
    elif path.is_dir() or not (is_local(data) or path.suffix == ".parquet"):
        train = _load_data_set(data, key)
    else:
        raise DataError(
            f"{key}: {data} {lack_of(data)}; give a parquet file, a directory or a hub id"
        )
    if not train and not validation:
        raise DataError(f"{data}: holds no pair; give pairs of launch/mine_pairs.py")
    return train, validation


def _load_data_set(data: str, key: str) -> list[Pair]:
    from datasets import Dataset, load_dataset  # noqa: PLC0415 - takes seconds
    from datasets.exceptions import DatasetsError  # noqa: PLC0415

    try:
        rows = load_dataset(data, split="train")
    except (OSError, ValueError, DatasetsError) as error:
        error = error.__cause__ or error  # what was wrong with a row, where there is one
        raise DataError(f"{key}: {data} is not readable as a data set ({error})") from error
    assert isinstance(rows, Dataset)
    _require_columns(data, rows.column_names)
    known = [name for name in _PAIR_SCHEMA.names if name in rows.column_names]
    return _pairs_of(data, rows.select_columns(known).with_format("arrow")[:])


def _require_columns(place: str | Path, names: Sequence[str]) -> None:
    for name in _REQUIRED:
        if name not in names:
            raise DataError(f"{place}:-:{name}: column is missing (has {list(names)})")
    for fault in held_twice(place, names, _PAIR_SCHEMA.names).values():
        raise DataError(fault)


def _pairs_of(place: str | Path, table: pa.Table) -> list[Pair]:
    """The pairs of a table that has columns of `_PAIR_SCHEMA` alone."""
    for index, name in enumerate(table.column_names):
        if name not in _REQUIRED:  # whose cells are looked at one by one
            table = table.set_column(index, name, _converted(place, name, table[name]))
    try:
        rows = table.to_pylist()
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: holds text that is not UTF-8 ({error})") from error
    return [_pair_of_row(f"{place}:{number}", row) for number, row in enumerate(rows)]


def _converted(place: str | Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column in the type that it has to have, such as text for a `prompt_id` that is a number."""
    wanted = _PAIR_SCHEMA.field(name).type
    try:
        return column.cast(wanted)
    except pa.ArrowException as error:
        raise DataError(
            f"{place}:-:{name}: column must be of type {wanted} ({column.type}: {error}); convert "
            "it, or leave it out"
        ) from error


def _pair_of_row(place: str, row: dict[str, Any]) -> Pair:
    for name in _REQUIRED:
        if not isinstance(row[name], str) or not row[name].strip():
            raise DataError(f"{place}:{name}: must be text ({row[name]!r})")
    question = row["question_content"].encode(errors="surrogatepass")
    fields: dict[str, Any] = {"prompt_id": blake2b(question, digest_size=8).hexdigest()}
    fields |= {name: value for name, value in row.items() if value is not None}
    return Pair(**fields)
