"""Problems: canonical parquet -> `Prompt`, the typed forms of tests, and the order of training.

A canonical file has the columns `id`, `prompt` (list of {role, content}), `tests` (null or JSON),
`entry_point` (null or string), `source` and `meta` (JSON). Rows are counted from 0 in messages.

One file: a problem, its tests in every form, and the parquet that holds both.
"""

# pyarrow ships no type information; what leaves it is narrowed before use.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import ast
import json
import keyword
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from conf.errors import DataError
from rl.base.faults import held_twice, listing, show
from rl.base.process import read_big_integers
from rl.base.staged_parquet import StagedParquet
from rl.seeds import derive_seed
from rl.types import JudgedGroup, Language, Message, Prompt

read_big_integers()  # of tests: whoever parses them has imported this

logger = logging.getLogger(__name__)

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field(
            "prompt",
            pa.list_(pa.struct([("role", pa.string()), ("content", pa.large_string())])),
            nullable=False,
        ),
        pa.field("tests", pa.large_string()),  # one problem's tests may exceed 2 GiB per column
        pa.field("entry_point", pa.string()),
        pa.field("source", pa.string()),
        pa.field("meta", pa.large_string()),
    ]
)

_LANGUAGES: tuple[str, ...] = get_args(Language)
_ROLES = ("system", "user", "assistant")
_BATCH_ROWS = 1024
_MAX_TIME_LIMIT_S = 3600.0
_BATCH_CHARS = 64 << 20  # of tests: a single problem's may have 100 MB


@dataclass(frozen=True, slots=True)
class StdioCase:
    """A program reads `input` on stdin and must print `output`."""

    input: str
    output: str


@dataclass(frozen=True, slots=True)
class FunctionalCase:
    """A function called with `args` must return `output`; both are JSON values."""

    args: tuple[Any, ...]
    output: Any


@dataclass(frozen=True, slots=True)
class StdioTests:
    """Tests of a whole program; `setup` runs before it, in its module.

    >>> parse_tests('[{"input": "1 2", "output": "3"}]', None)
    StdioTests(cases=(StdioCase(input='1 2', output='3'),), setup='', time_limit=None)
    """

    cases: tuple[StdioCase, ...]
    setup: str = ""
    time_limit: float | None = None  # seconds of one test, where the problem states it


@dataclass(frozen=True, slots=True)
class FunctionalTests:
    """Tests of one function; `setup` runs before the program, in its module.

    >>> parse_tests('[{"input": [1, 2], "output": 3}]', "add").cases
    (FunctionalCase(args=(1, 2), output=3),)
    """

    cases: tuple[FunctionalCase, ...]
    entry_point: str
    setup: str = ""
    time_limit: float | None = None  # seconds of one test, where the problem states it


@dataclass(frozen=True, slots=True)
class AssertTests:
    """Assert statements that run after `setup` and the program (MBPP, HumanEval).

    >>> parse_tests('{"assert": ["assert f(1) == 1"], "setup": ""}', None)
    AssertTests(asserts=('assert f(1) == 1',), setup='', time_limit=None)
    """

    asserts: tuple[str, ...]
    setup: str
    time_limit: float | None = None  # seconds of one test, where the problem states it


Tests = StdioTests | FunctionalTests | AssertTests


def parse_tests(tests: str, entry_point: str | None) -> Tests:
    """Return the typed form of the JSON text `tests`; nothing is run.

    A list of {"input": str, "output": str} is stdin/stdout; a list of {"input": [args], "output":
    value} calls `entry_point`; {"assert": [str, ...]} is asserts. {"cases": [...]} is such a list
    with more to say: as with asserts, "setup" is Python that runs first, and "time_limit" the
    seconds of one test; both are optional. Other keys are ignored. Raises DataError, whose message
    starts with the column.
    """
    value = _from_json("tests", tests)
    if isinstance(value, list):
        return _parse_cases(cast("list[object]", value), entry_point, "", None)
    fields = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    if not fields.keys() & {"assert", "cases"}:
        raise DataError(
            'tests: must be a list of {"input", "output"}, {"cases": [...]} or '
            f'{{"assert": [...], "setup": str}} ({show(tests)})'
        )
    setup, time_limit = _setup_of(fields), parse_time_limit(fields.get("time_limit"), "tests")
    if "cases" not in fields:
        return AssertTests(_asserts_of(fields), setup, time_limit)
    cases = fields["cases"]
    if "assert" in fields or not isinstance(cases, list):
        raise DataError(
            f'tests: "cases" must be a list, and there is no "assert" beside it ({show(cases)})'
        )
    return _parse_cases(cast("list[object]", cases), entry_point, setup, time_limit)


