"""`launch/rm_bench.py`: figures from stored scores, and what is refused before anything starts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from launch import rm_bench
from launch.common.cli import main_simple
from launch.rm_bench import RmBenchArgs

pytestmark = pytest.mark.unit

POLICY = Path(__file__).resolve().parents[3] / "assets/minipy/policy"
Run = Callable[..., tuple[int, str]]
ROWS = [
    {"domain": "code", "id": 1, "chosen": [1, 2, 3], "rejected": [0, 2, 4]},
    {"domain": "safety-refuse", "id": "a", "chosen": [1, 1, 1], "rejected": [0, 0, 0]},
]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["rm_bench.py"])
    (tmp_path / "scores.json").write_text(json.dumps(ROWS))
    (tmp_path / "code_filtered.json").write_text("[]")

    def command(*overrides: str) -> tuple[int, str]:
        code = main_simple(RmBenchArgs, rm_bench.run, overrides)
        return code, capsys.readouterr().err

    return command


def test_stored_scores_give_the_fields_of_the_contract(run: Run, tmp_path: Path):
    assert run("scores=scores.json", "output=new/out.json") == (0, "")
    out = json.loads((tmp_path / "new/out.json").read_text())
    # code: chosen 1 beats rejected 0; 2 beats 0 (easy), ties with 2; 3 beats 0 and 2 (easy).
    code = {"easy": 1.0, "normal": pytest.approx(1 / 3), "hard": 0.0, "average": 4 / 9}
    assert out["domains"]["code"] == pytest.approx(code)
    assert out["domains"]["safety"] == {"easy": 1, "normal": 1, "hard": 1, "average": 1}
    assert set(out["domains"]) == {"code", "safety"}
    assert out["easy"] == 1
    assert out["normal"] == pytest.approx(2 / 3)
    assert out["hard"] == 0.5
    assert out["average"] == pytest.approx((4 / 9 + 1) / 2)
    assert out["details"]["code"]["num_ties"] == 1


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["output=o.json"], "model, data: both are needed"),
        (["output=o.json", "data=."], "model, data: both are needed"),
        (["output=o.json", "data=.", "model=m", "scores=scores.json"], "drop one"),
        (["output=.", "scores=scores.json"], "output: . cannot be written"),
        (["output=o.json", "scores=none.json"], "none.json: cannot be read"),
        (["output=scores.json", "scores=./scores.json"], "is the file of scores"),
        (["output=o.json", "data=nowhere", "model=m"], "data: nowhere does not exist"),
        (["output=o.json", "data=.", "model=m"], "holds no item"),
    ],
)
def test_bad_input_ends_with_2_and_one_message(run: Run, overrides: list[str], words: str):
    code, error = run(*overrides)
    assert code == 2
    assert words in error
    assert "Traceback" not in error


def test_a_policy_is_refused_before_ray_starts(run: Run, tmp_path: Path):
    row = {"id": 1, "prompt": "p", "chosen": ["a"] * 3, "rejected": ["b"] * 3}
    (tmp_path / "code_filtered.json").write_text(json.dumps([row]))
    code, error = run("output=o.json", "data=.", f"model={POLICY}")
    assert code == 2
    assert "architectures ['Qwen3ForCausalLM']" in error
    assert not (tmp_path / "o.json").exists()
