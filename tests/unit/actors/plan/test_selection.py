"""A best-of-N, planned: tester and reward model share what the machine has."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.plan.selection import configure_selection
from tests.settings import POLICY, REWARD_MODEL, best_of_n_args

pytestmark = pytest.mark.unit


def test_tester_and_reward_model_share_a_laptop_and_no_score_is_remembered(tmp_path: Path) -> None:
    cfg = configure_selection(best_of_n_args(tmp_path, cpu_threads=2), tmp_path)
    assert (cfg.model.path, cfg.reward.model) == (str(POLICY), str(REWARD_MODEL))
    assert (cfg.rollout.engines, cfg.reward.shards, cfg.placement.device) == (1, 1, "cpu")
    assert (cfg.rollout.cpu_threads, cfg.reward.cpu_threads) == (2, 2)
    assert cfg.reward.cache_size == 0
    assert (cfg.model.max_completion_tokens, cfg.reward.max_tokens) == (256, 512)
    asked = configure_selection(best_of_n_args(tmp_path, test_max_tokens=100), tmp_path)
    assert asked.model.max_completion_tokens == 100


def test_gpus_are_shared_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("actors.plan.evaluation.local_gpus", lambda: 8)
    cfg = configure_selection(best_of_n_args(tmp_path, shards=2), tmp_path)
    assert (cfg.placement.kind, cfg.rollout.engines, cfg.reward.shards) == ("one_node", 6, 2)
    assert (cfg.placement.rollout.gpus, cfg.placement.reward.gpus) == (1, 1)
