"""A model's directory is identified and checked without loading anything."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reward.model_files import architectures_of, context_of, model_digest, num_parameters
from rl.errors import UserError

pytestmark = pytest.mark.unit

POLICY = Path(__file__).resolve().parents[3] / "assets/minipy/policy"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(POLICY, tmp_path / "model"))


def test_a_copy_is_the_same_model_whatever_records_lie_beside_it(copy: Path) -> None:
    (copy / "stage.json").unlink()
    (copy / "README.md").write_text("another card")
    assert model_digest(copy) == model_digest(POLICY)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "chat_template.jinja"])
def test_other_weights_settings_or_template_are_another_model(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[-1] ^= 1
    (copy / name).write_bytes(content)
    assert model_digest(copy) != model_digest(POLICY)


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_a_broken_configuration_is_refused_by_name(copy: Path, text: str) -> None:
    (copy / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"config\.json"):
        context_of(copy)
    with pytest.raises(UserError, match=r"config\.json"):
        architectures_of(copy)


@pytest.mark.parametrize(
    "content",
    [b"", b"version https://git-lfs.github.com/spec/v1\n", b"\x02\0\0\0\0\0\0\0[]", b"\xff" * 64],
)
def test_weights_that_are_none_are_refused_by_name(copy: Path, content: bytes) -> None:
    assert num_parameters(copy) > 500_000
    (copy / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors: is no safetensors file"):
        num_parameters(copy)
