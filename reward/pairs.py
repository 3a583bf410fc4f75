"""Verified preference pairs: of one problem, a program that passes all tests and one that fails.

The paper labels rollouts of a whole RL trajectory by execution and pairs them within a problem
(CodeScaler, arXiv 2602.17684, on CodeScalerPair-51K). What it does not say is reconstructed here:
duplicates are removed by normalised syntax tree, pairs are spread over steps and over programs, and
half of them prefer the near miss. `mutants` makes more near misses, to be executed before use.
"""

# pyarrow ships no type information; what leaves it is narrowed before use.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reward.edits import Edit, apply, edits
from reward.normal_form import normalise, parse
from rl.errors import DataError, UserError
from rl.seeds import derive_seed

_MAX_CODES = 32  # positives, and negatives, of one problem that mining looks at

_PAIR_SCHEMA = pa.schema(
    [
        ("question_content", pa.large_string()),
        ("code_pos", pa.large_string()),
        ("code_neg", pa.large_string()),
        ("prompt_id", pa.string()),
        ("source", pa.string()),
        ("step", pa.int64()),
        ("policy_version", pa.int64()),
        ("neg_tests_passed", pa.float64()),
    ]
)
_WORD = re.compile(r"\w+")
_REQUIRED = ("question_content", "code_pos", "code_neg")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledCode:
    """A program and what execution said of it."""

    prompt_id: str
    question: str
    code: str
    passed: bool  # every test
    num_passed: int
    num_tests: int
    step: int
    policy_version: int
    source: str = "rollout"


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
    step: int = 0  # of the negative
    policy_version: int = 0  # that sampled the negative
    neg_tests_passed: float = 0.0  # share of the tests that the negative passes


# ---------------------------------------------------------------- mining


@dataclass(frozen=True, slots=True)
class _Candidate:
    code: LabelledCode
    words: Counter[str]

    @property
    def share_passed(self) -> float:
        return self.code.num_passed / max(1, self.code.num_tests)


def mine_pairs(
    labelled: Sequence[LabelledCode], per_prompt: int, seed: int, near_miss: bool = True
) -> list[Pair]:
    """Return up to `per_prompt` pairs for each problem that has right and wrong programs.

    Equal programs (`normalise`) count once, and not at all when execution did not agree on them.
    The programs used least come first, taken from all steps in turn; with `near_miss`, every
    second pair takes the wrong program that passes most tests and lies closest to the right one.
    """
    by_prompt: dict[str, list[LabelledCode]] = defaultdict(list)
    for code in labelled:
        by_prompt[code.prompt_id].append(code)
    return [
        pair
        for prompt_id, codes in by_prompt.items()
        for pair in _mine_prompt(
            codes, per_prompt, random.Random(derive_seed(seed, "pairs", prompt_id)), near_miss
        )
    ]


def _mine_prompt(
    codes: Sequence[LabelledCode], per_prompt: int, rng: random.Random, near_miss: bool
) -> list[Pair]:
    distinct = _distinct(codes)
    rights = _spread([c for c in distinct if c.code.passed], rng)[:_MAX_CODES]
    wrongs = _spread([c for c in distinct if not c.code.passed], rng)[:_MAX_CODES]
    nearness = {
        (r, w): (
            -wrong.share_passed,
            (right.words - wrong.words | wrong.words - right.words).total(),
        )
        for r, right in enumerate(rights)
        for w, wrong in enumerate(wrongs)
    }
    used_right, used_wrong = [0] * len(rights), [0] * len(wrongs)
    pairs: list[Pair] = []
    while nearness and len(pairs) < per_prompt:
        prefer_near = near_miss and len(pairs) % 2 == 0

        def cost(pair: tuple[int, int], prefer_near: bool = prefer_near) -> tuple[float, ...]:
            wear = used_right[pair[0]] + used_wrong[pair[1]]
            return (wear, *nearness[pair]) if prefer_near else (wear, sum(pair), pair[0])

        right, wrong = min(nearness, key=cost)
        del nearness[right, wrong]
        used_right[right] += 1
        used_wrong[wrong] += 1
        pairs.append(_pair(rights[right].code, wrongs[wrong]))
    return pairs


def _distinct(codes: Sequence[LabelledCode]) -> list[_Candidate]:
    """Return one candidate for each different program whose labels agree."""
    candidates: dict[str, _Candidate] = {}
    disputed: set[str] = set()
    for code in codes:
        key = normalise(code.code)
        known = candidates.setdefault(key, _Candidate(code, Counter(_WORD.findall(key))))
        if known.code.passed is not code.passed:
            disputed.add(key)
    return [candidate for key, candidate in candidates.items() if key not in disputed]


