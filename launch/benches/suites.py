"""Suites of programs whose verdict is known: how often ours agrees, and what it costs.

A suite is a file `NAME.jsonl` of the rows that `launch/verify.py` takes, each with `should`: what a
plain Python process says of the program, `pass` or `fail`, or `refuse` where the row is malformed.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from actors.groups.verifiers import make_verifier
from conf.errors import DataError, UserError
from conf.schema import ExecutionConfig
from reward.verify.execute import verify_persistently
from reward.verify.verdict import Program, ProgramResult, Verifier
from rl.base.console import Console
from rl.base.files import replace_file
from rl.base.json_text import JsonFault, parse_json
from rl.base.jsonlines import as_line
from rl.problems.prompts import parse_tests

Should = Literal["pass", "fail", "refuse"]
_SHOULD: tuple[str, ...] = get_args(Should)
_MAX_FAULTS = 20
_BATCH = 256  # programs between two moves of the progress bar


@dataclass(frozen=True, slots=True)
class Case:
    """A program, its tests, and what should be said of them."""

    id: str
    program: Program
    should: Should


@dataclass(slots=True)
class Agreement:
    """What our verdicts on one suite are worth."""

    suite: str
    num_rows: int = 0
    num_agreeing: int = 0
    false_passes: list[str] = field(default_factory=list[str])  # ids
    false_fails: list[str] = field(default_factory=list[str])
    unjudged: list[str] = field(default_factory=list[str])
    seconds: float = 0.0  # wall clock
    cpu_s: float = 0.0  # of the programs' processes and the sandbox

    def add(self, case: Case, judgement: ProgramResult | None) -> bool:
        """Count one verdict, None for a refused row; return whether it is as it should be."""
        self.num_rows += 1
        if judgement is None:
            agrees, others = case.should == "refuse", self.false_fails
        elif not judgement.is_label:
            agrees, others = False, self.unjudged
        else:
            agrees = case.should == ("pass" if judgement.passed else "fail")
            others = self.false_passes if judgement.passed else self.false_fails
        if agrees:
            self.num_agreeing += 1
        else:
            others.append(case.id)
        return agrees

    def columns(self) -> tuple[str, ...]:
        """The line of the table."""
        return (
            self.suite,
            str(self.num_rows),
            f"{self.num_agreeing / max(1, self.num_rows):.2%}",
            *(str(len(ids)) for ids in (self.false_passes, self.false_fails, self.unjudged)),
            f"{self.num_rows / max(1e-9, self.seconds):.1f}",
            f"{self.cpu_s:.1f}",
        )


COLUMNS = (
    "suite",
    "rows",
    "agreement",
    "false passes",
    "false fails",
    "unjudged",
    "rows/s",
    "CPU s",
)


def measure_suites(
    directory: Path,
    workers: int,
    timeout_s: float,
    disagreements: Path | None = None,
    cfg: ExecutionConfig | None = None,
) -> list[Agreement]:
    """Judge every suite of the directory and print the table; write what disagrees, and why.

    Raises:
        UserError: where the directory has no suite, or a row is malformed; nothing has run then.
    """
    suites = read_suites(directory)
    console = Console()
    found: list[Agreement] = []
    lines: list[str] = []
    for name, cases in suites.items():
        console.stage(name, f"{len(cases)} programs")
        verifier = make_verifier(cfg or ExecutionConfig(), timeout_s, workers)
        agreement, wrong = _judge(name, cases, verifier, console)
        found.append(agreement)
        lines += [as_line({"suite": name} | row) for row in wrong]
    console.table("suites", [agreement.columns() for agreement in found], COLUMNS)
    if disagreements is not None:
        replace_file(disagreements, "".join(lines))
        console.say(f"{len(lines)} disagreements written to {disagreements}")
    return found


def _judge(
    name: str, cases: Sequence[Case], verifier: Verifier, console: Console
) -> tuple[Agreement, list[dict[str, Any]]]:
    agreement = Agreement(name)
    wrong: list[dict[str, Any]] = []
    sound = [case for case in cases if _is_sound(case.program)]
    judgements: dict[int, ProgramResult] = {}
    cpu_s, started = _cpu_of_descendants(), time.perf_counter()
    with verifier, console.steps(len(sound), what="programs"):
        for begin in range(0, len(sound), _BATCH):
            batch = sound[begin : begin + _BATCH]
            found = verify_persistently(verifier, [case.program for case in batch])
            for case, judgement in zip(batch, found, strict=True):
                judgements[id(case)] = judgement
                console.advance()
        agreement.seconds = time.perf_counter() - started
        agreement.cpu_s = _cpu_of_descendants() - cpu_s
    for case in cases:
        judgement = judgements.get(id(case))
        if not agreement.add(case, judgement):
            said = "refused" if judgement is None else judgement.verdict.value
            detail = "" if judgement is None else judgement.detail
            wrong.append({"id": case.id, "should": case.should, "verdict": said, "detail": detail})
    return agreement, wrong


def _is_sound(program: Program) -> bool:
    try:
        parse_tests(program.tests, program.entry_point)
    except DataError:
        return False
    return True


def _cpu_of_descendants() -> float:
    """User and system seconds of the processes below this one, of those that have ended too.

    A sandbox is killed when it is closed, and what it has used then counts nowhere: ask before.
    """
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, IndexError):  # it ended just now
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            parents[int(name)] = int(fields[1])
            seconds[int(name)] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    used = 0.0
    for process, used_s in seconds.items():
        above = parents.get(process, 0)
        while above and above != os.getpid():
            above = parents.get(above, 0)
        used += used_s if above else 0.0
    return used


# ---------------------------------------------------------------- files


def read_suites(directory: Path) -> dict[str, list[Case]]:
    """The suites of a directory by name, in the order of their names.

    Raises:
        UserError: where there are none.
        DataError: for malformed rows, all of them at once, as `file:line:column: rule (value)`.
    """
    paths = sorted(directory.glob("*.jsonl"))
    if not paths:
        raise UserError(f"suites: {directory} holds no *.jsonl; give a directory of such files")
    faults: list[str] = []
    suites = {path.stem: list(_read(path, faults)) for path in paths}
    if faults:
        more = [f"and {len(faults) - _MAX_FAULTS} more"] if len(faults) > _MAX_FAULTS else []
        raise DataError("\n".join([*faults[:_MAX_FAULTS], *more]))
    empty = [path.name for path in paths if not suites[path.stem]]
    if empty:
        raise UserError(f"suites: {empty[0]} in {directory} holds no row; fill it or remove it")
    return suites


def _read(path: Path, faults: list[str]) -> Iterator[Case]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield _case(line, number)
            except DataError as error:
                faults.append(f"{path}:{number}:{error}")


def _case(line: bytes, number: int) -> Case:
    try:
        value = parse_json(line)
    except JsonFault as fault:
        raise DataError(f"{fault.column}: {fault}") from fault
    if not isinstance(value, dict):
        raise DataError(f"-: must be an object, not {type(value).__name__}")
    row = cast("dict[str, Any]", value)
    code, tests, should = row.get("code"), row.get("tests"), row.get("should")
    entry_point = row.get("entry_point")
    if not isinstance(code, str):
        raise DataError(f"code: must be the text of a program ({code!r:.80})")
    if tests is None:
        raise DataError("tests: a list of cases or an object with asserts is needed (None)")
    if should not in _SHOULD:
        raise DataError(f"should: must be one of {', '.join(_SHOULD)} ({should!r:.80})")
    if entry_point is not None and not isinstance(entry_point, str):
        raise DataError(f"entry_point: must be a name or null ({entry_point!r:.80})")
    program = Program(code, tests if isinstance(tests, str) else json.dumps(tests), entry_point)
    case = Case(str(row.get("id", number)), program, cast("Should", should))
    if case.should != "refuse":
        parse_tests(program.tests, program.entry_point)
    return case
