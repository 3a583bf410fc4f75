"""Evaluation store: a JSON line on disk for every sampled answer and its verdict.

The samples of a finished group are appended together and reach the disk before the call returns,
so an interrupted evaluation loses no finished group. Beside them lies a file with the settings that
they depend on: samples of other settings are never mixed. Whatever an interruption left incomplete
(a torn line, a part of a group) is dropped when the evaluation goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast, get_origin, get_type_hints

from conf.errors import DataError, UserError
from rl.base.files import lack_of, replace_json
from rl.base.json_text import parse_json
from rl.base.jsonlines import Line, append_lines, keep_lines, read_lines
from rl.types import Prompt, Verdict

Settings = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The part of a sample that figures are made of.

    >>> Outcome(sample_idx=0, verdict=Verdict.PASSED, reason="ok", finish="stop").passed
    True
    """

    sample_idx: int
    verdict: Verdict
    reason: str  # of extraction
    finish: str

    @property
    def passed(self) -> bool:
        """True when every test passed."""
        return self.verdict is Verdict.PASSED


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRow:
    """One line of the samples file."""

    problem_id: str
    problem: str  # digest of what was asked and tested
    sample_idx: int  # 0 <= sample_idx < num_samples
    prompt: list[dict[str, str]]  # role, content
    text: str
    code: str  # "" where there is none to run
    reason: str  # of extraction
    verdict: Verdict
    num_passed: int
    num_tests: int
    seconds: float  # of the program's processes
    detail: str  # for people: why there is no code, or how the deciding test failed
    finish: str
    num_tokens: int

    @property
    def outcome(self) -> Outcome:
        """What the figures need of it."""
        return Outcome(self.sample_idx, self.verdict, self.reason, self.finish)


# What JSON holds for each field.
_KINDS: dict[str, type | tuple[type, ...]] = {
    name: {float: (int, float), Verdict: str}.get(hint) or get_origin(hint) or hint
    for name, hint in get_type_hints(SampleRow).items()
}


def problem_digest(prompt: Prompt) -> str:
    """Identity of what is asked and tested, whatever the id.

    >>> problem_digest(Prompt(id="a", messages=())) == problem_digest(Prompt(id="b", messages=()))
    True
    """
    turns = [[message.role, message.content] for message in prompt.messages]
    encoded = json.dumps([turns, prompt.tests, prompt.entry_point]).encode("ascii")
    return blake2b(encoded, digest_size=8).hexdigest()


class SampleStore:
    """The samples of one evaluation, beside its output: `OUT.samples.jsonl`, `OUT.settings.json`.

    `finished` reads and checks, `begin` makes the files ready, `append` adds a group.
    """

    def __init__(self, output: Path, num_samples: int) -> None:
        self.path = output.with_name(f"{output.stem}.samples.jsonl")
        self.settings_path = output.with_name(f"{output.stem}.settings.json")
        self._num_samples = num_samples

    def finished(
        self, settings: Settings, problems: Sequence[Prompt]
    ) -> dict[str, tuple[Outcome, ...]]:
        """Outcomes of the problems whose groups are complete and decided, by problem id.

        Changes nothing on disk. Raises UserError when the samples were made with other settings,
        and DataError `file:line:column` when a line is not one of this file, or when a problem has
        changed since it was sampled.
        """
        if not self._has_samples():
            return {}
        self._check_settings(settings)
        digests = {prompt.id: problem_digest(prompt) for prompt in problems}
        groups = self._groups(digests)
        return {
            problem_id: group
            for problem_id in digests
            if (group := self._complete(groups.get(problem_id, {}))) is not None
        }

    def begin(self, settings: Settings, *, anew: bool) -> None:
        """Write the settings and drop what is incomplete; `anew` drops all samples."""
        if anew or not self._has_samples():
            self.path.unlink(missing_ok=True)
            replace_json(self.settings_path, dict(settings))
            return
        complete = {
            problem_id
            for problem_id, group in self._groups({}).items()
            if self._complete(group) is not None
        }
        keep_lines(self.path, lambda line: line.value["problem_id"] in complete)

    def append(self, rows: Sequence[SampleRow]) -> None:
        """Add the samples of one group; on return they are on the disk."""
        append_lines(self.path, map(asdict, rows))

    def rows(self) -> Iterator[SampleRow]:
        """Every sample on disk, in the order in which groups were finished."""
        return read_samples(self.path)

    def _has_samples(self) -> bool:
        return self.path.is_file() and self.path.stat().st_size > 0

    def _check_settings(self, settings: Settings) -> None:
        again = "give the same value, another output=, or resume=never to start again"
        try:
            read: object = parse_json(self.settings_path.read_bytes())
            if not isinstance(read, dict):
                raise ValueError("not a JSON object")
            known = cast("dict[str, object]", read)
        except (OSError, ValueError) as error:
            raise UserError(
                f"resume: {self.path} has samples, but {self.settings_path}, which says how they "
                f"were made, cannot be read ({error}); give another output=, or resume=never to "
                "start again"
            ) from error
        now = cast("dict[str, object]", json.loads(json.dumps(dict(settings))))
        faults = [
            f"{name}: {self.path} was sampled with {_show(known.get(name))}, and now it is "
            f"{_show(now.get(name))}; {again}"
            for name in sorted({*now, *known})
            if now.get(name) != known.get(name)
        ]
        if faults:
            raise UserError("\n".join(faults))

    def _groups(self, digests: Mapping[str, str]) -> dict[str, dict[int, Outcome]]:
        groups: dict[str, dict[int, Outcome]] = {}
        for row in self.rows():
            if digests.get(row.problem_id, row.problem) != row.problem:
                raise DataError(
                    f"data.path: problem {row.problem_id!r} has another text or other tests than "
                    f"when {self.path} was sampled; give the same file, another output=, or "
                    "resume=never to start again"
                )
            groups.setdefault(row.problem_id, {})[row.sample_idx] = row.outcome
        return groups

    def _complete(self, group: Mapping[int, Outcome]) -> tuple[Outcome, ...] | None:
        if set(group) != set(range(self._num_samples)):
            return None
        ordered = tuple(group[index] for index in sorted(group))
        return None if any(o.verdict is Verdict.SANDBOX_ERROR for o in ordered) else ordered


