"""`launch/verify.py` as a user types it: every form of tests, in order, and bad input refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
_CALLS = [{"input": [3], "output": 6}, {"input": [4], "output": 8}]
_STDIO = [{"input": "3\n", "output": "6\n"}]
_ASSERTS = {"assert": ["assert f(3) == 6", "check(f)"], "setup": "def check(g): assert g(0) == 0"}


def _verify(cwd: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "launch/verify.py"), "input=in.jsonl", *args]
    return subprocess.run(
        [*command, "output=out.jsonl"],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def _write(path: Path, lines: list[Any]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_each_line_gains_a_verdict_in_its_place(tmp_path: Path) -> None:
    right, wrong = "def f(x): return 2 * x", "def f(x): return x + 3"
    rows: list[tuple[dict[str, Any], str, int]] = [
        ({"code": right, "tests": _CALLS, "entry_point": "f"}, "PASSED", 2),
        ({"code": wrong, "tests": json.dumps(_CALLS), "entry_point": "f"}, "WRONG_ANSWER", 1),
        ({"code": right, "tests": _ASSERTS, "id": 7}, "PASSED", 2),
        ({"code": wrong, "tests": _ASSERTS}, "WRONG_ANSWER", 1),
        ({"response": "Look:\n```python\nprint(6)\n```", "tests": _STDIO}, "PASSED", 1),
        ({"response": "I cannot.", "tests": _STDIO}, "NO_CODE", 0),
        ({"code": "while True: pass", "tests": _STDIO}, "TIMEOUT", 0),
        ({"code": "1 / 0", "tests": _STDIO}, "RUNTIME_ERROR", 0),
        ({"code": "x = [0] * 10 ** 11", "tests": _STDIO}, "MEMORY", 0),
        ({"code": "while True: print('x' * 9999)", "tests": _STDIO}, "OUTPUT_LIMIT", 0),
    ]
    rows += [
        ({"code": f"# {n}\n{right}", "tests": _CALLS, "entry_point": "f"}, "PASSED", 2)
        for n in range(100)
    ]
    _write(tmp_path / "in.jsonl", [row for row, _, _ in rows])
    done = _verify(tmp_path, "timeout_s=1.5", "workers=2")
    assert done.returncode == 0, done.stderr[-3000:]
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["verdict"], row["num_passed"]) for row in written] == [
        (verdict, num_passed) for _, verdict, num_passed in rows
    ]
    for (given, verdict, _), row in zip(rows, written, strict=True):
        assert row.items() >= given.items()
        assert row["passed"] is (verdict == "PASSED")
        assert row["seconds"] >= 0


def test_malformed_lines_are_all_named_and_nothing_runs(tmp_path: Path) -> None:
    lines = [
        {"code": "x", "tests": []},
        {"code": 3, "tests": _STDIO},
        ["no object"],
        {"code": "x", "tests": _CALLS},
        {"code": "x", "tests": "[{"},
        {"tests": _STDIO},
    ]
    _write(tmp_path / "in.jsonl", lines)
    done = _verify(tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for place in ("1:tests", "2:code", "3:-", "4:entry_point", "5:tests", "6:response"):
        assert f"in.jsonl:{place}" in done.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_a_level_that_is_out_of_reach_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "in.jsonl", [{"code": "x", "tests": _STDIO}])
    done = _verify(tmp_path, "sandbox.level=1", "sandbox.min_level=2")
    assert done.returncode == 2
    assert "sandbox.min_level=2" in done.stderr
