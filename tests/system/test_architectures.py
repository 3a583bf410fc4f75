"""Families beyond the shipped one, on a real rank and engine: docs/results/architectures.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from launch.benches.architecture_probe import refusal
from launch.benches.architectures import probe
from launch.benches.tiny_models import make_tiny

pytestmark = pytest.mark.system

Record = Callable[[str], None]


@pytest.mark.parametrize("family", ["Qwen3-MoE", "OPT", "GPT-NeoX"])
def test_engine_and_rank_agree_as_loaded_published_updated_and_saved(
    tmp_path: Path, record: Record, family: str
) -> None:
    found = probe(family, tmp_path)
    record(f"{family}: {found}")
    assert found["refused"] is None and "failed" not in found
    assert set(found["gaps"]) == {"loaded", "published", "updated", "saved"}
    assert max(found["gaps"].values()) <= 1e-4
    assert found["packs"] == (family != "OPT")  # absolute positions take a row each


@pytest.mark.parametrize("family", ["Qwen3-MoE", "Gemma 3"])
def test_a_reward_model_scores_as_plain_transformers_does(
    tmp_path: Path, record: Record, family: str
) -> None:
    found = probe(family, tmp_path, scores=True)
    record(f"{family} reward model: {found}")
    assert found["refused"] is None and "failed" not in found
    assert found["gaps"]["scores"] <= 1e-5
    assert found["shares"] == (family != "Gemma 3")  # never beside a sliding window


@pytest.mark.parametrize("family", ["Granite", "Qwen3.5", "Bloom", "Falcon-H1", "LFM2"])
def test_what_cannot_be_a_policy_is_refused_before_an_engine_starts(
    tmp_path: Path, family: str
) -> None:
    make_tiny(family, tmp_path)
    assert refusal(tmp_path, scores=False)
