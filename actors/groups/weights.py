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

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import ray
import torch

from actors.cluster.deadlines import get
from actors.groups.handles import RolloutHandle, WeightRoute
from conf.errors import VersionMismatchError

if TYPE_CHECKING:
    from actors.engines.deepspeed_engine import TrainEngine

T = TypeVar("T")

BUCKET_BYTES = 512 * 2**20


class RolloutClient:
    """vLLM's weight-sync client over the rollout actors: each call reaches all of them.

    A call goes through three methods of one name: here, of `RolloutActor`, of `EngineLoop`.
    """

    def __init__(self, route: WeightRoute) -> None:
        self._route = route
        self.policy_version = 0  # of the publication in progress

    def init_weight_transfer_engine(self, init_info: Mapping[str, Any]) -> None:
        """Agree on the transport; with NCCL, engine by engine, workers follow one another."""
        infos = [dict(init_info) for _ in self._route.engines]
        for index, info in enumerate(infos):
            if "rank_offset" in info:
                info["rank_offset"] += index * self._route.tensor_parallel
        refs = [
            engine.init_weight_transfer_engine.remote(info)
            for engine, info in zip(self._route.engines, infos, strict=True)
        ]
        get(refs, self._route.deadline_s, "the agreement on the weight transport")

    def start_weight_update(self) -> None:
        """Open an update on every engine."""
        self._call(
            lambda engine: engine.start_weight_update.remote(), "the end of in-flight completions"
        )

    def update_weights(self, update_info: Any) -> None:  # noqa: ANN401 - backend-specific
        """Load one bucket on every engine."""
        self._call(
            lambda engine: engine.update_weights.remote(update_info), "loading a bucket of weights"
        )

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Close the update and check what is served.

        Raises:
            VersionMismatchError: when an engine serves another version than the one published.
        """
        version = self.policy_version if weight_version is None else int(weight_version)
        served = self._call(
            lambda engine: engine.finish_weight_update.remote(version),
            "the end of a weight update",
        )
        check_versions(served, version)

    @property
    def num_workers(self) -> int:
        """GPUs of all rollout engines."""
        return len(self._route.engines) * self._route.tensor_parallel

    def _call(self, ask: Callable[[RolloutHandle], Awaitable[T]], what: str) -> list[T]:
        refs = [ask(engine) for engine in self._route.engines]
        what = f"{what} of policy version {self.policy_version}"
        return get(refs, self._route.deadline_s, what)


def check_versions(served: Sequence[int], policy_version: int) -> None:
    """Compare the versions that the engines serve with the one that was published.

    Raises:
        VersionMismatchError: naming the engines that serve something else.
    """
    wrong = {index: version for index, version in enumerate(served) if version != policy_version}
    if wrong:
        raise VersionMismatchError(
            f"policy version {policy_version} was published, but rollout engines serve {wrong}"
        )


class WeightPublisher:
    """One policy rank's part in a publication; only rank 0 talks to the engines."""

    def __init__(
        self,
        engine: TrainEngine,
        rank: int,
        route: WeightRoute,
        address: tuple[str, int],
    ) -> None:
        self._engine = engine
        self._is_sender = rank == 0
        self._client = RolloutClient(route)
        self._gpu_sender: Any = None
        if route.backend != "host_memory":
            # Ranks on CPU never load vLLM.
            from actors.engines.vllm_transports import Rendezvous, gpu_sender  # noqa: PLC0415

            self._gpu_sender = gpu_sender(
                route.backend,
                Rendezvous(rank=rank, address=address, num_workers=self._client.num_workers),
                self._client,
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
