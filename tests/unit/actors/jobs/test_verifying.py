"""Malformed lines of a file of programs: those that are allowed keep their place, with an error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actors.jobs import verifying
from actors.jobs.verifying import VerifyFile, verify_file
from conf.errors import DataError
from reward.verify.verdict import Program, ProgramResult, Verdict
from tests.settings import run_config

pytestmark = pytest.mark.unit

SOUND = {"code": "print(6)", "tests": [{"input": "3\n", "output": "6\n"}]}


class FakeVerifier:
    """A pool of one that finds every program right, without Ray."""

    def options(self, **_: object) -> FakeVerifier:
        return self

    def remote(self, *_: object, **__: object) -> Any:
        return SimpleNamespace(verify=SimpleNamespace(remote=self._verify))

    @staticmethod
    def _verify(programs: Sequence[Program]) -> Any:
        async def judge() -> list[ProgramResult]:
            await asyncio.sleep(0)
            return [
                ProgramResult(verdict=Verdict.PASSED, num_passed=1, num_tests=1) for _ in programs
            ]

        return judge()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(verifying, "RemoteVerifierActor", FakeVerifier())
    monkeypatch.setattr(verifying, "session", lambda *_args: nullcontext(asyncio.run))
    monkeypatch.setattr(verifying, "check_sandbox", lambda _cfg: 3)

    cfg = run_config(["placement=laptop"])

    def verify(lines: Sequence[object], max_bad_rows: int) -> list[dict[str, Any]]:
        source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        source.write_text("".join(f"{text}\n" for text in texts))
        job = VerifyFile(
            source=source,
            target=target,
            sandbox=cfg.sandbox,
            timeout_s=4.0,
            early_stop=False,
            workers=1,
            rule="last_block",
            max_bad_rows=max_bad_rows,
        )
        assert verify_file(cfg.ray, job) == 0
        return [json.loads(line) for line in target.read_text().splitlines()]

    return verify


BAD = [{"id": 1, "code": 3, "tests": []}, "{", ["no object"]]


def test_malformed_lines_that_are_allowed_keep_their_place_with_an_error(run: Any, capsys: Any):
    rows = run([BAD[0], SOUND, *BAD[1:], SOUND], 3)
    assert [row["verdict"] for row in rows] == [None, "PASSED", None, None, "PASSED"]
    assert rows[0]["id"] == 1 and rows[0]["passed"] is None
    first, second = rows[0]["error"].splitlines()
    assert "in.jsonl:1:code: must be a text (3)" in first and "in.jsonl:1:tests: " in second
    assert "in.jsonl:3:" in rows[2]["error"] and "in.jsonl:4:-: must be an" in rows[3]["error"]
    assert "error" not in rows[1]
    assert "3 malformed lines skipped" in capsys.readouterr().out


def test_more_malformed_lines_than_that_are_all_named_and_nothing_runs(run: Any, tmp_path: Path):
    with pytest.raises(DataError) as error:
        run([*BAD, SOUND], 2)
    for place in ("1:code", "1:tests", "2:", "3:-"):
        assert f"in.jsonl:{place}" in str(error.value)
    assert "3 of 4 lines are malformed, and max_bad_rows is 2" in str(error.value)
    assert not (tmp_path / "out.jsonl").exists()


def test_a_file_of_malformed_lines_alone_is_refused(run: Any):
    with pytest.raises(DataError, match="holds no sound line"):
        run(BAD, 3)
