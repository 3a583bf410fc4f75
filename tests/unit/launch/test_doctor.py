"""The doctor reports what is missing and never fails for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conf.errors import UserError
from launch.common.findings import PROBES
from launch.doctor import DoctorConfig, doctor
from reward.model.golden import read_golden_scores
from tests.settings import POLICY, REWARD_MODEL

pytestmark = pytest.mark.unit

TREE = Path(__file__).resolve().parents[3]


def test_the_report_is_plain_text_when_piped_and_exits_0() -> None:
    result = subprocess.run(
        [sys.executable, str(TREE / "launch" / "doctor.py")],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "\x1b" not in result.stdout
    for word in ("torch", "CPU cores", "6379", "sandbox", "quickstart"):
        assert word in result.stdout


def test_it_can_report_on_a_machine_without_ray() -> None:
    without = "import sys; sys.modules['ray'] = None; import launch.doctor"
    done = subprocess.run(
        [sys.executable, "-c", without], cwd=TREE, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_reward_model_is_looked_at_and_its_golden_scores_are_those_of_its_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = tmp_path / "golden.json"
    assert doctor(DoctorConfig(reward_model=str(REWARD_MODEL), golden_scores=str(golden))) == 0
    told = capsys.readouterr().out
    assert "adapter=codescaler" in told and "needs" not in told
    assert f"reward.model={REWARD_MODEL} reward.adapter=sequence_classifier" in told
    assert [score.code for score in read_golden_scores(golden)] == [code for _, code in PROBES]


def test_a_model_that_no_family_reads_says_what_each_needs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert doctor(DoctorConfig(reward_model=str(POLICY))) == 2
    told = " ".join(capsys.readouterr().out.split())
    assert "a class that ends in ForSequenceClassification" in told
    assert "no family can read it" in told


def test_a_hub_id_is_to_be_downloaded_first() -> None:
    with pytest.raises(UserError, match="is a hub id"):
        doctor(DoctorConfig(reward_model="owner/name"))
