"""A model's directory is identified and checked without loading anything."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from conf.errors import UserError
from reward.model.files import (
    architectures_of,
    check_policy,
    check_reward_model,
    context_of,
    find_model,
    is_local,
    num_parameters,
)
from rl.text.hub_files import model_digest

pytestmark = pytest.mark.unit

POLICY = Path(__file__).resolve().parents[4] / "assets/minipy/policy"


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
    with pytest.raises(UserError, match=r"model\.safetensors: is not a safetensors file"):
        num_parameters(copy)


def test_a_model_in_a_folder_of_ours_is_no_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_model("Qwen/Qwen3-8B", "model.path") is None
    (tmp_path / "mine").mkdir()
    for name in ("models/rm", "outputs/rm", "mine/rm", "./rm", "rm"):
        with pytest.raises(UserError, match=f"^model: the model directory {name} does not exist"):
            find_model(name, "model")
    with pytest.raises(UserError, match="model: has no value"):
        find_model("", "model")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file, not a directory"):
        find_model("file", "model")
    assert not is_local("owner/name")


def test_weights_that_are_cut_short_are_refused(copy: Path) -> None:
    weights = copy / "model.safetensors"
    whole = weights.stat().st_size
    weights.write_bytes(weights.read_bytes()[:20_000])
    with pytest.raises(UserError, match=rf"holds 20000 of {whole} bytes"):
        find_model(str(copy), "model")


def test_a_reward_model_is_no_policy_and_a_policy_no_reward_model() -> None:
    assert check_policy(str(POLICY), "model.path") == POLICY
    with pytest.raises(UserError, match=r"model\.path: .* generates no text"):
        check_policy(str(POLICY.parent / "rm"), "model.path")
    check_reward_model(str(POLICY.parent / "rm"), "sequence_classifier", 256)
    with pytest.raises(UserError, match=r"reward\.model: .* has architectures"):
        check_reward_model(str(POLICY), "sequence_classifier", 256)
