"""The report of a large run: how long it takes to write, how large it is, how soon it is open."""

from __future__ import annotations

import ast
import itertools
import json
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from launch.benches.chromium import chromium, open_tab
from rl.base.console import Console
from rl.base.jsonlines import append_lines
from rl.report.page import Report
from rl.run.directory import RolloutFolder, RunDirectory
from rl.run.rollouts import RolloutRow, write_rollouts
from rl.types import Reason

GROUP_SIZE = 16
_NUM_PROBLEMS = 4000  # then they come again
# How long the page has existed once its rollouts are shown and every plot is drawn.
_READY_MS = (
    "document.documentElement?.dataset.ready && Bokeh.documents.length > 0 && "
    "Bokeh.documents.every((plots) => plots.is_idle) && performance.now()"
)
_INVALID = 0.1  # share of completions without code


def measure_report(num_steps: int, num_completions: int) -> None:
    """Make a run of that size, write its report, add a step to it, and open it in a browser."""
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        console.stage("run", f"{num_steps} steps x {num_completions} completions")
        make_run(directory, num_steps, num_completions)
        rows = [("completions", f"{num_steps * num_completions:,}", "sampled in the run")]
        console.stage("report", "all of it, then what a rewrite costs")
        report = Report(directory)
        first_s = _timed(report)
        again_s = _timed(report)
        page = RunDirectory(directory).report
        rows += [
            ("written in", f"{first_s:.1f} s", "everything packed for the first time"),
            ("rewritten in", f"{again_s:.1f} s", "nothing new"),
            ("size", f"{page.stat().st_size / 1e6:.1f} MB", "bound: 50 MB"),
        ]
        rows += _open(page)
    console.table("report", rows)


def make_run(directory: Path, num_steps: int, num_completions: int) -> None:
    """A run directory as `train.py` leaves it; its programs are functions of Python's library."""
    rng = random.Random(0)
    functions = _functions(rng)
    run = RunDirectory(directory)
    lines: list[dict[str, float]] = []
    for step in range(1, num_steps + 1):
        groups = [
            _group(step, (step * num_completions // GROUP_SIZE + n) % _NUM_PROBLEMS, functions, rng)
            for n in range(num_completions // GROUP_SIZE)
        ]
        rows = list(itertools.chain.from_iterable(groups))
        write_rollouts(run.rollout_file(RolloutFolder.TRAINING, step), rows)
        lines.append({"step": step, **_metrics(step, num_steps, rng)})
    append_lines(run.metrics, lines)


def _functions(rng: random.Random) -> list[str]:
    """Sources of functions of a size that answers have, in random order."""
    library = Path(json.__file__).parents[1]
    found: list[str] = []
    for path in sorted(library.glob("*.py")):
        source = path.read_text(encoding="utf-8")
        lines = source.split("\n")
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef):
                text = "\n".join(lines[node.lineno - 1 : node.end_lineno])
                if 300 <= len(text) <= 2000:
                    found.append(text)
    rng.shuffle(found)
    return found


def _group(
    step: int, problem: int, functions: list[str], rng: random.Random
) -> Iterator[RolloutRow]:
    """Answers of one problem: a function each, some of whose lines are another function's."""
    base = functions[problem % len(functions)].split("\n")
    question = f"Problem {problem}: write a function that does what follows.\n" + "\n".join(
        functions[(problem * 7 + 1) % len(functions)].split("\n")[:12]
    )
    for sample_idx in range(GROUP_SIZE):
        other = rng.choice(functions).split("\n")
        code = "\n".join(line if rng.random() < 0.7 else rng.choice(other) for line in base)
        valid = rng.random() >= _INVALID
        score = rng.gauss(0, 3)
        yield RolloutRow(
            step=step,
            prompt_id=f"problem-{problem}",
            question=question,
            sample_idx=sample_idx,
            text=f"Here is a solution.\n```python\n{code}\n```" if valid else code,
            code=code if valid else "",
            reason=(Reason.OK if valid else Reason.NO_BLOCK).value,
            score=score if valid else None,
            reward=max(0.0, score) if valid else 0.0,
            advantage=rng.gauss(0, 1),
            num_tokens=len(code) // 3,
            finish="stop",
            policy_version=step,
            judge="rm",
        )


def _metrics(step: int, num_steps: int, rng: random.Random) -> dict[str, float]:
    done = step / num_steps
    metrics = {
        "reward/mean": 1 + done + rng.gauss(0, 0.1),
        "reward/valid_rate": 1 - _INVALID,
        "reward/reason/ok": 1 - _INVALID,
        "reward/reason/no_block": _INVALID,
        "policy/clip_frac": 0.01 * rng.random(),
        "policy/ref_kl": 0.02 * done,
        "policy/grad_norm": rng.random(),
        "policy/entropy": 0.4 - 0.2 * done,
        "rollout/mismatch_kl": 1e-4 * rng.random(),
        "rollout/staleness": 0.0,
        "rollout/completion_tokens": 250 + 50 * done,
        "time/rollout_s": 40 + rng.random(),
        "time/score_s": rng.random(),
        "time/update_s": 30 + rng.random(),
        "time/publish_s": 1.0,
        "time/step_s": 74.0,
    }
    if step % 5 == 0:
        metrics |= {"probe/pass@1": 0.3 + 0.3 * done, "rm/exec_agreement": 0.9, "alarm/fired": 0.0}
    return metrics


def _timed(report: Report) -> float:
    started_s = time.perf_counter()
    report.write()
    return time.perf_counter() - started_s


def _open(page: Path) -> list[tuple[str, str, str]]:
    browser = chromium()
    if browser is None:
        return [("open in", "-", "no Chromium here")]
    with open_tab(browser) as tab:
        tab.open(page.as_uri())
        ready_ms = tab.wait_for(_READY_MS, 60)
        note = tab.evaluate("document.querySelector('.count').textContent")
    return [("open in", f"{ready_ms / 1000:.2f} s", f"curves drawn, rollouts shown: {note}")]
