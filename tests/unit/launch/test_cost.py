"""`launch/cost.py`: its tables and its picture."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.errors import UserError
from launch.cost import CostArgs, RateArgs, TextArgs, run

pytestmark = pytest.mark.unit

TREE = Path(__file__).resolve().parents[3]


def test_a_step_its_bottleneck_and_the_stages_are_printed(capsys: pytest.CaptureFixture[str]):
    run(CostArgs(devices=64, stages=True))
    out = capsys.readouterr().out
    for text in ("engines", "bottleneck", "policy waits", "rollouts for pairs", "best-of-N"):
        assert text in out


def hours(printed: str) -> dict[str, tuple[str, str]]:
    """GPU hours and what they are of, by stage."""
    rows = [line.split("│") for line in printed.splitlines() if line.count("│") == 2]
    return {name.strip(): (value.strip(), basis.strip()) for name, value, basis in rows}


def test_the_page_of_the_recipe_shows_what_is_printed(capsys: pytest.CaptureFixture[str]):
    page = (TREE / "docs/recipe.md").read_text()
    table = page.partition("### What it would cost")[2].partition("### 1.")[0]
    shown = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    found = {name: (value, basis) for name, value, basis in shown if name != "stage"}
    run(CostArgs(stages=True))
    printed = hours(capsys.readouterr().out)
    names = {"problems": "data"}
    assert len(found) == 7
    for name, (value, basis) in found.items():
        of_stage, of_basis = printed[names.get(name, name)]
        assert value == of_stage, name
        assert basis.startswith(of_basis), name
    run(CostArgs(stages=True, changes=("algorithm.max_staleness=1",)))
    ahead = hours(capsys.readouterr().out)["RL"][0]
    assert found["RL"][1].endswith(f"; {ahead} with `algorithm.max_staleness=1`")
    run(CostArgs(stages=True, texts=TextArgs(answer_tokens=2000.0)))
    assert (
        f"with answers of 2,000 tokens RL takes {hours(capsys.readouterr().out)['RL'][0]}." in page
    )


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
