"""Fused normalisation on a CPU is that of plain torch, and steps aside where it cannot be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from vllm import ir

from actors.engines.vllm_cpu import cpu_engine_args, register_cpu_kernels

pytestmark = pytest.mark.system

EPSILON = 1e-6
FUSED = cpu_engine_args("float32")["kernel_config"]["ir_op_priority"]["rms_norm"]


@pytest.fixture(autouse=True)
def fused() -> Iterator[None]:
    register_cpu_kernels()
    register_cpu_kernels()  # as vLLM's plugin loader may
    with (
        ir.ops.rms_norm.set_priority(FUSED),
        ir.ops.fused_add_rms_norm.set_priority(FUSED),
    ):
        yield


def chosen(op: ir.op.IrOp, *args: object) -> str:
    return op.dispatch(*args).provider


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_of_whole_tensors_and_of_views_are_those_of_torch(dtype: torch.dtype):
    torch.manual_seed(0)
    qkv, weight = torch.randn(37, 8, 32, dtype=dtype), torch.randn(32, dtype=dtype)
    for x in (qkv, qkv[:, 2:5]):
        assert chosen(ir.ops.rms_norm, x, weight, EPSILON) == FUSED[0]
        expected = torch.nn.functional.rms_norm(x, (32,), weight, EPSILON)
        torch.testing.assert_close(ir.ops.rms_norm(x, weight, EPSILON), expected)


def test_a_norm_with_a_residual_is_that_of_torch():
    torch.manual_seed(0)
    x, residual, weight = torch.randn(37, 128), torch.randn(37, 128), torch.randn(128)
    assert chosen(ir.ops.fused_add_rms_norm, x, residual, weight, EPSILON) == FUSED[0]
    total = x + residual
    normed, kept = ir.ops.fused_add_rms_norm(x, residual, weight, EPSILON)
    torch.testing.assert_close(normed, torch.nn.functional.rms_norm(total, (128,), weight, EPSILON))
    torch.testing.assert_close(kept, total)


def test_what_the_kernels_can_not_do_is_left_to_torch():
    x, weight = torch.randn(5, 128), torch.randn(128)
    assert chosen(ir.ops.rms_norm, x, None, EPSILON) == "native"
    assert chosen(ir.ops.rms_norm, x, weight.bfloat16(), EPSILON) == "native"
    assert chosen(ir.ops.rms_norm, x, weight, EPSILON, 64) == "native"
    strided = torch.randn(5, 256)[:, :128]
    assert chosen(ir.ops.fused_add_rms_norm, strided, x, weight, EPSILON) == "native"
