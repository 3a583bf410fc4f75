"""CPU settings of vLLM that make it faster: its fused kernels, and small blocks of the KV cache.

vLLM's CPU build has fused normalisation kernels, but its registry offers them on GPUs only; unfused
they take half as long as all matrix products of a small model. And its CPU attention offers blocks
of 32 tokens and more, while the kernel can do 16: prompts share whole blocks only, so with smaller
ones less of what the programs of a problem have in common is computed twice.

The entry point `vllm.general_plugins` (setup.cfg) makes every process of an engine know both.
"""

# vLLM's operators are typed in parts; what leaves them is narrowed before use.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from typing import Any

import torch
from vllm import ir
from vllm.platforms import current_platform
from vllm.v1.attention.backend import MultipleOf
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend
from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

_FUSED = "codescaler_cpu"
_SMALL_BLOCK = 16


class SmallBlocks(CPUAttentionBackend):
    """The CPU attention of vLLM, with every size of a block that its kernel has."""

    @staticmethod
    def get_supported_kernel_block_sizes(kv_cache_spec: object = None) -> list[int | MultipleOf]:
        """Multiples of 16 tokens."""
        return [MultipleOf(_SMALL_BLOCK)]


def register_cpu_kernels() -> None:
    """Make them known to this process; called by vLLM's plugin loader, possibly twice."""
    if not current_platform.is_cpu() or _FUSED in ir.ops.rms_norm.impls:
        return
    register_backend(AttentionBackendEnum.CPU_ATTN, f"{__name__}.{SmallBlocks.__name__}")
    ir.ops.rms_norm.register_impl(_FUSED, supports_args=_can_norm)(_rms_norm)
    ir.ops.fused_add_rms_norm.register_impl(_FUSED, supports_args=_can_add_norm, inplace=True)(
        _fused_add_rms_norm
    )


def cpu_engine_args(dtype: str) -> dict[str, Any]:
    """Arguments of an engine that use them."""
    norms = [_FUSED, "native"]
    return {
        # The kernel for bfloat16 on AMX tiles takes 32 tokens at a time.
        "block_size": 32 if dtype == "bfloat16" else _SMALL_BLOCK,
        "kernel_config": {"ir_op_priority": {"rms_norm": norms, "fused_add_rms_norm": norms}},
    }


def _can_norm(
    x: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None
) -> bool:
    return variance_size is None and weight is not None and weight.dtype == x.dtype


def _rms_norm(
    x: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None
) -> torch.Tensor:
    x = x.contiguous()  # queries and keys are views into one tensor
    normed = torch.empty_like(x)
    torch.ops._C.rms_norm(normed, x, weight, epsilon)
    return normed


def _can_add_norm(
    x: torch.Tensor,
    x_residual: torch.Tensor,
    weight: torch.Tensor | None,
    epsilon: float,
    variance_size: int | None = None,
) -> bool:
    contiguous = x.is_contiguous() and x_residual.is_contiguous()
    return contiguous and _can_norm(x, weight, epsilon, variance_size)


def _fused_add_rms_norm(
    x: torch.Tensor,
    x_residual: torch.Tensor,
    weight: torch.Tensor | None,
    epsilon: float,
    variance_size: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    torch.ops._C.fused_add_rms_norm(x, x_residual, weight, epsilon)
    return x, x_residual
