"""A model is read again when it has been written: whole, and every number finite."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from conf.errors import EngineError, NonFiniteError
from reward.model.safetensors_files import SINGLE
from reward.model.written import check_written
from tests.settings import POLICY

pytestmark = pytest.mark.unit


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the shipped policy."""
    return Path(shutil.copytree(POLICY, tmp_path / "hf"))


def test_a_good_model_is_read_to_its_end(model: Path) -> None:
    check_written(model)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_number_that_is_none_is_named_with_its_tensor(
    model: Path, value: float, dtype: torch.dtype
) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(model / SINGLE).items()}
    tensors["model.norm.weight"][3] = value
    save_file(tensors, model / SINGLE, metadata={"format": "pt"})
    size = tensors["model.norm.weight"].numel()
    words = f"model.norm.weight holds 1 NaN or infinite numbers of {size}; lower policy.lr"
    with pytest.raises(NonFiniteError, match=words):
        check_written(model)


def test_a_file_that_is_cut_short_is_named(model: Path) -> None:
    with (model / SINGLE).open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(EngineError, match=f"cannot be read: .*{SINGLE}"):
        check_written(model)


def test_a_torn_configuration_is_named(model: Path) -> None:
    (model / "config.json").write_text('{"model_type": ')
    with pytest.raises(EngineError, match=r"that was written here cannot be read: .*config"):
        check_written(model)
