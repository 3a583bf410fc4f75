"""The summary of a run, `summary.json`: its final figures. Scripts of users rely on its keys."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from conf.errors import DataError
from rl.base.files import replace_json
from rl.base.json_text import JsonFault, parse_json
from rl.run.evaluate import best_of_n, mean_pass_at

_BEST_OF = re.compile(r"bon(\d+)_pass@1")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFigures:
    """Figures of one policy on the held-out problems; shares, None where a file has none."""

    pass_at_1: float | None
    best_of: float | None  # of num_samples, chosen by score
    oracle: float | None  # any of num_samples passes
    marks: Mapping[str, float] = field(default_factory=dict[str, float])  # of the recipe

    @classmethod
    def from_json(
        cls, which: str, num_samples: int | None, record: Mapping[str, Any]
    ) -> PolicyFigures:
        """Those of base or final, from what `_both` makes."""
        bare = "" if which == "base" else f"{which}_"
        return cls(
            pass_at_1=record.get(f"{which}_pass@1"),
            best_of=record.get(f"{bare}bon{num_samples}_pass@1"),
            oracle=record.get(f"{bare}oracle_pass@{num_samples}"),
            marks=record.get(f"{which}_marks", {}),
        )

    @classmethod
    def of(
        cls, scores_PG: Sequence[Sequence[float | None]], passed_PG: Sequence[Sequence[bool]]
    ) -> PolicyFigures:
        """Figures of an evaluation, from the score and the verdict of each completion."""
        return cls(
            pass_at_1=mean_pass_at(passed_PG, 1),
            best_of=best_of_n(scores_PG, passed_PG),
            oracle=mean_pass_at(passed_PG, len(passed_PG[0])),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SetFigures:
    """Figures of both policies on the problems of one of `data.eval_sets`."""

    num_problems: int
    base: PolicyFigures
    final: PolicyFigures


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFigures:
    """Figures of the probe; None where no probe was taken."""

    num_problems: int
    num_samples: int
    num_probes: int
    first_pass_at_1: float | None
    best_pass_at_1: float | None
    best_step: int | None
    last_pass_at_1: float | None
    seconds: float
    time_share: float  # of the steps

    def to_json(self) -> dict[str, Any]:
        """As `summary.json` has it."""
        return {key.replace("_pass_at_1", "_pass@1"): v for key, v in asdict(self).items()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ProbeFigures:
        """From what `to_json` makes."""
        return cls(**{key.replace("_pass@1", "_pass_at_1"): v for key, v in record.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmFigures:
    """What the hacking alarm did."""

    action: str  # "warn" or "stop"
    fired_at: Sequence[int]  # steps at which an episode began
    stopped_at: int | None  # the step after which it ended the run
    best_policy: str | None  # directory, where it keeps one


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Probe and alarm of a run; None where nobody watched."""

    probe: ProbeFigures | None = None
    alarm: AlarmFigures | None = None
    num_executed: int | None = 0  # programs


