"""A minibatch for a rank, through an object store that it does not fit in; prints JSON.

`python -m tests.system.spilling FOLDER` starts a Ray of its own that spills into FOLDER, as its
object store keeps its size for as long as it runs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
from xxhash import xxh3_64_intdigest

from actors.cluster import cluster
from rl.packing import Packing, build_minibatch
from rl.parcels import Parcel
from rl.types import Sample

STORE_BYTES = 80 * 2**20
SAMPLES, PROMPT, ANSWER = 2048, 2048, 16_384


def parcels() -> tuple[Parcel, ...]:
    """As many samples of the longest kind as a step of the paper has, for one rank."""
    rng = np.random.default_rng(0)
    samples = [
        Sample(
            prompt_id=f"p{index // 8}",
            sample_idx=index % 8,
            token_ids=rng.integers(0, 150_000, PROMPT + ANSWER, np.int32),
            num_prompt_tokens=PROMPT,
            rollout_logprobs=rng.random(ANSWER, np.float32),
            advantage=1.0,
            policy_version=0,
        )
        for index in range(SAMPLES)
    ]
    packing = Packing(num_ranks=1, microbatch_tokens=20_480, share_prefix="off")
    return build_minibatch(samples, packing).parcels_by_rank[0]


def digest(of_rank: Sequence[Parcel]) -> tuple[int, int]:
    """Bytes of the arrays of all samples, and their checksum."""
    size = found = 0
    for parcel in of_rank:
        for sample in parcel.samples_S:
            for array in (sample.token_ids, sample.rollout_logprobs):
                size += array.nbytes
                found = xxh3_64_intdigest(array.tobytes(), found)
    return size, found


@ray.remote
class Rank:
    """A policy rank that looks at what it gets."""

    def digest(self, of_rank: Sequence[Parcel]) -> tuple[int, int]:
        """As the function says."""
        return digest(of_rank)


def main(folder: Path) -> None:
    """Print sizes and checksums of what was sent and of what has arrived, and what was spilled."""
    cluster._stay_on_loopback()
    ray.init(
        num_cpus=2,
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        object_spilling_directory=str(folder),
        _node_ip_address="127.0.0.1",
    )
    try:
        sent = parcels()
        rank: Any = Rank.remote()
        arrived = ray.get(rank.digest.remote(sent), timeout=120)
        held = [ray.put(np.full(STORE_BYTES // 2, number, np.uint8)) for number in range(4)]
        spilled = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        back = [bool((ray.get(one) == number).all()) for number, one in enumerate(held)]
        found: dict[str, Any] = {"sent": digest(sent), "arrived": arrived}
        sys.stdout.write(json.dumps({**found, "spilled": spilled, "back": back}))
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
