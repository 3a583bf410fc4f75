"""Traces of the steps that are asked for, and a run that goes on where there is none."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch

from actors.engines.profiling import StepProfiler, trace_file, traces

pytestmark = pytest.mark.unit


def work(profiler: StepProfiler, versions: list[int]) -> None:
    """A multiplication in every step; publication of these versions ends them."""
    for version in versions:
        for _ in range(2):
            profiler.begin()
            torch.mm(torch.ones(4, 4), torch.ones(4, 4))
        profiler.end(version)


def test_the_steps_that_are_asked_for_are_traced_and_no_others(tmp_path: Path) -> None:
    work(StepProfiler([2], tmp_path / "profile", rank=1), [1, 2, 3])
    (path,) = (tmp_path / "profile").iterdir()
    assert path == trace_file(tmp_path / "profile", 2, 1)
    assert traces(tmp_path / "profile", 2) == [path] and traces(tmp_path / "profile", 1) == []
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    assert sum(event.get("name") == "aten::mm" for event in events) == 2


def test_a_run_that_goes_on_after_step_7_begins_with_step_8(tmp_path: Path) -> None:
    profiler = StepProfiler([8], tmp_path, rank=0)
    profiler.end(7)  # the weights of the checkpoint
    work(profiler, [8])
    assert len(traces(tmp_path, 8)) == 1


def test_what_cannot_be_written_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "profile").write_text("a file")
    work(StepProfiler([1, 2], tmp_path / "profile", rank=0), [1, 2])
    assert [r.message.partition(": ")[0] for r in caplog.records] == [
        "the profile of step 1 is lost",
        "the profile of step 2 is lost",
    ]
