"""The timeline is a trace that can be read at any moment, and says when things happened."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from rl.base.best_effort import BestEffort
from rl.recipes.recipe import Lesson
from rl.run.timeline import GROUPS_PID, STAGES, STAGES_PID, Timeline
from rl.step import Batch
from rl.types import StepReport
from tests.unit.rl.fakes import make_group, make_judged, make_prompts

pytestmark = pytest.mark.unit

NOTHING = Lesson(updates=(), advantages_PG=())


def batch(started_s: float) -> Batch:
    """Two groups: generated after 1 s and 3 s, each scored half a second later."""
    groups = []
    for prompt, finished_s in zip(make_prompts(2), (started_s + 1, started_s + 3), strict=True):
        group = dataclasses.replace(make_group(prompt, 2), finished_s=finished_s)
        judged = make_judged(group, (0.0, 1.0))
        groups.append(dataclasses.replace(judged, scored_s=finished_s + 0.5))
    return Batch(groups_P=tuple(groups), lesson=NOTHING, started_s=started_s)


def add_step(timeline: Timeline, step: int) -> None:
    """A step that begins at 100 s x its number: update from 4 s to 6 s, publication until 7 s."""
    report = StepReport(step=step, metrics={"time/update_s": 2.0, "time/publish_s": 1.0})
    timeline.step(report, batch(step * 100.0), published_s=step * 100.0 + 7)


def events(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="ascii"))


def spans(path: Path, pid: int) -> list[tuple[str, int, float, float]]:
    """(name, row, start, end), in seconds."""
    return [
        (e["name"], e["tid"], e["ts"] / 1e6, (e["ts"] + e["dur"]) / 1e6)
        for e in events(path)
        if e["ph"] == "X" and e["pid"] == pid
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "timeline.json"


def test_a_step_has_a_span_on_the_row_of_each_of_its_stages(path: Path):
    timeline = Timeline(path, BestEffort(pytest.fail))
    timeline.forget_after(0)
    add_step(timeline, 1)
    assert spans(path, STAGES_PID) == [
        ("rollout", STAGES.index("rollout"), 100, 103),
        ("score", STAGES.index("score"), 101, 103.5),
        ("update", STAGES.index("update"), 104, 106),
        ("publish", STAGES.index("publish"), 106, 107),
    ]
    rows = {e["tid"]: e["args"]["name"] for e in events(path) if e["name"] == "thread_name"}
    assert [rows[row] for row in range(len(STAGES))][2:] == [*STAGES[2:]]


def test_each_group_shows_when_it_was_generated_and_when_scored(path: Path):
    timeline = Timeline(path, BestEffort(pytest.fail))
    timeline.forget_after(0)
    add_step(timeline, 1)
    assert spans(path, GROUPS_PID) == [
        ("generate", 0, 100, 101),
        ("score", 0, 101, 101.5),
        ("generate", 1, 100, 103),
        ("score", 1, 103, 103.5),
    ]


def test_a_stage_that_fails_leaves_no_span_and_a_readable_file(path: Path):
    timeline = Timeline(path, BestEffort(pytest.fail))
    timeline.forget_after(0)
    with timeline.span("evaluate", 0):
        pass
    with pytest.raises(ValueError, match="sandbox"), timeline.span("probe", 0):
        raise ValueError("sandbox")
    assert [name for name, *_ in spans(path, STAGES_PID)] == ["evaluate"]


def test_a_resumed_run_drops_what_it_takes_again_and_what_a_crash_has_torn(path: Path):
    timeline = Timeline(path, BestEffort(pytest.fail))
    timeline.forget_after(0)
    for step in (1, 2, 3):
        add_step(timeline, step)
    torn = path.read_text(encoding="ascii")[:-40]
    path.write_text(torn, encoding="ascii")
    resumed = Timeline(path, BestEffort(pytest.fail))
    resumed.forget_after(2)
    add_step(resumed, 3)
    starts = [start for name, _, start, _ in spans(path, STAGES_PID) if name == "rollout"]
    assert starts == [100, 200, 300]
    named = [(e["pid"], e["tid"]) for e in events(path) if e["name"] == "thread_name"]
    assert len(named) == len(set(named)) == len(STAGES) + 2


def test_a_clock_that_is_behind_makes_no_negative_span(path: Path):
    timeline = Timeline(path, BestEffort(pytest.fail))
    timeline.forget_after(0)
    group = dataclasses.replace(make_group(make_prompts(1)[0], 1), finished_s=90.0)
    judged = dataclasses.replace(make_judged(group, (0.0,)), scored_s=80.0)
    late = Batch(groups_P=(judged,), lesson=NOTHING, started_s=100.0)
    report = StepReport(step=1, metrics={"time/update_s": 2.0, "time/publish_s": 1.0})
    timeline.step(report, late, published_s=110.0)
    assert all(e["dur"] >= 0 for e in events(path) if e["ph"] == "X")


def test_a_long_timeline_is_never_held_in_memory(path: Path):
    timeline = Timeline(path, BestEffort(print))
    timeline.forget_after(0)
    for step in range(1, 1001):
        add_step(timeline, step)
    tracemalloc.start()
    timeline.forget_after(999)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < path.stat().st_size / 5
    assert max(event["args"].get("step", 0) for event in json.loads(path.read_text())) == 999
