"""Judge a file of programs by their tests, on a pool of actors, in the order of the lines."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import ray

from actors.cluster.deadlines import wait_for
from actors.cluster.session import session
from actors.groups.verifiers import check_sandbox, make_verifier, sandbox_limits
from conf.errors import DataError, ProjectError
from conf.schema import BlockRule, ExecutionConfig, RayConfig
from reward.code.extract import ExtractConfig, extract
from reward.verify.execute import verify_persistently
from reward.verify.verdict import Program, ProgramResult, longest
from rl.base.console import Console
from rl.base.files import replacing
from rl.base.json_text import JsonFault, parse_json
from rl.base.jsonlines import as_line, given_lines
from rl.problems.prompts import parse_tests, parse_time_limit
from rl.types import Extraction, Reason, Verdict

_CHUNK_ROWS = 32
_CHUNK_BYTES = 4 << 20
_CHUNKS_AHEAD = 3  # per actor: what is in memory at once
_GRACE_S = 120.0
_MAX_FAULTS = 20
_FIELDS = ("verdict", "passed", "num_passed", "num_tests", "seconds", "detail")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyFile:
    """What `verify_file` does."""

    source: Path
    target: Path
    sandbox: ExecutionConfig
    timeout_s: float
    early_stop: bool
    workers: int | None  # None: one for each core of the cluster
    rule: BlockRule
    max_bad_rows: int = 0  # malformed lines that get an error instead of a verdict


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the input: a row to judge, or what is wrong with it."""

    row: dict[str, Any]  # as far as there is one
    error: str | None = None  # `file:line:column: rule (value)`, all of them


@dataclass(slots=True)
class Counts:
    """What became of the lines of a file."""

    verdicts: Counter[Verdict] = field(default_factory=Counter[Verdict])
    lost: Counter[Reason] = field(default_factory=Counter[Reason])  # no program in the response
    skipped: int = 0  # malformed


# Lines, the programs of those that are sound, the judgements on them, and how many seconds these
# may take.
_Chunk = tuple[list[Line], list[Extraction], Any, float]


class VerifierActor:
    """One slot of the pool: a fork server with a user of its own."""

    def __init__(self, cfg: ExecutionConfig, timeout_s: float, *, early_stop: bool) -> None:
        self._verifier = make_verifier(cfg, timeout_s, early_stop=early_stop)

    def verify(self, programs: Sequence[Program]) -> list[ProgramResult]:
        """Judge programs, in order."""
        return verify_persistently(self._verifier, programs)


RemoteVerifierActor = ray.remote(VerifierActor)


def verify_file(cluster: RayConfig, job: VerifyFile) -> int:
    """Judge the lines of `job.source` into `job.target`, which appears only when it is complete.

    Returns the number of lines whose program could not be run at all. Files of any size: a bounded
    number of lines is in memory. Up to `job.max_bad_rows` malformed lines get an `error`.

    Raises:
        UserError: where the machine does not reach `sandbox.min_level`.
        DataError: `file:line:column: rule (value)` for more malformed lines; nothing has run then.
    """
    level = check_sandbox(job.sandbox)
    num_rows = _check(job.source, job.max_bad_rows)
    console = Console()
    console.stage("verify", f"{num_rows} programs, sandbox level {int(level)}")
    with session(cluster, f"verify-{job.target.stem}") as run:
        counts = run(_verify(job, num_rows, console))
    rows = [(str(verdict), str(num), "") for verdict, num in counts.verdicts.most_common()]
    console.table("verdicts", rows)
    lost = [(reason.value, str(num), "") for reason, num in (+counts.lost).most_common()]
    if lost:
        console.table("responses without a program", lost)
    if counts.skipped:
        console.say(f"{counts.skipped} malformed lines skipped; `error` of each says why")
    console.say(f"written to {job.target}")
    return counts.verdicts[Verdict.SANDBOX_ERROR]


