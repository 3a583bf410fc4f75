"""Results of a check as Markdown, and their place in docs/gpu.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from conf.errors import UserError
from launch.gpu.results import Outcome, Result, Row, shown
from rl.base.files import replace_file

BEGIN, END = "<!-- gpu-check: begin -->", "<!-- gpu-check: end -->"


def markdown(result: Result) -> str:
    """The whole result: where it was made, and a table with a row for each figure."""
    kind = "a rehearsal on a CPU; its figures mean nothing" if result.device == "cpu" else "a GPU"
    lines = [
        f"Made on {result.made_on}, on {kind}: {result.machine or 'unknown'}.",
        f"{result.seconds:.0f} s of a budget of {result.budget_s:.0f} s.",
        "",
        "| part | figure | value | bound | |",
        "|---|---|---|---|---|",
    ]
    for outcome in result.parts:
        lines += _lines(outcome)
    return "\n".join([*lines, ""])


def _lines(outcome: Outcome) -> Iterator[str]:
    """A line for the part, and one for each of its figures."""
    yield _line(outcome.name, f"*{outcome.about}*", f"{outcome.seconds:.0f} s", "", outcome.status)
    if outcome.why:  # the JSON file has all of it
        yield _line("", outcome.why.splitlines()[0], "", "", "")
    for row in outcome.rows:
        yield _line("", row.what, _value(row), row.bound, _verdict(row))


def _line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _value(row: Row) -> str:
    if row.value is None:
        return f"left out: {row.skipped}"
    return f"{shown(row.value)} {row.unit}".rstrip()


def _verdict(row: Row) -> str:
    return {None: "", True: "good", False: "**wrong**"}[row.good]


def write_into(page: Path, text: str | None) -> None:
    """Put `text` between the two marks of a page; None only looks for them.

    Raises:
        UserError: for a page without them.
    """
    whole = page.read_text(encoding="utf-8") if page.is_file() else ""
    before, begin, rest = whole.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"page: {page} has no lines {BEGIN} and {END}; give page=docs/gpu.md")
    if text is not None:
        replace_file(page, f"{before}{BEGIN}\n\n{text}\n{END}{after}")