def read_samples(path: Path) -> Iterator[SampleRow]:
    """Yield the rows of a samples file; DataError `file:line:column` for a line that is none."""
    return map(_parse, read_lines(path))


def samples_by_problem(
    path: Path, problems: Sequence[Prompt], num_samples: int
) -> dict[str, list[SampleRow]]:
    """The first `num_samples` samples of each problem, by problem id.

    Raises DataError when a problem has changed since it was sampled, lacks samples, or has one that
    could not be judged.
    """
    if (lack := lack_of(path)) is not None:
        raise DataError(f"samples: {path} {lack}; give samples=FILE of launch/evaluate.py")
    digests = {prompt.id: problem_digest(prompt) for prompt in problems}
    groups: dict[str, dict[int, SampleRow]] = {name: {} for name in digests}
    for row in read_samples(path):
        if row.problem_id in groups and row.sample_idx < num_samples:
            groups[row.problem_id][row.sample_idx] = row
    for name, group in groups.items():
        if len(group) < num_samples:
            raise DataError(
                f"samples: {path} has {len(group)} samples of problem {name!r}, and num_samples="
                f"{num_samples}; lower num_samples, or give the benchmark that it was made for"
            )
        for row in group.values():
            if row.problem != digests[name]:
                raise DataError(
                    f"samples: problem {name!r} has another text or other tests than when {path} "
                    "was sampled; give the same benchmark and data.path"
                )
            if row.verdict is Verdict.SANDBOX_ERROR:
                raise DataError(
                    f"samples: a program of problem {name!r} in {path} could not be run "
                    f"({row.verdict}); run launch/evaluate.py again, which repeats it"
                )
    return {name: [group[i] for i in range(num_samples)] for name, group in groups.items()}


def _parse(line: Line) -> SampleRow:
    if line.fields.keys() != _KINDS.keys():
        names = ", ".join(sorted(_KINDS))
        raise DataError(f"{line.place}:1: not a sample of an evaluation (fields: {names})")
    for name, kind in _KINDS.items():
        if not isinstance(line.fields[name], kind):
            raise DataError(f"{line.place}:{name}: has another type ({line.fields[name]!r})")
    for turn in cast("list[Any]", line.fields["prompt"]):
        if not isinstance(turn, dict) or not all(
            isinstance(cast("dict[str, Any]", turn).get(name), str) for name in ("role", "content")
        ):
            raise DataError(f"{line.place}:prompt: has a turn without role or content ({turn!r})")
    fields = dict(line.fields)
    fields["verdict"] = Verdict.read(fields["verdict"], f"{line.place}:verdict")
    return SampleRow(**fields)


def _show(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def outcomes_of(rows: Iterable[SampleRow]) -> tuple[Outcome, ...]:
    """The outcomes of one group, in the order of its samples."""
    return tuple(row.outcome for row in sorted(rows, key=lambda row: row.sample_idx))
