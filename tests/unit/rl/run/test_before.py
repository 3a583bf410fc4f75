"""The figures before the first step read back as they were, of the very same problems only."""

from __future__ import annotations

from pathlib import Path

import pytest

from rl.run.before import read_before
from rl.run.rollouts import rollout_rows, write_rollouts
from rl.run.summary import PolicyFigures
from tests.unit.rl.fakes import make_group, make_judged, make_prompts

pytestmark = pytest.mark.unit

PROMPTS = make_prompts(2)
SCORES = [(0.1, 0.9), (2.0, 1.0)]
PASSED = [(False, True), (False, True)]


def write(path: Path, *, executed: bool = True) -> None:
    judged = [
        make_judged(make_group(prompt, 2), scores, passed if executed else None)
        for prompt, scores, passed in zip(PROMPTS, SCORES, PASSED, strict=True)
    ]
    write_rollouts(path, list(rollout_rows(0, judged, None)))


def test_figures_read_back_as_they_were(tmp_path: Path) -> None:
    write(tmp_path / "0.parquet")
    before = read_before(tmp_path / "0.parquet", PROMPTS, 2)
    assert before is not None and before.num_executed == 4
    assert before.figures == PolicyFigures.of(SCORES, PASSED)
    assert before.figures == PolicyFigures(pass_at_1=0.5, best_of=0.5, oracle=1.0)


def test_other_problems_samples_or_no_file_say_nothing(tmp_path: Path) -> None:
    path = tmp_path / "0.parquet"
    assert read_before(path, PROMPTS, 2) is None
    path.write_text("torn")
    assert read_before(path, PROMPTS, 2) is None
    write(path, executed=False)
    assert read_before(path, PROMPTS, 2) is None
    write(path)
    assert read_before(path, PROMPTS, 1) is None
    assert read_before(path, PROMPTS[:1], 2) is None
    assert read_before(path, [PROMPTS[1], PROMPTS[0]], 2) is None