_CHOOSERS = {"rm": "the RM", "execution": "tests", "hybrid": "tests", "sum": "the sum"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """The final figures of a run; None where a file, of an earlier version perhaps, has none."""

    recipe: str | None
    labels: str | None  # what it learned from
    reward: str  # kind of judge
    reward_execution: str | None  # what tests are worth; None without tests
    reward_model: str | None
    num_samples: int | None  # completions of a held-out problem
    base: PolicyFigures  # before
    final: PolicyFigures  # after
    rm_pair_accuracy: float | None
    valid_rate_first: float | None  # completions with code, first step
    valid_rate_last: float | None
    num_steps: int | None
    executed_for_reward: int | None  # programs
    executed_for_evaluation: int | None
    partition: Sequence[Mapping[str, int]] | None  # ZeRO-3: elements of each rank
    watch: Watch
    wall_s: float | None
    stage_s: Mapping[str, float] | None
    seed: int | None
    versions: Mapping[str, str] | None
    sets: Mapping[str, SetFigures] = field(default_factory=dict[str, SetFigures])  # by name

    @property
    def chooser(self) -> str:
        """What chose the best of N, in words for people: who judges the run."""
        return _CHOOSERS.get(self.reward, "your judge")

    def to_json(self) -> dict[str, Any]:
        """As `summary.json` has it."""
        n, watch = self.num_samples, self.watch
        return {
            "recipe": self.recipe,
            "labels": self.labels,
            "reward": self.reward,
            "reward_execution": self.reward_execution,
            "reward_model": self.reward_model,
            **_both(self.base, self.final, n),
            "base_marks": dict(self.base.marks),
            "final_marks": dict(self.final.marks),
            "evaluation_sets": {
                name: {
                    "num_problems": found.num_problems,
                    **_both(found.base, found.final, n),
                }
                for name, found in self.sets.items()
            },
            "rm_pair_accuracy": self.rm_pair_accuracy,
            "valid_rate_first": self.valid_rate_first,
            "valid_rate_last": self.valid_rate_last,
            "steps": self.num_steps,
            "programs_executed_for_reward": self.executed_for_reward,
            "programs_executed_for_evaluation": self.executed_for_evaluation,
            "zero3_partition": self.partition,
            "probe": watch.probe and watch.probe.to_json(),
            "alarm": watch.alarm and asdict(watch.alarm),
            "programs_executed_for_probe": watch.num_executed,
            "wall_s": self.wall_s,
            "stage_s": self.stage_s,
            "seed": self.seed,
            "versions": self.versions,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> RunSummary:
        """From what `summary.json` has."""
        n = next((int(found[1]) for found in map(_BEST_OF.fullmatch, record) if found), None)
        get = record.get
        probe, alarm = get("probe"), get("alarm")
        return cls(
            recipe=get("recipe"),
            labels=get("labels"),
            reward=get("reward", "rm"),
            reward_execution=get("reward_execution"),
            reward_model=get("reward_model"),
            num_samples=n,
            base=PolicyFigures.from_json("base", n, record),
            final=PolicyFigures.from_json("final", n, record),
            rm_pair_accuracy=get("rm_pair_accuracy"),
            valid_rate_first=get("valid_rate_first"),
            valid_rate_last=get("valid_rate_last"),
            num_steps=get("steps"),
            executed_for_reward=get("programs_executed_for_reward"),
            executed_for_evaluation=get("programs_executed_for_evaluation"),
            partition=get("zero3_partition"),
            watch=Watch(
                probe=ProbeFigures.from_json(probe) if probe else None,
                alarm=AlarmFigures(**alarm) if alarm else None,
                num_executed=get("programs_executed_for_probe"),
            ),
            wall_s=get("wall_s"),
            stage_s=get("stage_s"),
            seed=get("seed"),
            versions=get("versions"),
            sets={
                name: SetFigures(
                    num_problems=found["num_problems"],
                    base=PolicyFigures.from_json("base", n, found),
                    final=PolicyFigures.from_json("final", n, found),
                )
                for name, found in get("evaluation_sets", {}).items()
            },
        )


def _both(base: PolicyFigures, final: PolicyFigures, n: int | None) -> dict[str, Any]:
    """Figures of both policies, as `summary.json` has them; marks stand apart."""
    return {
        "base_pass@1": base.pass_at_1,
        "final_pass@1": final.pass_at_1,
        f"bon{n}_pass@1": base.best_of,
        f"oracle_pass@{n}": base.oracle,
        f"final_bon{n}_pass@1": final.best_of,
        f"final_oracle_pass@{n}": final.oracle,
    }


def write_summary(path: Path, summary: RunSummary) -> None:
    """Write `summary.json` in one piece."""
    replace_json(path, summary.to_json())


def read_summary(path: Path) -> RunSummary | None:
    """Read `summary.json`; None where a run has none, as until its end.

    Raises DataError `file:line:column: rule` where it is no summary.
    """
    if not path.is_file():
        return None
    try:
        record = parse_json(path.read_bytes())
    except JsonFault as fault:
        raise DataError(f"{path}:{fault.line}:{fault.column}: {fault}") from None
    if not isinstance(record, dict):
        raise DataError(f"{path}:1:1: not a JSON object")
    try:
        return RunSummary.from_json(cast("dict[str, Any]", record))
    except TypeError as error:
        raise DataError(f"{path}:1:1: not the summary of a run ({error})") from None
