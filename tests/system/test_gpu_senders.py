"""Publication between GPUs, by vLLM's own senders and receivers on devices that do not exist.

What they say to CUDA is answered in host memory; all of their other lines run, and all of ours.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from vllm.distributed.weight_transfer import ipc_engine, nccl_common, packed_tensor
from vllm.distributed.weight_transfer.ipc_engine import IPCWeightTransferEngine
from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine
from vllm.model_executor.model_loader import reload

from actors.engines import vllm_transports
from actors.groups import weights
from actors.groups.handles import Served, WeightRoute
from actors.groups.weights import WeightPublisher
from conf.errors import VersionMismatchError

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

BUCKET = 64  # bytes
Named = list[tuple[str, torch.Tensor]]


class FakeModel(torch.nn.Module):
    """A model of an engine: it keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: dict[str, torch.Tensor] = {}

    def load_weights(self, named: Named) -> None:
        self.loaded |= {name: tensor.clone() for name, tensor in named}


class FakeRollout:
    """A rollout actor with vLLM's receiving side in it."""

    def __init__(self, backend: Literal["nccl", "ipc"], serves: int = 0) -> None:
        self.model = FakeModel()
        kind = IPCWeightTransferEngine if backend == "ipc" else NCCLWeightTransferEngine
        parallel = SimpleNamespace(data_parallel_index=0, world_size=1, rank=0)
        about: Any = SimpleNamespace(parallel_config=parallel, model_config=None)
        config: Any = None
        self._receiver: Any = kind(config, about, torch.device("cpu", 0), self.model)
        self._serves = serves

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self, f"_{name}"))

    def _init_weight_transfer_engine(self, info: dict[str, Any]) -> None:
        self._receiver.init_transfer_engine(self._receiver.parse_init_info(info))

    def _start_weight_update(self) -> None:
        self._receiver.start_weight_update()

    def _update_weights(self, info: dict[str, Any]) -> None:
        self._receiver.receive_weights(self._receiver.parse_update_info(info))

    def _finish_weight_update(self, version: int) -> Served:
        self._receiver.finish_weight_update()
        return Served(version + self._serves, 0)


