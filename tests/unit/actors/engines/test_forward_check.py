"""Numbers decide whether a model is trained, and whether its samples share a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actors.engines.forward_check import ForwardCheck, check_forward
from actors.engines.specs import TrainSpec
from actors.engines.train_model import load_model, plain_reader, restore_buffers
from conf.errors import EngineError
from conf.schema import PolicyConfig
from launch.benches.tiny_models import make_tiny
from rl.loss import MicrobatchTensors
from rl.types import FloatArray, Microbatch

pytestmark = pytest.mark.unit

POLICY = PolicyConfig(lr=1e-3, microbatch_tokens=256)


def checked(directory: Path, head: str = "lm", window: int | None = None) -> ForwardCheck:
    spec = TrainSpec(model_path=str(directory), head=head, policy=POLICY, total_steps=1)  # pyright: ignore[reportArgumentType]
    model: Any = load_model(spec).eval()

    def forward(mb: Microbatch, *, own: bool = False) -> FloatArray:
        with torch.no_grad():
            tensors = MicrobatchTensors.from_microbatch(mb, torch.device("cpu"))
            return model(tensors, own=own).values_M.numpy()

    score = model.model.score.weight.detach() if head == "score" else None
    return check_forward(
        forward,
        lambda mb: forward(mb, own=True),
        vocab_size=500,
        forbidden=[0, 1, 2],
        scores=head == "score",
        dtype="float32",
        window=window,
        plain=plain_reader(spec, score),
    )


@pytest.mark.parametrize("head", ["lm", "score"])
@pytest.mark.parametrize("family", ["Qwen3", "Qwen3-MoE", "GPT-2"])
def test_attention_alone_packs_and_shares(tmp_path: Path, family: str, head: str):
    make_tiny(family, tmp_path / "m", scores=head == "score")
    found = checked(tmp_path / "m", head)
    found.check(family)
    assert found.packs and found.shares and not found.notes(shares=True)
    assert found.plain is not None and found.plain < 1e-5


@pytest.mark.parametrize("family", ["Qwen3.5", "LFM2", "OPT"])
def test_state_and_absolute_positions_take_one_sample_per_row(tmp_path: Path, family: str):
    make_tiny(family, tmp_path / "m")
    found = checked(tmp_path / "m")
    found.check(family)  # each sample by itself is right
    assert not found.packs and not found.shares
    (note,) = found.notes()
    assert note.startswith("packing is off") and note.endswith("one sample per row")


def test_a_sliding_window_shares_no_prefix_but_packs(tmp_path: Path):
    make_tiny("Gemma 3", tmp_path / "m", scores=True)
    found = checked(tmp_path / "m", "score")
    assert found.packs and not found.shares  # the window is 64, which the samples show
    assert "prefixes are not shared" in found.notes(shares=True)[0]
    make_tiny("Qwen3", tmp_path / "wide", scores=True)
    wide = checked(tmp_path / "wide", "score", window=4096)  # wider than the samples
    assert wide.packs and not wide.shares
    assert "see 4096 tokens only" in wide.notes(shares=True)[0]


@pytest.mark.parametrize("family", ["Falcon-H1", "Granite"])
def test_a_head_that_does_more_than_a_linear_map_is_refused_by_its_numbers(
    tmp_path: Path, family: str
):
    make_tiny(family, tmp_path / "m")
    with pytest.raises(EngineError, match="own head says other numbers"):
        checked(tmp_path / "m").check(family)


def test_nan_is_never_equal():
    nan = ForwardCheck(
        head=float("nan"),
        alone=0.0,
        packed=float("nan"),
        leak=0.0,
        shared=0.0,
        window=None,
        scale=1.0,
        dtype="float32",
    )
    assert not nan.packs
    with pytest.raises(EngineError):
        nan.check("m")


@pytest.mark.parametrize("family", ["Gemma 3", "Qwen3"])
def test_buffers_that_were_rounded_come_back_as_plain_loading_has_them(tmp_path: Path, family: str):
    make_tiny(family, tmp_path / "m")
    spec = TrainSpec(model_path=str(tmp_path / "m"), dtype="bfloat16", policy=POLICY, total_steps=1)
    model = load_model(spec).model
    plain = {name: buffer.clone() for name, buffer in model.named_buffers()}
    rotary = [name for name in plain if name.endswith("inv_freq")]
    assert rotary and all(plain[name].dtype == torch.float32 for name in rotary)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            module.register_buffer(name, buffer.bfloat16(), persistent=False)
    restore_buffers(model, spec)
    for name, buffer in model.named_buffers():
        assert buffer.dtype == plain[name].dtype, name
        np.testing.assert_array_equal(buffer.float().numpy(), plain[name].float().numpy(), name)
