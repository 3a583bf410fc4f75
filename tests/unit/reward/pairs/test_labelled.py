"""Labelled programs come from rollouts and samples; what says nothing is left out by name."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from conf.errors import DataError, UserError
from reward.pairs.labelled import read_labelled
from rl.run.evaluation_store import SampleRow
from rl.run.rollouts import RolloutRow, write_rollouts
from rl.types import Verdict

pytestmark = pytest.mark.unit


def rollout(idx: int, code: str, verdict: Verdict | None, reason: str = "ok") -> RolloutRow:
    return RolloutRow(
        step=1,
        prompt_id="p",
        question="q",
        sample_idx=idx,
        text="",
        code=code,
        reason=reason,
        score=None,
        reward=0.0,
        advantage=None,
        num_tokens=1,
        finish="stop",
        policy_version=0,
        judge="execution",
        verdict=verdict,
    )


def sample(idx: int, code: str, verdict: Verdict, num_passed: int) -> str:
    row = SampleRow(
        problem_id="s",
        problem="0",
        sample_idx=idx,
        prompt=[{"role": "system", "content": "be brief"}, {"role": "user", "content": "q2"}],
        text="",
        code=code,
        reason="ok" if code else "no_block",
        verdict=verdict,
        num_passed=num_passed,
        num_tests=4,
        seconds=0.1,
        detail="",
        finish="stop",
        num_tokens=3,
    )
    return json.dumps(asdict(row)) + "\n"


def test_rollouts_and_samples_of_a_directory_are_read_and_counted(tmp_path: Path):
    rows = [
        rollout(0, "a", Verdict.PASSED),
        rollout(1, "b", Verdict.WRONG_ANSWER),
        rollout(2, "a", Verdict.PASSED),
        rollout(3, "", None, "many_blocks"),
        rollout(4, "c", None),
        rollout(5, "d", Verdict.SANDBOX_ERROR),
        rollout(8, "u", Verdict.UNJUDGED),
        rollout(6, "e", Verdict.PASSED),
        rollout(7, "e", Verdict.TIMEOUT),
    ]
    write_rollouts(tmp_path / "deep/step-000001.parquet", rows)
    lines = [sample(0, "x", Verdict.PASSED, 4), sample(1, "y", Verdict.WRONG_ANSWER, 3)]
    lines += [sample(2, "", Verdict.NO_CODE, 0), sample(3, "z", Verdict.SANDBOX_ERROR, 0)]
    (tmp_path / "mbpp.samples.jsonl").write_text("".join(lines))
    found = read_labelled([str(tmp_path)])
    by_code = {code.code: code for code in found.codes}
    assert {code: one.passed for code, one in by_code.items()} == {
        "a": True,
        "b": False,
        "x": True,
        "y": False,
    }
    assert by_code["b"].question == "q" and by_code["y"].question == "q2"
    assert by_code["y"].tests_passed == 0.75
    assert found.left_out == {
        "copy of another": 2,
        "no code: many_blocks": 1,
        "not executed": 1,
        "sandbox error": 2,
        "unjudged": 1,
        "runs disagree": 1,
        "no code: no_block": 1,
    }


def test_what_can_not_be_read_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"rollouts: .*nowhere' names no rollouts"):
        read_labelled([str(tmp_path / "nowhere")])
    with pytest.raises(UserError, match="names no rollouts"):
        read_labelled([str(tmp_path)])
    other = tmp_path / "other.parquet"
    other.write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"other\.parquet: is not a readable parquet"):
        read_labelled([str(other)])
    torn = tmp_path / "x.samples.jsonl"
    torn.write_text('{"a": 1}\n')
    with pytest.raises(DataError, match=r"x\.samples\.jsonl:1:1"):
        read_labelled([str(torn)])
