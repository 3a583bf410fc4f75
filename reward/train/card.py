"""The card of a trained reward model: data, settings and scores, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CARD = """# Reward model

Scores a program for a problem without running it: Bradley-Terry on verified preference pairs
(CodeScaler, arXiv 2602.17684). Load it as a sequence classifier with one label; the score is the
logit at the last token of problem (user turn) and bare code (assistant turn) in the chat template.

| data | |
|---|---|
| base | `{base}` |
| training pairs | {train} ({negatives}); {num_truncated} longer than the context were left out |
| validation pairs | {validation}, of other problems |

| validation, step {best_step} of {num_steps} | |
|---|---|
{scores}

| setting | |
|---|---|
{settings}

Versions: {versions}
"""


def reward_model_card(facts: Mapping[str, Any]) -> str:
    """Markdown of what `launch/train_rm.py` records."""
    found: Mapping[str, Any] | None = facts["validation"]
    scores = [("", "no validation pairs")]
    if found is not None:
        by_source: Mapping[str, float] = found["accuracy_by_source"]
        scores = [
            ("pair accuracy [95 % interval over problems]", _with_interval(found)),
            ("pair accuracy before training", _with_interval(facts["history"][0])),
            *((f"pair accuracy, {name}", f"{value:.4f}") for name, value in by_source.items()),
            ("ties (count as wrong)", f"{found['ties']:.4f}"),
            ("Bradley-Terry loss", f"{found['loss']:.4f}"),
        ]
    negatives: Mapping[str, int] = facts["negatives"]
    versions: Mapping[str, str] = facts["versions"]
    return _CARD.format(
        base=facts["base"],
        train=facts["num_pairs"]["train"],
        validation=facts["num_pairs"]["validation"],
        negatives=", ".join(f"negatives: {num} {name}" for name, num in negatives.items()),
        num_truncated=facts["num_truncated"],
        best_step=facts["best_step"],
        num_steps=facts["num_steps"],
        scores=_rows(scores),
        settings=_rows([(name, f"`{value}`") for name, value in facts["settings"].items()]),
        versions=", ".join(f"{name} {value}" for name, value in versions.items()),
    )


def _with_interval(figures: Mapping[str, Any]) -> str:
    low, high = figures["accuracy_interval"]
    return f"{figures['accuracy']:.4f} [{low:.3f}, {high:.3f}]"


def _rows(rows: list[tuple[str, str]]) -> str:
    return "\n".join(f"| {name} | {value} |" for name, value in rows)
