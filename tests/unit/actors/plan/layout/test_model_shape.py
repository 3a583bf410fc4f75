"""A model's size is read or known, never fetched and never made up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from actors.plan.layout.model_shape import shape_of
from reward.model.files import num_parameters

pytestmark = pytest.mark.unit

SHIPPED = Path(__file__).resolve().parents[5] / "assets/minipy/policy"


@pytest.mark.parametrize(
    ("hub_id", "num"),  # as the model cards state them
    [
        ("Qwen/Qwen3-0.6B", 596_049_920),
        ("Qwen/Qwen3-1.7B", 1_720_574_976),
        ("Qwen/Qwen3-4B-Base", 4_022_468_096),
        ("Qwen/Qwen3-8B-Base", 8_190_735_360),
        ("Qwen/Qwen3-14B", 14_768_307_200),
        ("Qwen/Qwen3-32B", 32_762_123_264),
    ],
)
def test_a_published_shape_has_the_published_number_of_parameters(hub_id: str, num: int):
    shape = shape_of(hub_id, scores=False)
    assert shape is not None and shape.num_parameters == num


@pytest.mark.parametrize(
    ("place", "size"),
    [
        ("outputs/qwen3_8b_codescaler/run/hf", "Qwen/Qwen3-8B"),
        ("outputs/qwen3_1_7b_one_gpu/run/hf", "Qwen/Qwen3-1.7B"),
        ("models/Qwen3-0.6B-mine", "Qwen/Qwen3-0.6B"),
        ("outputs/qwen3_80b/run/hf", None),
        ("outputs/quickstart/run/hf", None),
    ],
)
def test_a_directory_that_a_run_has_still_to_write_is_as_large_as_its_name_says(
    tmp_path: Path, place: str, size: str | None
):
    shape = shape_of(str(tmp_path / place), scores=False)
    known = None if size is None else shape_of(size, scores=False)
    assert (shape and shape.dimensions) == (known and known.dimensions)
    if shape is not None:
        assert shape.source == "the name of its place, still empty"
        (tmp_path / place).mkdir(parents=True)  # there, and no model: it is none to come
        found = shape_of(str(tmp_path / place), scores=False)
        assert found is None or found.source == "the size in its name"


def test_a_reward_model_has_a_score_head_in_place_of_the_lm_head():
    shape = shape_of("LARK-Lab/CodeScaler-8B", scores=True)
    assert shape is not None
    assert shape.num_parameters == 8_190_735_360 - 151_936 * 4096 + 4096


def test_a_local_model_is_counted_by_its_weight_files():
    shape = shape_of(str(SHIPPED), scores=False)
    assert shape is not None and shape.dimensions is not None
    assert shape.num_parameters == num_parameters(SHIPPED)
    # The formula, checked against weights.
    assert shape.dimensions.num_parameters() == shape.num_parameters


def test_a_directory_without_weights_is_counted_by_its_configuration(tmp_path: Path):
    (tmp_path / "config.json").write_text((SHIPPED / "config.json").read_text())
    shape = shape_of(str(tmp_path), scores=False)
    assert shape is not None and shape.num_parameters == num_parameters(SHIPPED)
    assert shape.source == "its config.json"


def test_an_architecture_with_other_names_is_unknown(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"n_layer": 12}))
    assert shape_of(str(tmp_path), scores=False) is None


@pytest.mark.parametrize(
    ("hub_id", "num"),
    [
        ("someone/CodeLM-7B", 7_000_000_000),
        ("someone/v2.5-1.5b-instruct", 1_500_000_000),
        ("someone/SmolLM2-135M-Instruct", 135_000_000),
    ],
)
def test_the_name_of_another_hub_id_tells_the_number_and_no_shape(hub_id: str, num: int):
    shape = shape_of(hub_id, scores=False)
    assert shape is not None
    assert (shape.num_parameters, shape.dimensions) == (num, None)


@pytest.mark.parametrize("hub_id", ["someone/model", "someone/beta-3bit", "7B/model"])
def test_a_name_without_a_size_tells_nothing(hub_id: str):
    assert shape_of(hub_id, scores=False) is None
