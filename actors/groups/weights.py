"""Weights: policy ranks -> rollout engines, through vLLM's weight-transfer API.

All ZeRO ranks walk through the same buckets in lockstep, because gathering a bucket is a
collective. Rank 0 drives the four calls of the API on every rollout engine: start (in-flight
completions end first), one update per bucket, finish (the prefix cache is reset afterwards). Each
call has a deadline. At the end the version that an engine serves is compared with the one that was
published, and on CPU the checksum of what it received with that of what was sent. An engine that is
lost on the way is left out of the rest, and reported: the others get their weights.

On CPU a bucket travels through Ray's shared-memory object store (backend `host_memory`). On GPUs
`actors.engines.vllm_transports.gpu_sender` runs vLLM's own `nccl` (separate devices) or `ipc`
(colocated) sender.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import ray
import torch
from xxhash import xxh3_64_intdigest

from actors.cluster.deadlines import LOST, get, wait_for
from actors.groups.handles import RolloutHandle, WeightRoute
from conf.errors import DeadlineError, VersionMismatchError

if TYPE_CHECKING:
    from actors.engines.deepspeed_engine import TrainEngine

T = TypeVar("T")

BUCKET_BYTES = 512 * 2**20
_LOOK_S = 2.0  # between two looks whether an engine lives
_LAST_S = 1.0  # for an answer that may have come while others were waited for


class RolloutClient:
    """vLLM's weight-sync client over the rollout actors: each call reaches all that are left.

    A call goes through three methods of one name: here, of `RolloutActor`, of `EngineLoop`.
    """

    def __init__(self, route: WeightRoute) -> None:
        self._route = route
        self.policy_version = 0  # of the publication in progress
        self.sent: int | None = None  # the checksum of its buckets, where they are sent from here
        self.lost: dict[str, str] = {}  # engines that are left out of it, by name: why

    def init_weight_transfer_engine(self, init_info: Mapping[str, Any]) -> None:
        """Agree on the transport; with NCCL, engine by engine, workers follow one another."""
        infos = {name: dict(init_info) for name in self._route.engines}
        for index, info in enumerate(infos.values()):
            if "rank_offset" in info:
                info["rank_offset"] += index * self._route.tensor_parallel
        what = "the agreement on the weight transport"
        self._call(
            lambda name, engine: engine.init_weight_transfer_engine.remote(infos[name]), what
        )

    def start_weight_update(self) -> None:
        """Open an update on every engine."""
        what = "the end of in-flight completions"
        self._call(lambda _, engine: engine.start_weight_update.remote(), what)

    def update_weights(self, update_info: Any) -> None:  # noqa: ANN401 - backend-specific
        """Load one bucket on every engine."""
        what = "loading a bucket of weights"
        self._call(lambda _, engine: engine.update_weights.remote(update_info), what)

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Close the update and check what is served.

        Raises:
            VersionMismatchError: when an engine serves another version than the one published, or
                has received through host memory something else than was sent.
        """
        version = self.policy_version if weight_version is None else int(weight_version)
        what = "the end of a weight update"
        served = self._call(lambda _, engine: engine.finish_weight_update.remote(version), what)
        check_versions({name: found.version for name, found in served.items()}, version)
        if self.sent is not None:
            check_checksums({name: found.checksum for name, found in served.items()}, self.sent)

    @property
    def num_workers(self) -> int:
        """GPUs of all rollout engines."""
        return len(self._route.engines) * self._route.tensor_parallel

    def _call(self, ask: Callable[[str, RolloutHandle], Awaitable[T]], what: str) -> dict[str, T]:
        """What each engine that is left answers, under one deadline."""
        refs = {
            name: ask(name, engine)
            for name, engine in self._route.engines.items()
            if name not in self.lost
        }
        end_s = time.monotonic() + self._route.deadline_s
        answers: dict[str, T] = {}
        for name, ref in refs.items():
            about = f"{what} of policy version {self.policy_version} on {name}"
            try:
                answers[name] = get(ref, max(_LAST_S, end_s - time.monotonic()), about)
            except LOST as why:
                self.lost[name] = str(why)
        return answers


