"""What is mined, planned: near misses are made where the tests are at hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.plan.mining import known_problems, made_per_problem
from conf.commands.mine_pairs import MineArgs
from conf.schema import SandboxConfig
from reward.pairs.rollout_sources import count_rollouts, find_rollouts

pytestmark = pytest.mark.unit


def test_near_misses_are_made_by_default_where_the_tests_are_at_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {
        "prompt_id": "m/1",
        "question": "add",
        "code": "a = 1",
        "reason": "ok",
        "step": 1,
        "policy_version": 0,
        "sample_idx": 0,
        "verdict": "PASSED",
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "one.parquet")
    files = find_rollouts((str(tmp_path),))
    counts = count_rollouts(files)
    args = MineArgs(input=(str(tmp_path),), output="pairs", sandbox=SandboxConfig())
    assert known_problems(args, files, counts) == []
    assert "no mutants and swaps" in capsys.readouterr().out
    assert made_per_problem(args, with_tests=False) == (0, 0)
    assert min(made_per_problem(args, with_tests=True)) > 0
    asked = replace(args, mutants_per_problem=0, swaps_per_problem=3)
    assert made_per_problem(asked, with_tests=True) == (0, 3)
