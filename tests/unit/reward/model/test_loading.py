"""A model whose tensors are not all there, under their own names, is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from conf.errors import UserError
from launch.benches.tiny_models import make_tiny
from reward.model.loading import (
    LoadingReport,
    check_attention,
    check_kernel,
    check_report,
    check_tensors,
    first_line,
)

pytestmark = pytest.mark.unit

Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("loading") / "whole"
    make_tiny("Qwen3", directory)
    return directory


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("loading") / "rm"
    make_tiny("Qwen3", directory, scores=True)
    return directory


def changed(model: Path, tmp_path: Path, change: Callable[[Tensors], Tensors]) -> Path:
    directory = tmp_path / "changed"
    shutil.copytree(model, directory)
    file = directory / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return directory


def refusal(directory: Path, head: str = "lm") -> str:
    with pytest.raises(UserError) as caught:
        check_tensors(directory, "model.path", head)  # pyright: ignore[reportArgumentType]
    return str(caught.value)


def test_a_whole_model_is_read_as_language_model_and_as_base_of_a_reward_model(whole: Path):
    check_tensors(whole, "model.path", "lm")
    check_tensors(whole, "model", "score")


def test_a_whole_reward_model_is_read(classifier: Path):
    check_tensors(classifier, "reward.model", "score")


@pytest.mark.parametrize("head", ["lm", "score"])
def test_missing_tensors_are_named(whole: Path, tmp_path: Path, head: str):
    message = refusal(
        changed(whole, tmp_path, lambda t: {k: v for k, v in t.items() if ".layers.1." not in k}),
        head,
    )
    assert message.startswith(f"model.path: {tmp_path}/changed: model.layers.1.input_layernorm")
    assert "and 8 more are missing and would be random numbers" in message


@pytest.mark.parametrize("prefix", ["_orig_mod.", "some.wrapper."])
@pytest.mark.parametrize("head", ["lm", "score"])
def test_a_prefix_of_a_wrapper_is_named_with_a_key(
    whole: Path, tmp_path: Path, head: str, prefix: str
):
    wrapped = changed(whole, tmp_path, lambda t: {prefix + k: v for k, v in t.items()})
    message = refusal(wrapped, head)
    assert f"carry the prefix '{prefix}'" in message
    assert f"{prefix}lm_head.weight" in message or f"{prefix}model." in message


def test_a_tensor_of_another_shape_is_named_with_both_shapes(whole: Path, tmp_path: Path):
    def cut(tensors: Tensors) -> Tensors:
        name = "model.layers.0.self_attn.k_proj.weight"
        return {**tensors, name: tensors[name][:10].contiguous()}

    message = refusal(changed(whole, tmp_path, cut))
    assert "layers.0.self_attn.k_proj.weight has the shape [10, 128]" in message
    assert "config.json says [64, 128]" in message


def test_a_tensor_that_nobody_reads_is_refused(whole: Path, tmp_path: Path):
    extra = changed(whole, tmp_path, lambda t: {**t, "adapter.weight": torch.zeros(3)})
    assert "adapter.weight, which the model does not read" in refusal(extra)


def test_buffers_that_old_versions_saved_are_no_fault(whole: Path, tmp_path: Path):
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    check_tensors(changed(whole, tmp_path, lambda t: {**t, name: torch.zeros(16)}), "m", "lm")


def test_a_reward_model_without_its_score_head_is_refused(classifier: Path, tmp_path: Path):
    headless = changed(
        classifier, tmp_path, lambda t: {k: v for k, v in t.items() if k != "score.weight"}
    )
    assert "score.weight is missing" in refusal(headless, "score")


def test_an_architecture_without_a_classifier_is_refused(tmp_path: Path):
    make_tiny("Granite", tmp_path / "granite")
    message = refusal(tmp_path / "granite", "score")
    assert "no sequence classifier with one score of the architecture 'granite'" in message


def test_a_kernel_that_the_class_has_not_got_is_refused(tmp_path: Path):
    make_tiny("Bloom", tmp_path / "bloom")
    with pytest.raises(UserError, match=r"policy\.attention=sdpa: BloomForCausalLM .*=eager"):
        check_attention(tmp_path / "bloom", "policy.attention", "lm", "sdpa")
    with pytest.raises(UserError, match=r"policy\.attention=flex_attention: BloomForCausalLM"):
        check_attention(tmp_path / "bloom", "policy.attention", "lm", "flex_attention")
    check_attention(tmp_path / "bloom", "policy.attention", "lm", "eager")


def test_the_report_of_a_real_load_is_held_to_the_same_rule():
    fresh = LoadingReport(frozenset(["score.weight"]), frozenset(["lm_head.weight"]))
    check_report("hub/base", "score", fresh, new_head=True)
    with pytest.raises(UserError, match=r"hub/base: .*score\.weight"):
        check_report("hub/base", "score", fresh, new_head=False)
    with pytest.raises(UserError, match=r"model\.norm\.weight is missing"):
        check_report(
            "hub/base", "lm", LoadingReport(frozenset(["model.norm.weight"])), new_head=False
        )


def test_the_reason_of_a_library_is_kept_and_not_its_heading():
    error = ValueError("GenerationConfig is invalid:\n  top_p is set\nFor further information ...")
    assert first_line(error) == "top_p is set"


def test_a_file_that_changes_is_read_again(whole: Path, tmp_path: Path):
    copy = changed(whole, tmp_path, lambda tensors: tensors)
    check_tensors(copy, "model.path", "lm")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    assert "(3) must be equal to the number of `layer_types` (2)" in refusal(copy)
    longer = {**config, "num_hidden_layers": 3, "layer_types": 3 * ["full_attention"]}
    (copy / "config.json").write_text(json.dumps(longer))
    assert "model.layers.2." in refusal(copy)


def test_a_kernel_whose_package_is_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reward.model.loading.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"policy\.attention: flash_attention_2 needs .*flash-attn"):
        check_kernel("policy.attention", "flash_attention_2")
    for attention in ("sdpa", "flex_attention", "eager"):
        check_kernel("policy.attention", attention)
    monkeypatch.setattr("reward.model.loading.find_spec", lambda name: name)
    check_kernel("policy.attention", "flash_attention_2")


@pytest.mark.parametrize("method", ["awq", "gptq", "compressed-tensors"])
def test_quantised_weights_need_no_package_that_could_train_them(
    whole: Path, tmp_path: Path, method: str
) -> None:
    copy = changed(whole, tmp_path, lambda t: t)
    config = json.loads((copy / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, "bits": 4}
    (copy / "config.json").write_text(json.dumps(config))
    check_tensors(copy, "model", "lm")
