"""Rollout sources: programs that a policy wrote, from rollout files and evaluation samples.

Files are read row by row, so their size does not matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from glob import glob
from hashlib import blake2b
from pathlib import Path

from conf.errors import DataError, UserError
from reward.pairs.pairs import LabelledCode
from rl.run.directory import HELD_OUT, RolloutFolder, RunDirectory
from rl.run.evaluation_store import read_samples
from rl.run.rollouts import LongText, read_rows
from rl.types import Task, Verdict

_SAMPLES = ".samples.jsonl"


@dataclass(frozen=True, slots=True)
class RolloutFile:
    """One file, and the run that it is of."""

    path: Path
    run: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutCode:
    """The program of one completion, and the verdict on it if there is one."""

    prompt_id: str
    question: LongText
    code: LongText  # "" where there is none
    reason: str  # of extraction
    run: str
    step: int
    policy_version: int
    sample_idx: int
    verdict: Verdict | None = None  # None: no test was run
    num_passed: int | None = None  # None: not all tests were run
    num_tests: int | None = None
    task: str = "code"

    def labelled(self) -> LabelledCode:
        """The program with its label. ValueError when there is none."""
        if self.verdict is None or not self.verdict.is_label:
            raise ValueError(f"{self.prompt_id}: has no verdict ({self.verdict})")
        share = None
        if self.num_passed is not None and self.num_tests:
            share = self.num_passed / self.num_tests
        return LabelledCode(
            prompt_id=self.prompt_id,
            question=self.question,
            code=self.code,
            passed=self.verdict is Verdict.PASSED,
            tests_passed=share,
            step=self.step,
            policy_version=self.policy_version,
            run=self.run,
        )


@dataclass(slots=True)
class RolloutCounts:
    """What files hold."""

    num_rows: int = 0
    num_codes: int = 0  # rows with code
    num_undecided: int = 0  # of these, those that the sandbox could not run
    num_unjudged: int = 0  # and those that cannot be judged
    # Of problems with programs: id -> digest of the problem's text, and the file that has it.
    problems: dict[str, tuple[bytes, Path]] = field(default_factory=dict[str, tuple[bytes, Path]])
    unverified: set[str] = field(default_factory=set[str])  # ids with programs that were not run


def find_rollouts(inputs: Sequence[str], key: str = "input") -> list[RolloutFile]:
    """The files that `inputs`, the value of `key`, name.

    Run directories, directories of files, files, or patterns; of the runs below a directory the
    rollouts, and what they held out only where it is named itself. Samples of `launch/evaluate.py`
    (`*.samples.jsonl`) count as well as rollout parquet. Raises UserError where there is none.
    """
    found: dict[Path, RolloutFile] = {}
    for given in inputs:
        path = Path(given)
        matches = [path] if path.exists() else sorted(map(Path, glob(given, recursive=True)))
        files = [file for match in matches for file in _files_under(match)]
        if not files:
            raise UserError(
                f"{key}: {given!r} names no rollouts; give a run directory, or parquet files of "
                f"its rollouts/, or a *{_SAMPLES} of launch/evaluate.py"
            )
        found |= {file.resolve(): RolloutFile(file, _run_of(file)) for file in files}
    return list(found.values())


def _files_under(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    trained_on = RunDirectory(path).rollouts(RolloutFolder.TRAINING)
    path = trained_on if trained_on.is_dir() else path
    found = sorted([*path.rglob("*.parquet"), *path.rglob(f"*{_SAMPLES}")])
    return [file for file in found if not HELD_OUT & {*file.relative_to(path).parts[:-1]}]


def _run_of(file: Path) -> str:
    """`experiment/name` of a run directory's file, else the file's own name."""
    if file.parent.name == RolloutFolder.TRAINING:
        return "/".join(file.resolve().parts[-4:-2])
    return file.name.removesuffix(_SAMPLES).removesuffix(".parquet")


def run_directories(files: Sequence[RolloutFile]) -> list[Path]:
    """Directories of the runs that these files are of, as far as they are still in them."""
    parents = dict.fromkeys(file.path.resolve().parent for file in files)
    return [
        parent.parent
        for parent in parents
        if parent.name == RolloutFolder.TRAINING and RunDirectory(parent.parent).config.is_file()
    ]


def count_rollouts(files: Sequence[RolloutFile]) -> RolloutCounts:
    """Read all files once. Raises DataError `file:row:column` for the first fault of each.

    Two problems under one id are a fault: their programs would be taken for answers to one.
    """
    counts = RolloutCounts()
    faults: list[str] = []
    for file in files:
        try:
            for number, row in enumerate(iter_rows(file), start=1):
                counts.num_rows += 1
                if not row.code:
                    continue
                counts.num_codes += 1
                counts.num_undecided += row.verdict is Verdict.SANDBOX_ERROR
                counts.num_unjudged += row.verdict is Verdict.UNJUDGED
                digest = question_digest(row.question)
                known, where = counts.problems.setdefault(row.prompt_id, (digest, file.path))
                if known != digest:
                    raise DataError(
                        f"{file.path}:{number}:question: problem {row.prompt_id!r} is "
                        f"another text in {where}; mine them apart, or give them other ids"
                    )
                if row.verdict is None:
                    counts.unverified.add(row.prompt_id)
        except DataError as error:
            faults.append(str(error))
    if faults:
        raise DataError("\n".join(faults))
    if not counts.num_codes:
        raise DataError(f"{files[0].path}: none of {counts.num_rows} rollouts has a valid program")
    return counts


def iter_codes(file: RolloutFile) -> Iterator[RolloutCode]:
    """Yield the completions that have a program, in the order of the file."""
    return (row for row in iter_rows(file) if row.code)


def question_digest(question: str) -> bytes:
    """Identity of a problem's text."""
    return blake2b(question.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def iter_rows(file: RolloutFile) -> Iterator[RolloutCode]:
    """Yield every completion that was asked for a program. DataError `file:row:column`."""
    if file.path.name.endswith(".jsonl"):
        return _sample_rows(file)
    rows = read_rows(file.path, RolloutCode, run=file.run)
    return (row for row in rows if row.task == Task.CODE)


def _sample_rows(file: RolloutFile) -> Iterator[RolloutCode]:
    for number, row in enumerate(read_samples(file.path), start=1):
        questions = [turn["content"] for turn in row.prompt if turn.get("role") == "user"]
        if not questions:
            raise DataError(f"{file.path}:{number}:prompt: has no user turn")
        yield RolloutCode(
            prompt_id=row.problem_id,
            question=questions[-1],
            code=row.code,
            reason=row.reason,
            run=file.run,
            step=0,
            policy_version=0,
            sample_idx=row.sample_idx,
            verdict=row.verdict,
            num_passed=row.num_passed,
            num_tests=row.num_tests,
        )
