"""Weight transports of vLLM's weight-transfer API: how weights reach an engine.

On GPUs they are vLLM's own, `nccl` and `ipc`, of which the sending side is made here. For a CPU
this module registers `host_memory`, which loads tensors from the host's memory; the entry point
`vllm.general_plugins` (setup.cfg) makes every process of an engine know it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from vllm.distributed.weight_transfer.base import (
    ParamMeta,
    TrainerInitInfo,
    TrainerWeightTransferEngine,
    VLLMWeightSyncClient,
    WeightSource,
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import (
    WeightTransferEngineFactory,
    WeightTransferTrainerFactory,
)
from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo
from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo
from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import (
    UnquantizedFusedMoEMethod,
)
from vllm.model_executor.model_loader.reload import (
    finalize_layerwise_reload,
    initialize_layerwise_reload,
)

HOST_MEMORY = "host_memory"
_SHARED_BYTES = 512 * 2**20  # of weights that an engine on the same device reads at once


@dataclass
class HostMemoryInit(WeightTransferInitInfo):
    """Nothing to agree on: the tensors come with each update."""


@dataclass
class HostMemoryUpdate(WeightTransferUpdateInfo):
    """One bucket of tensors as raw bytes: numpy has no bfloat16."""

    names: list[str]
    dtypes: list[str]  # names in torch
    shapes: list[tuple[int, ...]]
    places: list[int]  # in `arrays`: tied weights share one
    arrays: list[NDArray[np.uint8]]

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The bucket as vLLM's `load_weights` reads it."""
        for name, dtype, shape, place in zip(
            self.names, self.dtypes, self.shapes, self.places, strict=True
        ):
            # A copy, because what lies in the object store must not be written.
            raw = torch.from_numpy(self.arrays[place].copy())
            yield name, raw.view(getattr(torch, dtype)).reshape(shape)


class HostMemoryWeights(WeightTransferEngine[HostMemoryInit, HostMemoryUpdate]):
    """Load weights that lie in host memory, layer by layer.

    Linear weights are pre-packed on CPU, so a plain `load_weights` would write to the wrong layout:
    the layerwise reload restores the layer's loadable form, loads, and packs it again.
    """

    init_info_cls = HostMemoryInit
    update_info_cls = HostMemoryUpdate

    def init_transfer_engine(self, init_info: HostMemoryInit) -> None:
        """Nothing to set up."""

    def start_weight_update(self) -> None:
        """Put the layers into their loadable form."""
        _forget_expert_kernels(self.model)
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: HostMemoryUpdate) -> None:
        """Load one bucket."""
        self.model.load_weights(update_info.tensors())  # pyright: ignore[reportCallIssue]  # a method of every vLLM model

    def finish_weight_update(self) -> None:
        """Pack the layers again."""
        finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        """Nothing to release."""


def _forget_expert_kernels(model: torch.nn.Module) -> None:
    """Make vLLM pack the weights of mixed experts again after an update.

    On a CPU it packs them only when it builds their kernel, which it does once: an update would
    write plain weights where the kernel reads packed ones, and the engine would sample from experts
    that nobody trained.
    """
    for layer in model.modules():
        method = getattr(layer, "quant_method", None)
        if isinstance(method, UnquantizedFusedMoEMethod):
            method.moe_kernel = None


def register_host_memory() -> None:
    """Make `host_memory` known to this process; called by vLLM's plugin loader, possibly twice."""
    if HOST_MEMORY not in WeightTransferEngineFactory._registry:  # vLLM has no public query
        WeightTransferEngineFactory.register_engine(HOST_MEMORY, HostMemoryWeights)


class _GatheredSource(WeightSource):
    """A ZeRO-3 engine's weights as vLLM's senders read them; iterating is a collective.

    The senders copy on streams of their own, while the weights are gathered on another and given
    back after their bucket: the device is waited for on both sides of it.
    """

    def __init__(
        self,
        metadata: Sequence[tuple[str, str, tuple[int, ...]]],
        buckets: Callable[[], Iterator[list[tuple[str, torch.Tensor]]]],
    ) -> None:
        self._metadata = [
            ParamMeta(name, getattr(torch, dtype.removeprefix("torch.")), shape)
            for name, dtype, shape in metadata
        ]
        self._buckets = buckets

    def metadata(self) -> list[ParamMeta]:
        """Names, dtypes and shapes, without gathering."""
        return self._metadata

    def largest_bytes(self) -> int:
        """Size of the largest weight."""
        return max(math.prod(meta.shape) * meta.dtype.itemsize for meta in self._metadata)

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        for bucket in self._buckets():
            torch.cuda.synchronize()
            yield from bucket
            torch.cuda.synchronize()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendezvous:
    """Where a sending rank meets the rollout engines."""

    rank: int
    address: tuple[str, int]  # of rank 0
    num_workers: int  # GPUs of all rollout engines


def gpu_sender(
    backend: Literal["nccl", "ipc"],
    meeting: Rendezvous,
    client: VLLMWeightSyncClient,
    metadata: Sequence[tuple[str, str, tuple[int, ...]]],
    buckets: Callable[[], Iterator[list[tuple[str, torch.Tensor]]]],
) -> TrainerWeightTransferEngine[Any]:
    """vLLM's own sender: `nccl` to other devices, `ipc` to engines on the same device."""
    source = _GatheredSource(metadata, buckets)
    info: TrainerInitInfo
    if backend == "nccl":
        info = NCCLTrainerInitInfo(
            master_address=meeting.address[0],
            master_port=meeting.address[1],
            world_size=1 + meeting.num_workers,
            packed=True,
            rank=meeting.rank,
        )
    else:
        # Packed, because a gathered bucket is partitioned again before the next one is gathered.
        # The buffer that is shared has to hold the largest weight, which may be above vLLM's 1 GiB.
        info = IPCTrainerInitInfo(
            packed=True,
            packed_buffer_size_bytes=max(_SHARED_BYTES, source.largest_bytes()),
            rank=meeting.rank,
        )
    return WeightTransferTrainerFactory.trainer_init(info, client=client, source=source)
