"""The card of a trained policy, `hf/README.md`: what it was made of and what it can, for people."""

from __future__ import annotations

from collections.abc import Iterable

from rl import metrics
from rl.run.summary import PolicyFigures, RunSummary

_CARD = """# Policy

Writes Python programs for problems. Trained from `{base}` by the command below.

| training | |
|---|---|
{training}

| {held_out} | before | after |
|---|---|---|
{figures}

{about}

```sh
{command}
```

Commit: {commit}. Versions: {versions}
"""


def policy_card(
    summary: RunSummary, *, base: str, num_problems: int, command: str, commit: str
) -> str:
    """Markdown of what a run records of its final policy.

    `base` is the model that it began with, `num_problems` how many held-out ones the figures are
    of, and `commit` that of this tree.
    """
    k = summary.num_samples
    training = [
        ("recipe", summary.recipe),
        ("judge", _judge(summary)),
        ("labels", summary.labels),
        ("steps", summary.num_steps),
        ("seed", summary.seed),
    ]
    return _CARD.format(
        base=base,
        training=_rows((name, "-" if value is None else str(value)) for name, value in training),
        held_out=f"{num_problems} held-out problems, {k} answers each",
        figures=_rows(_figures(summary)),
        about=f"Figures are shares unless they say otherwise; the best of {k} is chosen by "
        f"{summary.chooser}.",
        command=command,
        commit=commit,
        versions=", ".join(
            f"{name} {version}" for name, version in (summary.versions or {}).items()
        ),
    )


def _judge(summary: RunSummary) -> str:
    tests = summary.reward_execution and f"tests: {summary.reward_execution}"
    model = summary.reward_model and f"reward model `{summary.reward_model}`"
    about = "; ".join(part for part in (tests, model) if part)
    return f"{summary.reward} ({about})" if about else summary.reward


def _figures(summary: RunSummary) -> list[tuple[str, str, str]]:
    """A row of each figure; no other is known of a policy."""
    k, base, final = summary.num_samples, summary.base, summary.final
    return [
        *_both("pass@1", base.pass_at_1, final.pass_at_1),
        *_both(f"best of {k}", base.best_of, final.best_of),
        *_both(f"any of {k} passes", base.oracle, final.oracle),
        *(row for name in final.marks for row in _mark(name, base, final)),
        *(
            row
            for name, found in summary.sets.items()
            for row in _both(
                f"pass@1 on {found.num_problems} problems of {name}",
                found.base.pass_at_1,
                found.final.pass_at_1,
            )
        ),
    ]


def _mark(name: str, base: PolicyFigures, final: PolicyFigures) -> list[tuple[str, str, str]]:
    unit = metrics.about(name).unit
    said = name.removeprefix("eval/").replace("_", " ")
    said = said if unit in ("", "share") else f"{said} ({unit})"
    return _both(said, base.marks.get(name), final.marks[name])


def _both(name: str, before: float | None, after: float | None) -> list[tuple[str, str, str]]:
    """A row, unless nothing is known."""
    if before is None and after is None:
        return []
    shown = ["-" if value is None else f"{value:.3f}" for value in (before, after)]
    return [(name, shown[0], shown[1])]


def _rows(rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(
        "| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows
    )