async def _verify(job: VerifyFile, num_rows: int, console: Console) -> Counts:
    num_actors = job.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    num_actors = min(num_actors, -(-num_rows // _CHUNK_ROWS))
    actors: list[Any] = [
        RemoteVerifierActor.options(name=f"sandbox-{index}", num_cpus=1).remote(
            job.sandbox, job.timeout_s, early_stop=job.early_stop
        )
        for index in range(num_actors)
    ]
    counts = Counts()
    # Results are written in the order of the lines, so a slow chunk holds back at most the chunks
    # that are ahead of it; each waits for as long as its programs and theirs may take.
    limits = sandbox_limits(job.sandbox, job.timeout_s)
    longest_s = 0.0
    waiting: deque[_Chunk] = deque()
    chunks = _chunks(job.source)
    with (
        replacing(job.target) as staged,
        staged.open("w", encoding="ascii") as file,
        console.steps(num_rows),
    ):
        for number, lines in enumerate(chunks):
            rows = [line.row for line in lines if line.error is None]
            found = [_extraction(row, job.rule) for row in rows]
            programs = [_program(row, e) for row, e in zip(rows, found, strict=True)]
            actor = actors[number % num_actors]
            longest_s = max(longest_s, sum(longest(program, limits) for program in programs))
            deadline_s = _CHUNKS_AHEAD * longest_s + _GRACE_S
            waiting.append((lines, found, actor.verify.remote(programs), deadline_s))
            if len(waiting) >= _CHUNKS_AHEAD * num_actors:
                await _write(waiting.popleft(), file, counts, console)
        while waiting:
            await _write(waiting.popleft(), file, counts, console)
    return counts


async def _write(
    chunk: _Chunk,
    file: Any,  # noqa: ANN401 - an open text file
    counts: Counts,
    console: Console,
) -> None:
    lines, found, reference, deadline_s = chunk
    judgements = await wait_for(reference, deadline_s, f"verdicts on {len(found)} programs")
    judged = zip(found, judgements, strict=True)
    for line in lines:
        if line.error is not None:
            file.write(as_line(line.row | dict.fromkeys(_FIELDS) | {"error": line.error}))
            counts.skipped += 1
            console.advance()
            continue
        extraction, judgement = next(judged)
        lost = "" if extraction.valid else f"{extraction.reason.value}: {extraction.detail}"
        unknown = not judgement.is_label
        fields = {
            "verdict": judgement.verdict.value,
            "passed": None if unknown else judgement.passed,
            "num_passed": None if unknown else judgement.num_passed,
            "num_tests": judgement.num_tests,
            "seconds": round(judgement.seconds, 4),
            "detail": lost.removesuffix(": ") or judgement.detail,
        }
        file.write(as_line(line.row | fields))
        counts.verdicts[judgement.verdict] += 1
        counts.lost[extraction.reason] += not extraction.valid
        console.advance()


def _extraction(row: dict[str, Any], rule: BlockRule) -> Extraction:
    """The program of a row: as it stands there, or out of the response."""
    code = row.get("code")
    if code is not None:
        return Extraction(reason=Reason.OK, code=code)
    return extract(row["response"], ExtractConfig(rule=rule, trivial_is_valid=True))


def _program(row: dict[str, Any], extraction: Extraction) -> Program:
    return Program(
        code=extraction.code,
        tests=_tests_of(row),
        entry_point=row.get("entry_point"),
        time_limit=parse_time_limit(row.get("time_limit"), "time_limit"),
    )


def _tests_of(row: Mapping[str, Any]) -> str:
    tests = row["tests"]
    return tests if isinstance(tests, str) else json.dumps(tests)


def _chunks(source: Path) -> Iterator[list[Line]]:
    chunk: list[Line] = []
    size = 0
    for line, text in _lines(source):
        chunk.append(line)
        size += len(text)
        if len(chunk) >= _CHUNK_ROWS or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _lines(source: Path) -> Iterator[tuple[Line, bytes]]:
    for number, text in given_lines(source):
        yield _read(text, f"{source}:{number}:"), text


def _read(text: bytes, place: str) -> Line:
    try:
        value = parse_json(text)
    except JsonFault as fault:
        return Line({}, f"{place}{fault.column}: {fault}")
    if not isinstance(value, dict):
        return Line({}, f"{place}-: must be an object, not {type(value).__name__}")
    row = cast("dict[str, Any]", value)
    return Line(row, "\n".join(f"{place}{fault}" for fault in _faults(row)) or None)


def _check(source: Path, max_bad_rows: int) -> int:
    """Count the lines. Raises one DataError where more than `max_bad_rows` are malformed."""
    faults: list[str] = []
    num_rows = num_bad = 0
    for line, _ in _lines(source):
        num_rows += 1
        if line.error is not None:
            num_bad += 1
            faults += [line.error] if len(faults) < _MAX_FAULTS else []
    if num_bad > max_bad_rows:
        said = (
            f"{num_bad} of {num_rows} lines are malformed, and max_bad_rows is {max_bad_rows}: "
            "correct the lines, or raise max_bad_rows to skip them"
        )
        raise DataError("\n".join([*faults, said]))
    if num_bad == num_rows:
        raise DataError(f"{source}: holds no sound line; give at least one program")
    return num_rows


def _faults(row: Mapping[str, Any]) -> Iterator[str]:
    texts = {name: row[name] for name in ("code", "response") if row.get(name) is not None}
    if not texts:
        yield "response: a text is needed here or as code (None)"
    for name, value in texts.items():
        if not isinstance(value, str):
            yield f"{name}: must be a text ({value!r:.80})"
    entry_point = row.get("entry_point")
    if entry_point is not None and not isinstance(entry_point, str):
        yield f"entry_point: must be a name or null ({entry_point!r:.80})"
    elif row.get("tests") is None:
        yield "tests: a list of cases or an object with asserts is needed (docs/sandbox.md)"
    else:
        yield from _said(lambda: parse_tests(_tests_of(row), entry_point))
    yield from _said(lambda: parse_time_limit(row.get("time_limit"), "time_limit"))


def _said(check: Callable[[], object]) -> Iterator[str]:
    try:
        check()
    except DataError as error:
        yield str(error)


def refuse_unknown(num_unknown: int) -> None:
    """Raise ProjectError when programs could not be run: that is no verdict on them."""
    if num_unknown:
        raise ProjectError(f"{num_unknown} programs could not be run at all (SANDBOX_ERROR)")
