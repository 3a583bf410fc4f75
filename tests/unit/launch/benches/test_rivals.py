"""The two sides of `what=rivals`, as far as they need no step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from actors.plan.checks.inputs import check_inputs
from actors.plan.shipped import with_shipped_models
from conf.errors import UserError
from conf.schema import Config
from launch.benches.steps.rivals import rows_at_once, with_reward_model
from launch.common.compose import compose_config

pytestmark = pytest.mark.unit


@pytest.fixture
def cfg() -> Config:
    return with_shipped_models(compose_config(["experiment=quickstart"]))


def test_a_run_keeps_its_reward_model(cfg: Config, tmp_path: Path):
    assert with_reward_model(cfg, tmp_path) is cfg
    assert not list(tmp_path.iterdir())


def test_a_run_judged_by_tests_gets_a_reward_model_of_its_policy(cfg: Config, tmp_path: Path):
    by_tests = replace(cfg, reward=replace(cfg.reward, kind="execution", model=None))
    found = with_reward_model(by_tests, tmp_path)
    assert (found.reward.kind, found.reward.model) == ("rm", str(tmp_path))
    policy = AutoModelForCausalLM.from_pretrained(cfg.model.path, dtype=torch.float32)
    judge = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert judge.num_labels == 1
    ours, theirs = (dict(model.base_model.named_parameters()) for model in (policy, judge))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    check_inputs(found)  # both sides can read it


def test_trl_computes_a_step_at_once_or_in_equal_parts(cfg: Config):
    assert rows_at_once(cfg, None) == 16 * 8
    assert rows_at_once(cfg, 32) == 32
    with pytest.raises(UserError, match=r"^rows: 48 does not divide the 128 completions of a step"):
        rows_at_once(cfg, 48)
