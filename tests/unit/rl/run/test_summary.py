"""A summary reads back as it was written, and its keys are what scripts rely on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from conf.errors import DataError
from rl.run.summary import (
    AlarmFigures,
    PolicyFigures,
    ProbeFigures,
    RunSummary,
    SetFigures,
    Watch,
    read_summary,
    write_summary,
)

pytestmark = pytest.mark.unit

PROBE = ProbeFigures(
    num_problems=64,
    num_samples=2,
    num_probes=3,
    first_pass_at_1=0.5390625,
    best_pass_at_1=0.65625,
    best_step=10,
    last_pass_at_1=0.625,
    seconds=4.901867361999393,
    time_share=0.13760956620393672,
)
SUMMARY = RunSummary(
    recipe="cure",
    labels="rm",
    reward="rm",
    reward_execution=None,
    reward_model="assets/minipy/rm",
    num_samples=8,
    base=PolicyFigures(
        pass_at_1=0.634375, best_of=0.9, oracle=1.0, marks={"eval/test_right": 0.125}
    ),
    final=PolicyFigures(pass_at_1=0.7552083333333334, best_of=0.95, oracle=0.99),
    rm_pair_accuracy=0.9929078014184397,
    valid_rate_first=0.8828125,
    valid_rate_last=0.921875,
    num_steps=12,
    executed_for_reward=0,
    executed_for_evaluation=631,
    partition=[{"full": 853376, "local": 426688, "replicated": 1408}],
    watch=Watch(
        probe=PROBE,
        alarm=AlarmFigures(
            action="stop", fired_at=[8], stopped_at=8, best_policy="run/best/step-000004/hf"
        ),
        num_executed=119,
    ),
    wall_s=128.61221762900095,
    stage_s={"engines": 69.27954816099918, "rl": 59.32765960500183},
    seed=0,
    versions={"torch": "2.13.0+cpu"},
)
# As a run has left it, key by key.
FILE = """{
  "recipe": "cure",
  "labels": "rm",
  "reward": "rm",
  "reward_execution": null,
  "reward_model": "assets/minipy/rm",
  "base_pass@1": 0.634375,
  "final_pass@1": 0.7552083333333334,
  "bon8_pass@1": 0.9,
  "oracle_pass@8": 1.0,
  "final_bon8_pass@1": 0.95,
  "final_oracle_pass@8": 0.99,
  "base_marks": {
    "eval/test_right": 0.125
  },
  "final_marks": {},
  "evaluation_sets": {},
  "rm_pair_accuracy": 0.9929078014184397,
  "valid_rate_first": 0.8828125,
  "valid_rate_last": 0.921875,
  "steps": 12,
  "programs_executed_for_reward": 0,
  "programs_executed_for_evaluation": 631,
  "zero3_partition": [
    {
      "full": 853376,
      "local": 426688,
      "replicated": 1408
    }
  ],
  "probe": {
    "num_problems": 64,
    "num_samples": 2,
    "num_probes": 3,
    "first_pass@1": 0.5390625,
    "best_pass@1": 0.65625,
    "best_step": 10,
    "last_pass@1": 0.625,
    "seconds": 4.901867361999393,
    "time_share": 0.13760956620393672
  },
  "alarm": {
    "action": "stop",
    "fired_at": [
      8
    ],
    "stopped_at": 8,
    "best_policy": "run/best/step-000004/hf"
  },
  "programs_executed_for_probe": 119,
  "wall_s": 128.61221762900095,
  "stage_s": {
    "engines": 69.27954816099918,
    "rl": 59.32765960500183
  },
  "seed": 0,
  "versions": {
    "torch": "2.13.0+cpu"
  }
}
"""


def test_a_summary_is_written_as_scripts_read_it_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_summary(path, SUMMARY)
    assert path.read_text() == FILE
    assert read_summary(path) == SUMMARY


def test_a_run_that_nobody_watched_reads_back(tmp_path: Path) -> None:
    unwatched = dataclasses.replace(SUMMARY, num_samples=1, watch=Watch())
    write_summary(tmp_path / "summary.json", unwatched)
    found = json.loads((tmp_path / "summary.json").read_text())
    assert (found["probe"], found["alarm"], found["programs_executed_for_probe"]) == (None, None, 0)
    assert (found["bon1_pass@1"], found["oracle_pass@1"]) == (0.9, 1.0)
    assert read_summary(tmp_path / "summary.json") == unwatched


def test_a_run_without_a_summary_has_none(tmp_path: Path) -> None:
    assert read_summary(tmp_path / "summary.json") is None


def test_a_summary_of_an_earlier_version_has_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    path.write_text('{"final_pass@1": 0.75, "bon16_pass@1": 0.8, "of_another": 1}')
    found = read_summary(path)
    assert found is not None
    assert found.num_samples == 16
    assert found.base == PolicyFigures(pass_at_1=None, best_of=0.8, oracle=None)
    assert (found.final.pass_at_1, found.wall_s, found.watch.num_executed) == (0.75, None, None)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"wall_s": ', r"summary\.json:1:12: not JSON"),
        ("[]", "not a JSON object"),
        ({"alarm": {"stopped_at": 3}}, "not the summary of a run"),
    ],
)
def test_what_is_no_summary_is_refused(tmp_path: Path, content: Any, words: str) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(DataError, match=words):
        read_summary(tmp_path / "summary.json")


def test_figures_of_named_sets_stand_beside_those_of_the_main_problems(tmp_path: Path):
    extra = SetFigures(
        num_problems=30,
        base=SUMMARY.final,
        final=PolicyFigures(pass_at_1=0.5, best_of=0.6, oracle=0.7),
    )
    extra = dataclasses.replace(extra, base=dataclasses.replace(extra.base, marks={}))
    summary = dataclasses.replace(SUMMARY, sets={"mbpp": extra})
    write_summary(tmp_path / "summary.json", summary)
    assert read_summary(tmp_path / "summary.json") == summary
    record = json.loads((tmp_path / "summary.json").read_text())
    assert record["base_pass@1"] == SUMMARY.base.pass_at_1
    assert record["evaluation_sets"]["mbpp"] == {
        "num_problems": 30,
        "base_pass@1": SUMMARY.final.pass_at_1,
        "bon8_pass@1": 0.95,
        "oracle_pass@8": 0.99,
        "final_pass@1": 0.5,
        "final_bon8_pass@1": 0.6,
        "final_oracle_pass@8": 0.7,
    }