def _spread(candidates: Sequence[_Candidate], rng: random.Random) -> list[_Candidate]:
    """Return the candidates in random order, taking from every step before any step's second."""
    by_step: dict[int, list[_Candidate]] = defaultdict(list)
    for candidate in rng.sample(candidates, len(candidates)):
        by_step[candidate.code.step].append(candidate)
    turns = zip_longest(*by_step.values())
    return [candidate for turn in turns for candidate in turn if candidate is not None]


def _pair(right: LabelledCode, wrong: _Candidate) -> Pair:
    return Pair(
        prompt_id=right.prompt_id,
        question_content=right.question,
        code_pos=right.code,
        code_neg=wrong.code.code,
        source=wrong.code.source,
        step=wrong.code.step,
        policy_version=wrong.code.policy_version,
        neg_tests_passed=wrong.share_passed,
    )


def split_by_prompt(
    pairs: Sequence[Pair], fraction: float, seed: int
) -> tuple[list[Pair], list[Pair]]:
    """Return (training, held-out) pairs; `fraction` of the problems is held out, never of pairs.

    Raises UserError unless 0 <= fraction <= 1.
    """
    if not 0.0 <= fraction <= 1.0:
        raise UserError(f"fraction={fraction}: must be from 0 to 1")
    ids = sorted({pair.prompt_id for pair in pairs})
    rng = random.Random(derive_seed(seed, "held-out problems"))
    held_out = set(rng.sample(ids, round(fraction * len(ids))))
    return (
        [pair for pair in pairs if pair.prompt_id not in held_out],
        [pair for pair in pairs if pair.prompt_id in held_out],
    )


# ---------------------------------------------------------------- near misses


def mutants(code: str, rng: random.Random, n: int) -> list[str]:
    """Return up to `n` different programs, each one small edit away from `code`.

    Kinds of edit are drawn evenly: a constant, a comparison, an operator, a reduction, a negated or
    dropped condition, an expression replaced by a part of itself, a wrong variable. Every result
    parses and differs from `code` after `normalise`; some still do the same, so a result is a
    wrong program only once execution says so.
    """
    code = code.replace("\r\n", "\n").replace("\r", "\n")
    by_kind: dict[str, list[Edit]] = defaultdict(list)
    for edit in edits(code, rng):
        by_kind[edit.kind].append(edit)
    seen = {normalise(code)}
    found: list[str] = []
    while by_kind and len(found) < n:
        kind = rng.choice(sorted(by_kind))
        edit = by_kind[kind].pop(rng.randrange(len(by_kind[kind])))
        if not by_kind[kind]:
            del by_kind[kind]
        mutant = apply(edit, code)
        key = normalise(mutant)
        if key not in seen and parse(mutant) is not None:
            seen.add(key)
            found.append(mutant)
    return found


# ---------------------------------------------------------------- files


def write_pairs(path: str | Path, pairs: Iterable[Pair]) -> None:
    """Write a parquet file for `read_pairs`; an interrupted write leaves what was there before."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    pq.write_table(pa.Table.from_pylist([asdict(pair) for pair in pairs], _PAIR_SCHEMA), staged)
    staged.replace(path)


def read_pairs(path: str | Path) -> list[Pair]:
    """Read pairs: of `write_pairs`, or of any parquet file with the three columns of the paper's.

    Without a `prompt_id` the problem's text identifies it. Raises DataError on a missing column or
    an empty cell.
    """
    table = _read_table(Path(path))
    known = [name for name in _PAIR_SCHEMA.names if name in table.column_names]
    return [
        _pair_of_row(f"{path}:{number}", row)
        for number, row in enumerate(table.select(known).to_pylist(), start=1)
    ]


def _read_table(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: is not a readable parquet file ({error})") from error
    for name in _REQUIRED:
        if name not in table.column_names:
            raise DataError(f"{path}:0:{name}: column is missing (has {table.column_names})")
    return table


def _pair_of_row(place: str, row: dict[str, Any]) -> Pair:
    for name in _REQUIRED:
        if not isinstance(row[name], str) or not row[name].strip():
            raise DataError(f"{place}:{name}: must be text ({row[name]!r})")
    question = row["question_content"].encode(errors="surrogatepass")
    fields: dict[str, Any] = {"prompt_id": blake2b(question, digest_size=8).hexdigest()}
    fields |= {name: value for name, value in row.items() if value is not None}
    return Pair(**fields)
