"""Weights: policy ranks -> rollout engines, through vLLM's weight-transfer API.

All ZeRO ranks walk through the same buckets in lockstep, because gathering a bucket is a
collective. Rank 0 drives the four calls of the API on every rollout engine: start (in-flight
completions end first), one update per bucket, finish (the prefix cache is reset afterwards). Each
call has a deadline, and the version that the engines serve at the end is compared with the one
published.

On CPU a bucket travels through Ray's shared-memory object store (backend `host_memory`). On GPUs
`actors.engines.vllm_transports.gpu_sender` runs vLLM's own `nccl` (separate devices) or `ipc`
(colocated) sender.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import ray
import torch

from actors.cluster.deadlines import get
from actors.groups.rollout import check_versions

if TYPE_CHECKING:
    from actors.engines.deepspeed_engine import TrainEngine

Backend = Literal["host_memory", "nccl", "ipc"]
BUCKET_BYTES = 512 * 2**20


class RolloutClient:
    """vLLM's weight-sync client over the rollout actors: each call reaches all of them."""

    def __init__(self, handles: Sequence[Any], tensor_parallel: int, deadline_s: float) -> None:
        self._handles = list(handles)
        self._tensor_parallel = tensor_parallel
        self._deadline_s = deadline_s
        self.policy_version = 0  # of the publication in progress

    def init_weight_transfer_engine(self, init_info: Mapping[str, Any]) -> None:
        """Agree on the transport; with NCCL, engine by engine, workers follow one another."""
        infos = [dict(init_info) for _ in self._handles]
        for index, info in enumerate(infos):
            if "rank_offset" in info:
                info["rank_offset"] += index * self._tensor_parallel
        refs = [
            handle.init_weights.remote(info)
            for handle, info in zip(self._handles, infos, strict=True)
        ]
        get(refs, self._deadline_s, "the agreement on the weight transport")

    def start_weight_update(self) -> None:
        """Open an update on every engine."""
        self._all("start_weights", "the end of in-flight completions")

    def update_weights(self, update_info: Any) -> None:  # noqa: ANN401 - backend-specific
        """Load one bucket on every engine."""
        self._all("update_weights", "loading a bucket of weights", update_info)

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Close the update and check what is served.

        Raises:
            VersionMismatchError: when an engine serves another version than the one published.
        """
        version = self.policy_version if weight_version is None else int(weight_version)
        check_versions(self._all("finish_weights", "the end of a weight update", version), version)

    @property
    def num_workers(self) -> int:
        """GPUs of all rollout engines."""
        return len(self._handles) * self._tensor_parallel

    def _all(self, method: str, what: str, *args: object) -> list[Any]:
        refs = [getattr(handle, method).remote(*args) for handle in self._handles]
        return get(refs, self._deadline_s, f"{what} of policy version {self.policy_version}")


class WeightPublisher:
    """One policy rank's part in a publication; only rank 0 talks to the engines."""

    def __init__(
        self,
        engine: TrainEngine,
        rank: int,
        backend: Backend,
        client: RolloutClient,
        address: tuple[str, int],
    ) -> None:
        self._engine = engine
        self._is_sender = rank == 0
        self._client = client
        self._gpu_sender: Any = None
        if backend != "host_memory":
            # Ranks on CPU never load vLLM.
            from actors.engines.vllm_transports import Rendezvous, gpu_sender  # noqa: PLC0415

            self._gpu_sender = gpu_sender(
                backend,
                Rendezvous(rank=rank, address=address, num_workers=client.num_workers),
                client,
                engine.parameter_metadata(),
                lambda: engine.iter_full_parameters(BUCKET_BYTES),
            )

    def publish(self, policy_version: int) -> None:
        """Send the current weights; all ranks call this together."""
        self._client.policy_version = policy_version
        if self._gpu_sender is not None:
            self._gpu_sender.send_weights()
            return
        if self._is_sender:
            self._client.start_weight_update()
        for bucket in self._engine.iter_full_parameters(BUCKET_BYTES):
            if self._is_sender:
                self._client.update_weights(ray.put(host_bucket(bucket)))
        if self._is_sender:
            self._client.finish_weight_update()


def host_bucket(bucket: Sequence[tuple[str, torch.Tensor]]) -> dict[str, Any]:
    """Raw bytes in the object store: numpy has no bfloat16, so dtype and shape travel along."""
    return {
        "names": [name for name, _ in bucket],
        "dtypes": [str(t.dtype).removeprefix("torch.") for _, t in bucket],
        "shapes": [tuple(t.shape) for _, t in bucket],
        "arrays": [
            t.detach().cpu().contiguous().view(torch.uint8).reshape(-1).numpy() for _, t in bucket
        ],
    }
