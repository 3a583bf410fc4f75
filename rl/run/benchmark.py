"""Figures of a benchmark: pass@k and avg@n with intervals, in all and in parts. No engine here."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from rl.run.evaluate import EvaluationReport, summarise
from rl.run.evaluation_store import Outcome
from rl.types import Prompt

UNSTATED = "unstated"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkFigures:
    """What the samples of all problems say."""

    total: EvaluationReport
    by_difficulty: Mapping[str, EvaluationReport]  # empty when no problem states one
    by_source: Mapping[str, EvaluationReport]
    verdicts: Mapping[str, int]  # samples, most frequent first
    reasons: Mapping[str, int]  # of extraction; samples, most frequent first
    finishes: Mapping[str, int]  # why completions ended; samples, most frequent first


def benchmark_figures(
    problems: Sequence[Prompt],
    outcomes: Mapping[str, Sequence[Outcome]],
    ks: Sequence[int],
    seed: int,
) -> BenchmarkFigures:
    """Return the figures of `problems`, each of which has its outcomes under its id.

    pass@1 is always among them. Raises UserError when a problem has fewer samples than some k.
    """
    all_ks = sorted({1, *ks})

    def report(part: Sequence[Prompt]) -> EvaluationReport:
        return summarise([[o.passed for o in outcomes[p.id]] for p in part], all_ks, seed)

    difficulty = {p.id: _difficulty(p) for p in problems}
    states_difficulty = any(name is not None for name in difficulty.values())
    samples = [outcome for prompt in problems for outcome in outcomes[prompt.id]]
    return BenchmarkFigures(
        total=report(problems),
        by_difficulty={
            name: report(part)
            for name, part in _parts(problems, difficulty).items()
            if states_difficulty
        },
        by_source={
            name: report(part)
            for name, part in _parts(problems, {p.id: _source(p) for p in problems}).items()
        },
        verdicts=_counts(o.verdict for o in samples),
        reasons=_counts(o.reason for o in samples),
        finishes=_counts(o.finish for o in samples),
    )


def report_json(report: EvaluationReport, ks: Sequence[int]) -> dict[str, Any]:
    """A report as OUT.json states it.

    >>> report = summarise([[True, False], [False, False]], ks=(1, 2), seed=0)
    >>> report_json(report, (2,))["pass@k"]
    {'2': 0.5}
    """
    intervals = {f"pass@{k}": list(report.interval[k]) for k in ks}
    return {
        "num_problems": report.num_problems,
        "pass@k": {str(k): report.pass_at[k] for k in ks},
        # Every problem has the same number of samples, so avg@n is pass@1, and so is its interval.
        "intervals": intervals | {"avg@n": list(report.interval[1])},
        "avg@n": report.avg,
    }


def figures_json(figures: BenchmarkFigures, ks: Sequence[int]) -> dict[str, Any]:
    """All figures as OUT.json states them."""
    return {
        **report_json(figures.total, ks),
        "by_difficulty": {n: report_json(r, ks) for n, r in figures.by_difficulty.items()},
        "by_source": {n: report_json(r, ks) for n, r in figures.by_source.items()},
        "verdicts": dict(figures.verdicts),
        "reasons": dict(figures.reasons),
        "finishes": dict(figures.finishes),
    }


def figure_rows(
    report: EvaluationReport, num_samples: int, ks: Sequence[int]
) -> list[tuple[str, str, str]]:
    """Rows of the table at the end: name, value, interval."""
    named = [(f"pass@{k}", report.pass_at[k], report.interval[k]) for k in ks]
    named.append((f"avg@{num_samples}", report.avg, report.interval[1]))
    return [(name, f"{value:.3f}", _interval(interval)) for name, value, interval in named]


def part_rows(parts: Mapping[str, EvaluationReport], ks: Sequence[int]) -> list[tuple[str, ...]]:
    """Rows of a table of parts: name, problems, and each pass@k with its interval."""
    return [
        (
            name,
            str(report.num_problems),
            *(f"{report.pass_at[k]:.3f} {_interval(report.interval[k])}" for k in ks),
        )
        for name, report in parts.items()
    ]


def count_rows(counts: Mapping[str, int]) -> list[tuple[str, ...]]:
    """Rows of a table of counts: name, number, share."""
    total = sum(counts.values())
    return [(name, str(count), f"{count / total:.1%}") for name, count in counts.items()]


def _interval(interval: tuple[float, float]) -> str:
    return f"[{interval[0]:.3f}, {interval[1]:.3f}]"


def _counts(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))


def _parts(problems: Sequence[Prompt], names: Mapping[str, str | None]) -> dict[str, list[Prompt]]:
    """Problems by name, in order of first appearance; those without a name come last."""
    parts: dict[str, list[Prompt]] = {}
    for prompt in problems:
        parts.setdefault(names[prompt.id] or UNSTATED, []).append(prompt)
    if UNSTATED in parts:
        parts[UNSTATED] = parts.pop(UNSTATED)
    return parts


def _meta(prompt: Prompt) -> dict[str, Any]:
    value: object = json.loads(prompt.meta)
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _difficulty(prompt: Prompt) -> str | None:
    value = _meta(prompt).get("difficulty")
    return None if value is None or value == "" else str(value)


def _source(prompt: Prompt) -> str | None:
    return str(_meta(prompt).get("source") or prompt.source) or None