class FakeRank:
    """A ZeRO-3 rank: tied weights have two names, and one is larger than a bucket."""

    def __init__(self) -> None:
        self.gathered = 0
        tied = torch.arange(64, dtype=torch.bfloat16).reshape(16, 4)
        self.weights: list[Named] = [
            [("embed.weight", tied), ("lm_head.weight", tied)],
            [("norm.weight", torch.ones(4)), ("up.weight", torch.randn(3, 4).bfloat16())],
        ]

    def parameter_metadata(self) -> list[tuple[str, str, tuple[int, ...]]]:
        return [
            (name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
            for bucket in self.weights
            for name, tensor in bucket
        ]

    def iter_full_parameters(self, bucket_bytes: int) -> Iterator[Named]:
        assert bucket_bytes == BUCKET
        for bucket in self.weights:
            self.gathered += 1
            yield [(name, tensor.clone()) for name, tensor in bucket]


class FakeNccl:
    """Communicators of one broadcast: what rank 0 sends is what the others get."""

    def __init__(self) -> None:
        self.world_sizes: set[int] = set()
        self._lines: dict[int, queue.SimpleQueue[torch.Tensor]] = {}

    def join(self, _: str, __: int, rank: int, world_size: int, device: object) -> Any:
        self.world_sizes.add(world_size)
        if rank:
            self._lines[rank] = queue.SimpleQueue()

        def broadcast(tensor: torch.Tensor, src: int, stream: object = None) -> None:
            if rank == src:
                for line in self._lines.values():
                    line.put(tensor.clone())
            else:
                tensor.copy_(self._lines[rank].get(timeout=20))

        return SimpleNamespace(broadcast=broadcast)


@pytest.fixture(autouse=True)
def nccl(monkeypatch: pytest.MonkeyPatch) -> FakeNccl:
    """A CUDA that answers at once; memory that is shared is the memory itself."""
    shared: dict[tuple[object, ...], torch.Tensor] = {}

    def reduce_tensor(tensor: torch.Tensor) -> tuple[object, tuple[object, ...]]:
        handle = (*("handle", len(shared), 0, 0, 0, 0), 0)  # the seventh is the device
        shared[handle] = tensor
        return None, handle

    empty = torch.empty

    def on_host(*shape: Any, **how: Any) -> torch.Tensor:
        return empty(*shape, **{k: v for k, v in how.items() if k != "device"})

    idle = SimpleNamespace(synchronize=lambda: None)
    about = SimpleNamespace(uuid="GPU-0")
    for place, name, fake in (
        (torch.cuda, "get_device_properties", lambda _: about),
        (torch.cuda, "current_stream", lambda: idle),
        (torch.cuda, "stream", lambda _: nullcontext()),
        (torch.cuda, "synchronize", lambda: None),
        (torch.cuda, "ipc_collect", lambda: None),
        (torch.accelerator, "current_device_index", lambda: 0),
        (torch, "empty", on_host),
        (packed_tensor, "reduce_tensor", reduce_tensor),
        (torch.multiprocessing.reductions, "rebuild_cuda_tensor", lambda *h: shared[h]),
        (packed_tensor, "_get_streams", lambda _, count: (idle,) * count),
        (reload, "initialize_layerwise_reload", lambda _: None),
        (reload, "finalize_layerwise_reload", lambda *_: None),
        (weights, "get", lambda value, *_: value),
        (weights, "BUCKET_BYTES", BUCKET),
        (vllm_transports, "_SHARED_BYTES", BUCKET),
    ):
        monkeypatch.setattr(place, name, fake)
    fake = FakeNccl()
    monkeypatch.setattr(nccl_common, "stateless_init_process_group", fake.join)
    return fake


def publisher(
    backend: Literal["nccl", "ipc"], rank: FakeRank, engines: Sequence[FakeRollout], number: int = 0
) -> WeightPublisher:
    handles: Any = {f"rollout-{index}": engine for index, engine in enumerate(engines)}
    route = WeightRoute(engines=handles, tensor_parallel=1, backend=backend, deadline_s=10.0)
    engine: Any = rank
    return WeightPublisher(engine, number, route, ("127.0.0.1", 1))


@pytest.mark.parametrize("backend", ["ipc", "nccl"])
def test_every_engine_gets_every_weight_bit_for_bit_each_time(
    backend: Literal["nccl", "ipc"], nccl: FakeNccl
) -> None:
    rank, engines = FakeRank(), [FakeRollout(backend), FakeRollout(backend)]
    sender = publisher(backend, rank, engines)
    for version in (1, 2):
        for bucket in rank.weights:
            for _, tensor in bucket:
                tensor.add_(1)
        assert sender.publish(version) == {}
        sent = dict(pair for bucket in rank.weights for pair in bucket)
        for engine in engines:
            assert engine.model.loaded.keys() == sent.keys()
            assert all(torch.equal(engine.model.loaded[name], sent[name]) for name in sent)
    assert nccl.world_sizes == ({3} if backend == "nccl" else set())


def test_a_weight_larger_than_a_bucket_has_room_where_devices_are_shared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the embeddings of an 8B model, which are larger than vLLM's own buffer."""
    asked: list[int] = []
    produce = packed_tensor.packed_ipc_producer

    def note(*given: Any, buffer_size_bytes: int, **named: Any) -> Iterator[Any]:
        asked.append(buffer_size_bytes)
        return produce(*given, buffer_size_bytes=buffer_size_bytes, **named)

    monkeypatch.setattr(ipc_engine, "packed_ipc_producer", note)
    publisher("ipc", FakeRank(), [FakeRollout("ipc")]).publish(1)
    assert asked == [16 * 4 * 2]


@pytest.mark.parametrize("backend", ["ipc", "nccl"])
def test_the_other_ranks_gather_in_lockstep_and_send_nothing(
    backend: Literal["nccl", "ipc"],
) -> None:
    rank, engine = FakeRank(), FakeRollout(backend)
    publisher(backend, rank, [engine], number=1).publish(1)
    assert rank.gathered == 2 and engine.model.loaded == {}


@pytest.mark.parametrize("backend", ["ipc", "nccl"])
def test_an_engine_that_serves_another_version_ends_the_publication(
    backend: Literal["nccl", "ipc"],
) -> None:
    sender = publisher(backend, FakeRank(), [FakeRollout(backend, serves=1)])
    with pytest.raises(VersionMismatchError, match=r"version 3 was published.*'rollout-0': 4"):
        sender.publish(3)
