"""`launch/judge_rm.py`: from pairs and rollouts to a card, with scores given by the test."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from actors.jobs import assess
from conf.commands.judge_rm import JudgeArgs
from launch import judge_rm
from launch.common.cli import main_simple
from reward.pairs.pairs import Pair, write_pairs
from rl.types import Score

pytestmark = pytest.mark.unit

RM = Path(__file__).resolve().parents[3] / "assets/minipy/rm"


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "argv", ["judge_rm.py"])
    rows = [
        Pair(
            prompt_id=str(n),
            question_content=f"Add {n} | to x.",
            code_pos=f"def f(x):\n    y = x + {n}\n    return y",
            code_neg=f"def f(x):\n    y = x - {n}\n    return y",
            source="mutant" if n % 2 else "rollout",
        )
        for n in range(1, 9)
    ]
    write_pairs(tmp_path / "pairs.parquet", rows)
    return tmp_path / "pairs.parquet"


def talked_into(_: object, material: assess.Material) -> dict[tuple[str, str], Score]:
    """A model that sees the sign, and believes whoever says that a program is right."""
    return {
        (question, code): Score(
            value=("+" in code) * 2.0 + 3.0 * bool(re.search("(?i)correct|pass", code)),
            truncated="<|im_end|>" in code,
        )
        for question, codes in material.texts().items()
        for code in codes
    }


def test_a_card_tells_figures_attacks_and_settings(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(assess, "score", talked_into)
    out = tmp_path / "card"
    assert (
        main_simple(JudgeArgs, judge_rm.run, [f"model={RM}", f"pairs={pairs}", f"output={out}"])
        == 0
    )
    figures = json.loads((out / "figures.json").read_text())
    assert figures["pairs"]["figures"]["accuracy"]["value"] == 1
    assert set(figures["pairs"]["by_source"]) == {"mutant", "rollout"}
    attacks = figures["attacks"]
    assert list(attacks) == ["comment", "docstring", "rename", "blank_lines", "dead_code", "markup"]
    for name, lifted in {"comment": 1, "docstring": 1, "markup": 1, "rename": 0}.items():
        assert attacks[name]["lifted"]["value"] == lifted
        assert attacks[name]["wrong shift"]["value"] == 3 * lifted
    assert figures["num_truncated"] == 16  # both programs of each pair, under `markup`
    assert figures["settings"]["dtype"] == "float32" and figures["settings"]["model_digest"]
    assert figures["settings"]["max_tokens"] == 512
    scores = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert len(scores) == figures["num_texts"]
    markdown, page = (out / "card.md").read_text(), (out / "card.html").read_text()
    for text in (markdown, page):
        assert (
            "accuracy" in text and "lifted" in text and figures["settings"]["model_digest"] in text
        )
    assert all((out / name).is_file() for name in re.findall(r"\((\w+\.png)\)", markdown))
    assert page.count("data:image/png;base64,") == 2
    assert not re.search(r"(src|href)=.(?!data:)", page)  # needs no other file


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], "pairs, rollouts: give at least one"),
        (["pairs=none.parquet"], "none.parquet does not exist"),
        (["rollouts=none*"], "rollouts: 'none*' names no rollouts"),
        (["pairs=PAIRS", "model=nowhere/at/all"], "model: the model directory nowhere/at/all does"),
        (["pairs=owner/name", "model=nowhere/at/all"], "model: the model directory nowhere/at/all"),
    ],
)
def test_bad_input_ends_with_2_before_anything_starts(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides, words
):
    given = {"model": str(RM), "output": str(tmp_path / "card")}
    given |= dict(o.replace("PAIRS", str(pairs)).split("=", 1) for o in overrides)
    assert main_simple(JudgeArgs, judge_rm.run, [f"{k}={v!r}" for k, v in given.items()]) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error
    assert not (tmp_path / "card").exists()