async def unless_one_dies(call: Awaitable[T], engines: Mapping[str, RolloutHandle]) -> T:
    """What `call` gives, while all engines live; a stopped one lives.

    A broadcast by NCCL waits for all of its processes, and no rank in it notices that one has died.

    Raises:
        LostActorError: as soon as an engine is dead.
    """

    async def watch(name: str, engine: RolloutHandle) -> None:
        while True:
            with contextlib.suppress(DeadlineError):
                await wait_for(engine.alive.remote(), _LOOK_S, f"a sign of life of {name}")
            await asyncio.sleep(_LOOK_S)

    answer = asyncio.ensure_future(call)
    watches = [asyncio.ensure_future(watch(name, engine)) for name, engine in engines.items()]
    try:
        done, _ = await asyncio.wait([answer, *watches], return_when=asyncio.FIRST_COMPLETED)
        for watched in done - {answer}:
            watched.result()
        return answer.result()
    finally:
        for task in (answer, *watches):
            task.cancel()
        await asyncio.gather(answer, *watches, return_exceptions=True)


def check_versions(served: Mapping[str, int], policy_version: int) -> None:
    """Compare the versions that the engines serve with the one that was published.

    Raises:
        VersionMismatchError: naming the engines that serve something else.
    """
    wrong = {name: version for name, version in served.items() if version != policy_version}
    if wrong:
        raise VersionMismatchError(
            f"policy version {policy_version} was published, but rollout engines serve {wrong}"
        )


def check_checksums(served: Mapping[str, int], sent: int) -> None:
    """Compare what the engines received with what was sent.

    Raises:
        VersionMismatchError: naming the engines that received something else.
    """
    wrong = [name for name, received in served.items() if received != sent]
    if wrong:
        raise VersionMismatchError(
            f"the weights that {', '.join(wrong)} received are not those that were sent"
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

    def publish(self, policy_version: int) -> dict[str, str]:
        """Send the current weights; all ranks call this together.

        Returns the engines that were lost on the way, by name, with the reason; that of rank 0
        counts.
        """
        client = self._client
        client.policy_version, client.lost = policy_version, {}
        if self._gpu_sender is not None:
            self._gpu_sender.send_weights()
            return client.lost
        if self._is_sender:
            client.start_weight_update()
        client.sent = 0
        for bucket in self._engine.iter_full_parameters(BUCKET_BYTES):
            if self._is_sender:
                raw = host_bucket(bucket)
                client.sent = checksum(raw, client.sent)
                client.update_weights(ray.put(raw))
        if self._is_sender:
            client.finish_weight_update()
        return client.lost


def checksum(bucket: Mapping[str, Any], before: int) -> int:
    """The checksum of the buckets of an update up to this one; `before` is that up to the last."""
    for array in bucket["arrays"]:
        before = xxh3_64_intdigest(array, before)
    return before


def host_bucket(bucket: Sequence[tuple[str, torch.Tensor]]) -> dict[str, Any]:
    """Raw bytes in the object store: numpy has no bfloat16, so dtype and shape travel along.

    A tensor with two names, as tied embeddings are, is sent once.
    """
    tensors = {id(tensor): tensor for _, tensor in bucket}
    place_of = {key: place for place, key in enumerate(tensors)}
    return {
        "names": [name for name, _ in bucket],
        "dtypes": [str(t.dtype).removeprefix("torch.") for _, t in bucket],
        "shapes": [tuple(t.shape) for _, t in bucket],
        "places": [place_of[id(tensor)] for _, tensor in bucket],
        "arrays": [
            t.detach().cpu().contiguous().view(torch.uint8).reshape(-1).numpy()
            for t in tensors.values()
        ],
    }