def parse_time_limit(value: object, column: str) -> float | None:
    """Return a limit in seconds, None for none. Raises DataError for anything but a number > 0.

    >>> parse_time_limit(2, "tests")
    2.0
    """
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and 0 < cast("float", value) <= _MAX_TIME_LIMIT_S:
        return float(cast("float", value))
    raise DataError(
        f'{column}: "time_limit" must be seconds of one test, a number above 0 and up to '
        f"{_MAX_TIME_LIMIT_S:g} ({show(value)})"
    )


def time_limit_of(prompt: Prompt) -> float | None:
    """Return what the metadata of a problem says of the seconds of one test, None for nothing.

    >>> time_limit_of(Prompt(id="a", messages=(), meta='{"time_limit": 2}'))
    2.0
    """
    return _meta_time_limit(prompt.meta)


def language_of(prompt: Prompt) -> Language:
    """Return the language that the metadata of a problem asks for programs in; Python by default.

    >>> language_of(Prompt(id="a", messages=(), meta='{"language": "rust"}'))
    'rust'
    """
    return parse_language(meta_fields(prompt.meta).get("language"), "meta")


def parse_language(value: object, column: str) -> Language:
    """Return a language of programs, Python for None. Raises DataError for what is none of them.

    >>> parse_language(None, "meta")
    'python'
    """
    if value is None:
        return "python"
    if value not in _LANGUAGES:
        raise DataError(
            f'{column}: "language" must be one of {", ".join(_LANGUAGES)} ({show(value)})'
        )
    return cast("Language", value)


def watched_input(prompt: Prompt) -> StdioCase | FunctionalCase | None:
    """Return the input that the metadata names to watch programs on, None for nothing.

    >>> prompt = Prompt(id="a", messages=(), entry_point="f", meta='{"watched": [[1, 2]]}')
    >>> watched_input(prompt)
    FunctionalCase(args=([1, 2],), output=None)
    """
    return _meta_watched(prompt.meta, prompt.entry_point)


def _meta_time_limit(meta: str) -> float | None:
    return parse_time_limit(meta_fields(meta).get("time_limit"), "meta")


def _meta_watched(meta: str, entry_point: str | None) -> StdioCase | FunctionalCase | None:
    value = meta_fields(meta).get("watched")
    if value is None:
        return None
    if entry_point is None and isinstance(value, str):
        return StdioCase(value, "")
    if entry_point is not None and isinstance(value, list):
        return FunctionalCase(tuple(cast("list[Any]", value)), None)
    rule = "a text for standard input" if entry_point is None else "a list of arguments"
    raise DataError(f'meta: "watched" must be {rule} ({show(value)})')


def _check_meta(meta: str, entry_point: str | None, *, tested: bool) -> None:
    _meta_time_limit(meta)
    _meta_watched(meta, entry_point)
    language = parse_language(meta_fields(meta).get("language"), "meta")
    if tested and language != "python":
        raise DataError(
            f'meta: "language" is {language}, and tests run Python programs: leave tests null, so '
            "that a reward model judges, or drop the row"
        )


def meta_fields(meta: str) -> dict[str, object]:
    """Return what the metadata of a problem states; nothing where it is no mapping."""
    fields = _from_json("meta", meta)
    return cast("dict[str, object]", fields) if isinstance(fields, dict) else {}


def _setup_of(fields: Mapping[str, object]) -> str:
    setup = fields.get("setup", "")
    if not isinstance(setup, str):
        raise DataError(f'tests: "setup" must be a string ({show(setup)})')
    _check_python("setup", setup)
    return setup


def _check_python(name: str, source: str) -> None:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"tests: {name} must be Python: {error} ({show(source)})") from error


