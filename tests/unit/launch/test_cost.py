"""`launch/cost.py`: its tables and its picture."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.errors import UserError
from launch.cost import CostArgs, RateArgs, TextArgs, run

pytestmark = pytest.mark.unit


def test_a_step_its_bottleneck_and_the_stages_are_printed(capsys: pytest.CaptureFixture[str]):
    run(CostArgs(devices=64, stages=True))
    out = capsys.readouterr().out
    for text in ("engines", "bottleneck", "policy waits", "rollouts for pairs", "best-of-N"):
        assert text in out


def test_what_is_known_better_takes_the_place_of_what_is_assumed(
    capsys: pytest.CaptureFixture[str],
):
    run(CostArgs(rates=RateArgs(publish_latency_s=5000.0), texts=TextArgs(answer_tokens=10.0)))
    assert "bottleneck: publish" in capsys.readouterr().out


def test_the_picture_is_written(tmp_path: Path):
    run(CostArgs(plot=str(tmp_path / "cost.png")))
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_written_is_refused_first(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="plot"):
        run(CostArgs(plot=str(tmp_path / "file/cost.png")))
