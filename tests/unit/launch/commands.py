"""Commands called in this process, with their exit code, their output and what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from launch.common.cli import main
from launch.common.run_checks import check_run
from launch.sweeps.command import run_sweep
from launch.train import run


class Result(NamedTuple):
    code: int
    err: str


class Training:
    """`launch/train.py` as it is called on the command line, in a directory of its own."""

    def __init__(self, output_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._output_dir = output_dir
        self._capsys = capsys

    def __call__(self, *overrides: str) -> Result:
        place = f"output_dir={self._output_dir}"
        code = main(run, [place, *overrides], sweep=run_sweep, check=check_run)
        return Result(code, self._capsys.readouterr().err)

    def refusal(self, *overrides: str) -> str:
        """What is said of overrides that are wrong: exit code 2, no traceback, nothing written."""
        code, text = self(*overrides)
        assert code == 2, text
        assert text.startswith("error: ") and "Traceback" not in text
        assert not self._output_dir.exists()
        return text