def _asserts_of(fields: Mapping[str, object]) -> tuple[str, ...]:
    asserts = fields.get("assert")
    lines = cast("list[object]", asserts) if isinstance(asserts, list) else []
    if not lines or not all(isinstance(line, str) and line.strip() for line in lines):
        raise DataError(f'tests: "assert" must list one or more statements ({show(asserts)})')
    for number, line in enumerate(lines):
        _check_python(f"assert {number}", cast("str", line))
    return tuple(cast("list[str]", lines))


def _parse_cases(
    values: Sequence[object], entry_point: str | None, setup: str, time_limit: float | None
) -> Tests:
    if not values:
        raise DataError("tests: must hold at least one case ([])")
    cases: list[Mapping[str, object]] = []
    for idx, value in enumerate(values):
        if not isinstance(value, dict) or not {"input", "output"} <= value.keys():
            raise DataError(f'tests: case {idx} needs "input" and "output" ({show(value)})')
        cases.append(cast("dict[str, object]", value))
    if entry_point:
        functional = _functional(cases, entry_point)
        return FunctionalTests(functional, entry_point, setup, time_limit)
    for idx, case in enumerate(cases):
        if isinstance(case["input"], list):
            raise DataError(
                "entry_point: functional tests need the name of the function that they call "
                f"({show(entry_point)}; case {idx} has a list of arguments as input)"
            )
        if not isinstance(case["input"], str) or not isinstance(case["output"], str):
            raise DataError(f"tests: stdin case {idx} needs strings ({show(case)})")
    pairs = tuple(StdioCase(str(case["input"]), str(case["output"])) for case in cases)
    return StdioTests(pairs, setup, time_limit)


def _functional(
    cases: Sequence[Mapping[str, object]], entry_point: str
) -> tuple[FunctionalCase, ...]:
    if not entry_point.isidentifier() or keyword.iskeyword(entry_point):
        raise DataError(
            "entry_point: must be the name of a function, or of a method of class Solution, "
            f"without the class, dots or brackets ({show(entry_point)})"
        )
    parsed: list[FunctionalCase] = []
    for idx, case in enumerate(cases):
        args = case["input"]
        if not isinstance(args, list):
            raise DataError(
                f"tests: input of case {idx} must be the list of arguments of {entry_point!a} "
                f"({show(args)})"
            )
        parsed.append(FunctionalCase(tuple(cast("list[object]", args)), case["output"]))
    return tuple(parsed)


def load_prompts(path: str | Path, max_bad_rows: int = 0) -> list[Prompt]:
    """Read and check a canonical parquet file, in the order of its rows.

    Up to `max_bad_rows` bad rows are skipped with a warning that lists them. Raises one DataError
    for all faults, each as `file:row:column: rule (value)`, when there are more of them, and also
    when the file is missing, is not parquet, lacks a column or is left without a usable row.
    """
    path = Path(path)
    prompts: list[Prompt] = []
    faults: list[str] = []
    num_bad_rows = 0
    first_row_of: dict[str, int] = {}
    for row_idx, (row, row_faults) in enumerate(_read_rows(path)):
        prompt = None if row_faults else _parse_row(row, row_faults)
        first = first_row_of.setdefault(row["id"], row_idx) if row["id"] else row_idx
        if first != row_idx:
            row_faults.append(f"id: must be unique; row {first} has it too ({show(row['id'])})")
        if prompt is not None and not row_faults:
            prompts.append(prompt)
            continue
        num_bad_rows += 1
        faults += [f"{path}:{row_idx}:{fault}" for fault in row_faults]
    if num_bad_rows > max_bad_rows:
        raise DataError(
            f"{listing(faults)}\n{num_bad_rows} bad row(s) in {path}, and data.max_bad_rows is "
            f"{max_bad_rows}: correct the rows, or raise data.max_bad_rows to skip them"
        )
    if not prompts:
        raise DataError(f"{path}: holds no usable row; at least one problem is needed")
    if num_bad_rows:
        logger.warning("skipped %d bad row(s):\n%s", num_bad_rows, listing(faults))
    return prompts


def write_prompts(path: str | Path, prompts: Iterable[Prompt]) -> None:
    """Write a canonical parquet file that `load_prompts` reads back as the same prompts.

    An interrupted write leaves whatever was there before.
    """
    with PromptWriter(path) as writer:
        for prompt in prompts:
            writer.add(prompt)


