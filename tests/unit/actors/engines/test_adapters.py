"""Adapters add nothing at first, are all that is trained, and mean the same to peft."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModelForCausalLM

from actors.engines.adapters import (
    adapter_parameters,
    add_adapters,
    base_digest,
    check_base,
    save_adapter_config,
    target_layers,
    weights_of,
    without_adapters,
)
from actors.engines.forward_check import ForwardCheck, check_forward
from actors.engines.specs import STATE_FILE, TrainSpec
from actors.engines.train_model import TrainModel, load_model
from conf.errors import UserError
from conf.schema import LoraConfig, PolicyConfig
from launch.benches.tiny_models import make_tiny
from rl.base.files import replace_json
from rl.loss import MicrobatchTensors
from rl.types import FloatArray, Microbatch

pytestmark = pytest.mark.unit

POLICY = PolicyConfig(lr=1e-3, microbatch_tokens=256)
LORA = LoraConfig(rank=4, alpha=6)
IDS = torch.arange(3, 60)[None]
FAMILIES = ["Qwen3", "GPT-2"]  # the second one's layers hold their weights the other way round


def adapted(directory: Path, family: str = "Qwen3", lora: LoraConfig = LORA) -> TrainModel:
    make_tiny(family, directory)
    spec = TrainSpec(model_path=str(directory), policy=POLICY, total_steps=1)
    model = load_model(spec).eval()
    add_adapters(model.model, lora, str(directory), seed=0)
    return model


def moved(model: TrainModel) -> TrainModel:
    """As after some steps: what begins as 0 is so no more."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in adapter_parameters(model.model).values():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def saved(model: TrainModel, directory: Path) -> Path:
    tensors = {n: p.detach().clone() for n, p in adapter_parameters(model.model).items()}
    directory.mkdir()
    save_file(tensors, directory / "adapter_model.safetensors", {"format": "pt"})
    save_adapter_config(model.model, directory)
    return directory


@pytest.mark.parametrize("family", FAMILIES)
def test_before_the_first_step_the_policy_is_the_base_bit_for_bit(tmp_path: Path, family: str):
    model = adapted(tmp_path / "m", family).model
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32).eval()
    assert torch.equal(logits(model), logits(base))
    whole = {weight.names[0]: weight.whole() for weight in weights_of(model)}
    named = dict(base.named_parameters())
    assert list(whole) == list(named)
    assert all(torch.equal(whole[name], parameter) for name, parameter in named.items())


def test_adapters_are_all_that_has_a_gradient(tmp_path: Path):
    model = moved(adapted(tmp_path / "m"))
    model.model(input_ids=IDS).logits.square().mean().backward()
    trained = {id(p) for p in adapter_parameters(model.model).values()}
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (id(parameter) in trained), name
        assert parameter.requires_grad == (id(parameter) in trained)
    assert len(trained) == 2 * len(target_layers(plain(tmp_path / "m"), LORA))


