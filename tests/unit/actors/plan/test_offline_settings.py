"""What commands without an experiment read of their configuration is written down, value by value.

A change of a YAML group or of a default that such a command goes by shows here; a change of an
experiment cannot.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from actors.plan import evaluation, rm_recipe, selection
from actors.plan.layout.model_shape import shape_of
from actors.plan.reward_group import answer_config, reward_config
from conf import groups, offline
from conf.commands.benchmark import DataArgs, EvaluationArgs
from conf.commands.best_of_n import BestOfNArgs, JudgeArgs
from conf.commands.reward_model import AnswerArgs, RewardGroupArgs
from conf.commands.train_rm import TrainRmArgs
from conf.offline import offline_config
from conf.schema import Config, RequestConfig, SandboxConfig

pytestmark = pytest.mark.unit

TREE = Path(__file__).resolve().parents[4]
POLICY, REWARD_MODEL = "assets/minipy/policy", "assets/minipy/rm"
FROZEN: Mapping[str, Any] = json.loads(
    Path(__file__).with_name("offline_settings.json").read_text(encoding="utf-8")
)


def _evaluate(placement: Any) -> Config:
    args = EvaluationArgs(
        model=POLICY,
        benchmark="minipy",
        output="o.json",
        data=DataArgs(),
        sandbox=SandboxConfig(),
        placement=placement,
        engines=1,
        cpu_threads=1,
    )
    return evaluation.configure(args, 256, 256)


def _best_of_n(placement: Any) -> Config:
    args = BestOfNArgs(
        policy=POLICY,
        reward_model=REWARD_MODEL,
        tester=POLICY,
        data=DataArgs(),
        sandbox=SandboxConfig(),
        judge=JudgeArgs(request=RequestConfig()),
        placement=placement,
        engines=2,
        cpu_threads=1,
    )
    return selection.configure_selection(args, Path("out"))


def _train_rm(placement: Any) -> Config:
    args = TrainRmArgs(data="pairs", model=POLICY, output="out", placement=placement)
    return rm_recipe.configure(args, shape_of(POLICY, scores=True))


def _configured(command: str, placement: Any) -> Config:
    """The configuration of a command; the pool of programs and the tester have the base itself."""
    made = {
        "evaluate": lambda: _evaluate(placement),
        "best_of_n": lambda: _best_of_n(placement),
        "train_rm": lambda: _train_rm(placement),
        "score": lambda: answer_config(AnswerArgs(model=REWARD_MODEL, placement=placement)),
        "judge": lambda: reward_config(REWARD_MODEL, RewardGroupArgs(placement=placement)),
        "verify": offline_config,
        "tester": offline_config,
    }
    return made[command]()


@pytest.mark.parametrize("name", FROZEN)
def test_what_a_command_reads_is_as_written_down(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(TREE)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    command, _, placement = name.partition(" ")
    found = json.loads(json.dumps(asdict(_configured(command, placement))))
    for section, expected in FROZEN[name].items():
        if isinstance(expected, dict):
            assert {key: found[section][key] for key in expected} == expected, section
        else:
            assert found[section] == expected, section


def test_no_experiment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    before = offline_config()
    files = {group: found for group, found in groups.choices().items() if group != "experiment"}
    monkeypatch.setattr(offline, "choices", lambda: files)
    assert offline_config() == before
    assert before.experiment not in groups.choices()["experiment"]


def test_keys_are_checked_as_those_of_a_run() -> None:
    with pytest.raises(ValueError, match=r"reward\.max_tokens: 3 is not"):
        offline_config(keys={"reward.max_tokens": 3})
    with pytest.raises(ValueError, match=r"reward\.kind=rm and hybrid need reward\.model"):
        offline_config({"reward": "codescaler"})