class PromptWriter(StagedParquet):
    """Writes a canonical parquet file, prompt by prompt."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, SCHEMA, _BATCH_ROWS, _BATCH_CHARS)

    def add(self, prompt: Prompt) -> None:
        """Add one problem."""
        row = {
            "id": prompt.id,
            "prompt": [{"role": m.role, "content": m.content} for m in prompt.messages],
            "tests": prompt.tests,
            "entry_point": prompt.entry_point,
            "source": prompt.source,
            "meta": prompt.meta,
        }
        self.add_row(row, len(prompt.tests or ""))


class PromptSampler:
    """Chooses the prompts of each step: epochs of random order, without repeats inside an epoch.

    >>> sampler = PromptSampler([Prompt(id=i, messages=()) for i in "abcd"], run_seed=0)
    >>> sorted(p.id for step in (1, 2) for p in sampler.take(2, step))
    ['a', 'b', 'c', 'd']
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        run_seed: int,
        ranks: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """`ranks`, by id, order the problems of an epoch; without any they are shuffled."""
        self._ranks = tuple(ranks[prompt.id] for prompt in prompts) if ranks else ()
        self._prompts = tuple(prompts)
        self._ids = tuple(prompt.id for prompt in prompts)
        self._run_seed = run_seed

    def take(
        self, num: int, step: int, state: Mapping[str, Any] = MappingProxyType({})
    ) -> list[Prompt]:
        """Return the `num` prompts of `step`, counted from 1: a function of its arguments alone.

        `state` is what `remember` has gathered, for those who draw by it.

        No step has a prompt twice or reaches across the end of an epoch, because seeds that derive
        from step and prompt would make two groups of one prompt equal; the fewer than `num` prompts
        that are left over are other ones in each epoch. There are fewer than `num` only where the
        data set is smaller, and none where it is empty.
        """
        if num < 1 or step < 1:
            raise ValueError(f"take needs num >= 1 and step >= 1, got num={num}, step={step}")
        del state
        num_prompts = len(self._prompts)
        if not num_prompts:
            return []
        num = min(num, num_prompts)
        stride = num_prompts // num * num  # positions of an epoch that are used
        positions = [divmod(k, stride) for k in range((step - 1) * num, step * num)]
        order = {epoch: self._order(epoch, stride) for epoch, _ in positions}
        return [self._prompts[order[epoch][offset]] for epoch, offset in positions]

    def drawn(self, num: int, step: int, state: Mapping[str, Any]) -> set[str]:
        """Ids of the problems of `take` that `state` has chosen; none here."""
        del num, step, state
        return set()

    def remember(
        self, groups_P: Sequence[JudgedGroup], state: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """What the groups of a step add to the state of the run; nothing here."""
        del groups_P, state
        return {}

    def _order(self, epoch: int, stride: int) -> tuple[int, ...]:
        """Indices of the problems that an epoch uses; which are left over does not go by rank."""
        return _ranked(_epoch_order(self._run_seed, epoch, self._ids)[:stride], self._ranks)

    def spare(self, num: int, step: int, taken: Sequence[Prompt]) -> list[Prompt]:
        """Up to `num` other problems for `step`: a function of its arguments alone."""
        if num == 0:
            return []
        known = {prompt.id for prompt in taken}
        others = [prompt for prompt in self._prompts if prompt.id not in known]
        return sorted(others, key=lambda p: derive_seed(self._run_seed, "spare", step, p.id))[:num]


@lru_cache(maxsize=4)
def _epoch_order(run_seed: int, epoch: int, ids: tuple[str, ...]) -> tuple[int, ...]:
    """Return indices in the order of epoch `epoch`.

    Sorting by a hash depends on no generator whose stream a library may change.
    """
    hashes = [derive_seed(run_seed, "prompt_order", epoch, prompt_id) for prompt_id in ids]
    return tuple(sorted(range(len(ids)), key=lambda idx: (hashes[idx], idx)))


@lru_cache(maxsize=4)
def _ranked(order: tuple[int, ...], ranks: tuple[float, ...]) -> tuple[int, ...]:
    """The order by rank, and by what it was among equal ones."""
    return tuple(sorted(order, key=lambda idx: ranks[idx])) if ranks else order


def _read_rows(path: Path) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Yield each row as plain values, with the faults of cells that cannot be decoded."""
    try:
        with pq.ParquetFile(path) as file:
            _check_schema(path, file.schema_arrow)
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=SCHEMA.names):
                for idx in range(batch.num_rows):
                    faults: list[str] = []
                    yield {n: _cell(batch.column(n)[idx], n, faults) for n in SCHEMA.names}, faults
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: does not exist; give the path of a canonical parquet file"
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as parquet: {error}") from error


def _cell(scalar: pa.Scalar, column: str, faults: list[str]) -> object:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:  # parquet does not check what a writer calls a string
        faults.append(f"{column}: must be UTF-8 text ({error})")
        return None


def _check_schema(path: Path, schema: pa.Schema) -> None:
    """Raise for all columns that are missing or of another type; further columns are ignored."""
    twice = held_twice(path, schema.names, SCHEMA.names)
    faults = list(twice.values())
    for field in SCHEMA:
        if field.name in twice:
            continue
        if field.name not in schema.names:
            faults.append(
                f"{path}:-:{field.name}: the column is missing (found: {', '.join(schema.names)}; "
                f"canonical: {', '.join(SCHEMA.names)})"
            )
            continue
        found = schema.field(field.name).type
        fits = _is_messages(found) if field.name == "prompt" else _is_text(found)
        if not fits and not (field.nullable and pa.types.is_null(found)):
            faults.append(
                f"{path}:-:{field.name}: the column must be of type {field.type} ({found})"
            )
    if faults:
        raise DataError("\n".join(faults))


def _is_text(found: pa.DataType) -> bool:
    if pa.types.is_dictionary(found):
        return _is_text(found.value_type)
    return bool(
        pa.types.is_string(found)
        or pa.types.is_large_string(found)
        or pa.types.is_string_view(found)
    )


def _is_messages(found: pa.DataType) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(kind(found) for kind in kinds):
        return False
    turn = found.value_type
    if not pa.types.is_struct(turn):
        return False
    types = {turn.field(idx).name: turn.field(idx).type for idx in range(turn.num_fields)}
    return all(name in types and _is_text(types[name]) for name in ("role", "content"))


def _parse_row(row: Mapping[str, Any], faults: list[str]) -> Prompt:
    """Return the prompt of a row and append its faults, each as `column: rule (value)`.

    What is returned is of use only when no fault was appended.
    """
    if not row["id"]:
        faults.append(f"id: must be a non-empty string ({show(row['id'])})")
    tests, entry_point, meta = row["tests"], row["entry_point"], row["meta"]
    _collect(faults, lambda: tests is None or parse_tests(tests, entry_point))
    _collect(
        faults,
        lambda: meta is None or _check_meta(meta, entry_point or None, tested=tests is not None),
    )
    return Prompt(
        id=row["id"] or "",
        messages=_messages(row["prompt"] or (), faults),
        tests=tests,
        entry_point=entry_point or None,
        source=row["source"] or "",
        meta=meta or "{}",
    )


def _collect(faults: list[str], check: Callable[[], object]) -> None:
    try:
        check()
    except DataError as error:
        faults.append(str(error))


def _messages(
    turns: Sequence[Mapping[str, str | None] | None], faults: list[str]
) -> tuple[Message, ...]:
    if not turns:
        faults.append("prompt: must hold at least one turn (null or empty)")
        return ()
    messages: list[Message] = []
    for idx, turn in enumerate(turns):
        role, content = (turn["role"], turn["content"]) if turn else (None, None)
        if role not in _ROLES:
            faults.append(f"prompt: role of turn {idx} must be one of {_ROLES} ({show(role)})")
        elif content is None or not content.strip():
            faults.append(f"prompt: content of turn {idx} must not be empty ({show(content)})")
        else:
            messages.append(Message(role, content))
    if len(messages) == len(turns) and messages[-1].role != "user":
        faults.append(f"prompt: the last turn must be the user's ({show(messages[-1].role)})")
    return tuple(messages)


def _from_json(column: str, text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # too deep, or an integer of too many digits
        raise DataError(f"{column}: must be JSON: {error} ({show(text)})") from error