def plain(directory: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_peft_reads_what_is_saved_and_adds_it_up_to_the_same_weights(
    tmp_path: Path, family: str
):
    model = moved(adapted(tmp_path / "m", family))
    read = PeftModel.from_pretrained(plain(tmp_path / "m"), saved(model, tmp_path / "adapter"))
    assert torch.equal(logits(read.eval()), logits(model.model))
    merged = dict(read.merge_and_unload().named_parameters())
    whole = {weight.names[0]: weight.whole() for weight in weights_of(model.model)}
    assert whole.keys() == merged.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(tensor, merged[name], atol=1e-6, rtol=0)
    assert any(not torch.equal(whole[n], p) for n, p in plain(tmp_path / "m").named_parameters())


def test_the_sum_of_bfloat16_weights_is_rounded_once(tmp_path: Path):
    model = moved(adapted(tmp_path / "m"))
    exact = {
        weight.names[0]: weight.whole() for weight in weights_of(model.bfloat16().float().model)
    }
    for weight in weights_of(model.bfloat16().model):
        assert torch.equal(weight.whole(), exact[weight.names[0]].bfloat16())


def test_the_saved_configuration_names_the_base_and_is_the_same_every_time(tmp_path: Path):
    model = adapted(tmp_path / "m")
    texts = [(saved(model, tmp_path / name) / "adapter_config.json").read_text() for name in "ab"]
    assert texts[0] == texts[1]
    assert f'"base_model_name_or_path": "{(tmp_path / "m").resolve()}"' in texts[0]


def test_without_its_adapters_the_policy_is_the_base_and_then_itself_again(tmp_path: Path):
    model = moved(adapted(tmp_path / "m")).model
    after = logits(model)
    with without_adapters(model):
        assert torch.equal(logits(model), logits(plain(tmp_path / "m")))
    assert torch.equal(logits(model), after)
    assert float((after - logits(plain(tmp_path / "m"))).abs().max()) > 1e-3


def test_adapters_start_the_same_for_a_seed_and_leave_the_generator_alone(tmp_path: Path):
    state = torch.random.get_rng_state()
    models = [adapted(tmp_path / name) for name in "ab"]
    starts = [list(adapter_parameters(model.model).values()) for model in models]
    assert all(map(torch.equal, *starts))
    torch.random.set_rng_state(state)
    model = load_model(TrainSpec(model_path=str(tmp_path / "a"), policy=POLICY, total_steps=1))
    before = torch.random.get_rng_state()
    add_adapters(model.model, LORA, "m", seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_trained_adapters_pack_and_share_prefixes(tmp_path: Path):
    model = moved(adapted(tmp_path / "m"))

    def forward(mb: Microbatch, *, own: bool = False) -> FloatArray:
        with torch.no_grad():
            tensors = MicrobatchTensors.from_microbatch(mb, torch.device("cpu"))
            return model(tensors, own=own).values_M.numpy()

    found: ForwardCheck = check_forward(
        forward,
        lambda mb: forward(mb, own=True),
        vocab_size=500,
        forbidden=[0, 1, 2],
        scores=False,
        dtype="float32",
    )
    found.check("m")
    assert found.packs and found.shares and found.shared < 1e-5


# --- what is refused -----------------------------------------------------------------------------


def refusal(model: Any, **lora: Any) -> str:
    with pytest.raises(UserError) as caught:
        target_layers(model, LoraConfig(**{"rank": 4, **lora}))
    return str(caught.value)


def test_every_linear_layer_of_the_blocks_has_an_adapter_unless_some_are_named(tmp_path: Path):
    make_tiny("Qwen3", tmp_path / "m")
    model = plain(tmp_path / "m")
    every = target_layers(model, LORA)
    kinds = {name.rpartition(".")[2] for name in every}
    assert kinds == {*("q_proj", "k_proj", "v_proj", "o_proj"), "gate_proj", "up_proj", "down_proj"}
    some = target_layers(model, LoraConfig(rank=4, layers=("q_proj", "mlp.up_proj")))
    assert {name.rpartition(".")[2] for name in some} == {"q_proj", "up_proj"}
    assert some.keys() < every.keys()


def test_a_target_that_the_model_has_not_got_is_refused_with_those_that_it_has(tmp_path: Path):
    make_tiny("Qwen3", tmp_path / "m")
    message = refusal(plain(tmp_path / "m"), layers=("q_proj", "c_attn"))
    assert message.startswith("policy.lora.layers: c_attn is no linear layer of Qwen3ForCausalLM")
    assert "down_proj,gate_proj,k_proj" in message
    assert "norm is no linear layer" in refusal(plain(tmp_path / "m"), layers=("norm",))


@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_and_head_are_refused(tmp_path: Path, tied: bool):
    make_tiny("Qwen3", tmp_path / "m")
    model = plain(tmp_path / "m")
    model.config.tie_word_embeddings = tied
    shared = " (they share their weights)" if tied else ""
    for target, what in (("lm_head", "the LM head"), ("embed_tokens", "the table of tokens")):
        assert f"{target} is {what}{shared}, which takes no adapter" in refusal(
            model, layers=(target,)
        )


def test_a_rank_above_the_size_of_a_layer_is_refused_with_that_layer(tmp_path: Path):
    make_tiny("Qwen3", tmp_path / "m")
    model = plain(tmp_path / "m")
    layers = target_layers(model, LORA)
    smallest = min(min(layer.weight.shape) for layer in layers.values())  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
    target_layers(model, LoraConfig(rank=smallest))
    message = refusal(model, rank=smallest + 1)
    assert message.startswith(f"policy.lora.rank: {smallest + 1} is more than the layer model.")
    assert "or leave that layer out of policy.lora.layers" in message


def test_stacked_experts_take_no_adapters_and_the_layers_beside_them_are_named(tmp_path: Path):
    make_tiny("Qwen3-MoE", tmp_path / "m")
    model = plain(tmp_path / "m")
    message = refusal(model)
    assert "stacked (down_proj, gate_up_proj)" in message and "k_proj,o_proj,q_proj" in message
    assert "names stacked experts" in refusal(model, layers=("q_proj", "gate_up_proj"))
    assert target_layers(model, LoraConfig(rank=4, layers=("q_proj",)))


def test_a_checkpoint_goes_on_with_its_own_base_wherever_that_lies(tmp_path: Path):
    make_tiny("Qwen3", tmp_path / "m")
    shutil.copytree(tmp_path / "m", tmp_path / "copy")
    replace_json(tmp_path / STATE_FILE, {"base": base_digest(str(tmp_path / "m"))})
    check_base(tmp_path, str(tmp_path / "copy"))
    make_tiny("GPT-2", tmp_path / "other")
    with pytest.raises(UserError, match=r"^model\.path: .*other is not the model that the adapt"):
        check_base(tmp_path, str(tmp_path / "other"))
